"""What each group of fields of Triton's model configuration becomes here.

Values only: a parsed message in, our dataclasses out. Files that the configuration names (labels,
warm-up data) must lie in the model's folder; whoever sends a configuration with a load call reads
nothing else of this machine.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from protos.inference import model_config_pb2 as pb
from server.batch_policy import QueuePolicy, TimeoutAction
from server.model_config import (
    BatchingConfig,
    ConfigError,
    TensorConfig,
    VersionPolicy,
    WarmUpInput,
    WarmUpSample,
)


class Written:
    """The text a message was parsed from: for the lines in errors, and for what it says at all."""

    def __init__(
        self, origin: str, text: str, folder: Path, *, is_from_client: bool = False
    ) -> None:
        """`origin` names the text in errors; files it names are in `folder`.

        `is_from_client`: it came with a call, so it may not name what the operator alone may.
        """
        self.origin, self.is_from_client, self._folder = origin, is_from_client, folder
        self._lines = [line.partition("#")[0] for line in text.splitlines()]

    def error(self, field: str, problem: str) -> ConfigError:
        line = self._line_of(field.rpartition(".")[2])
        where = f", line {line}" if line else ""
        return ConfigError(f"{self.origin}{where}: {field}: {problem}")

    def says(self, field: str) -> bool:
        """Whether the field is written down, be it with its default value."""
        return self._line_of(field) is not None

    def file(self, field: str, *parts: str) -> Path:
        """The path of an existing file in the model's folder that the field names."""
        path = self._folder.joinpath(*parts)
        if Path(parts[-1]).is_absolute() or ".." in Path(parts[-1]).parts:
            raise self.error(field, f'expected a file in {self._folder}, got "{parts[-1]}"')
        if not path.is_file():
            raise self.error(field, f"no such file: {path}")
        return path

    def _line_of(self, field: str) -> int | None:
        camel = re.sub(r"_(.)", lambda match: match[1].upper(), field)  # as JSON may write it
        name = re.compile(rf"\b({field}|{camel})\b")
        found = (number for number, line in enumerate(self._lines, 1) if name.search(line))
        return next(found, None)


def max_batch_size(message: pb.ModelConfig, written: Written) -> int | None:
    """The declared limit; None where nothing is declared about shapes at all.

    As in Triton, declared tensors without a `max_batch_size` mean 0: their dims are whole.
    """
    size = message.max_batch_size
    if size < 0:
        raise written.error("max_batch_size", f"expected a whole number >= 0, got {size}")
    declared = message.input or message.output or written.says("max_batch_size")
    if size == 0 and declared and message.HasField("dynamic_batching"):
        raise written.error("max_batch_size", "expected at least 1 with dynamic_batching, got 0")
    return size if size or declared else None


def batching(message: pb.ModelConfig, limit: int | None, written: Written) -> BatchingConfig:
    """`limit` is the `max_batch_size`."""
    if not message.HasField("dynamic_batching"):
        return BatchingConfig(enabled=False if limit == 0 else None)
    said = message.dynamic_batching
    levels = max(1, said.priority_levels)
    for size in said.preferred_batch_size:
        if size < 1 or (limit and size > limit):
            expected = f"expected 1 to max_batch_size ({limit or 'any'}), got {size}"
            raise written.error("preferred_batch_size", expected)
    return BatchingConfig(
        enabled=True,
        window_s=said.max_queue_delay_microseconds / 1e6,
        priority_levels=levels,
        default_priority=_default_priority(said, levels, written),
        queue=_queue_policy(said.default_queue_policy)
        if said.HasField("default_queue_policy")
        else QueuePolicy(),
        priority_queues=_priority_queues(said.priority_queue_policy, levels, written),
        preserve_ordering=said.preserve_ordering,
        preferred_batch_sizes=tuple(said.preferred_batch_size),
    )


def _default_priority(said: pb.ModelDynamicBatching, levels: int, written: Written) -> int:
    default = said.default_priority_level or levels // 2 + 1
    if default > levels:
        raise written.error("default_priority_level", f"expected 1 to {levels}, got {default}")
    return default


def _priority_queues(
    policies: Mapping[int, pb.ModelQueuePolicy], levels: int, written: Written
) -> tuple[tuple[int, QueuePolicy], ...]:
    for level in policies:
        if not 1 <= level <= levels:
            expected = f"expected levels 1 to {levels} (priority_levels), got {level}"
            raise written.error("priority_queue_policy", expected)
    return tuple((level, _queue_policy(policies[level])) for level in sorted(policies))


def _queue_policy(policy: pb.ModelQueuePolicy) -> QueuePolicy:
    delays = policy.timeout_action == pb.ModelQueuePolicy.DELAY
    return QueuePolicy(
        queue_limit=policy.max_queue_size,
        timeout_s=policy.default_timeout_microseconds / 1e6 or None,
        timeout_action=TimeoutAction.DELAY if delays else TimeoutAction.REJECT,
        allow_timeout_override=policy.allow_timeout_override,
    )


def version_policy(policy: pb.ModelVersionPolicy, written: Written) -> VersionPolicy:
    match policy.WhichOneof("policy_choice"):
        case "all":
            return VersionPolicy(latest=None)
        case "specific":
            versions = tuple(policy.specific.versions)
            if not versions or min(versions) < 1:
                expected = f"expected positive version numbers, got {list(versions)}"
                raise written.error("version_policy.specific.versions", expected)
            return VersionPolicy(specific=versions)
    return VersionPolicy(latest=policy.latest.num_versions or 1)


def input_tensor(tensor: pb.ModelInput, written: Written) -> TensorConfig:
    _check_tensor("input", tensor, written)
    return TensorConfig(
        name=tensor.name,
        datatype=_datatype(tensor.data_type),
        dims=tuple(tensor.dims),
        reshape=tuple(tensor.reshape.shape) if tensor.HasField("reshape") else None,
        optional=tensor.optional,
        allow_ragged_batch=tensor.allow_ragged_batch,
    )


def output_tensor(tensor: pb.ModelOutput, written: Written) -> TensorConfig:
    _check_tensor("output", tensor, written)
    return TensorConfig(
        name=tensor.name,
        datatype=_datatype(tensor.data_type),
        dims=tuple(tensor.dims),
        reshape=tuple(tensor.reshape.shape) if tensor.HasField("reshape") else None,
        labels=_labels(tensor.label_filename, written),
        label_filename=tensor.label_filename,
    )


def _check_tensor(field: str, tensor: pb.ModelInput | pb.ModelOutput, written: Written) -> None:
    if not tensor.name:
        raise written.error(f"{field}.name", "expected a name, got none")
    for size in (*tensor.dims, *tensor.reshape.shape):
        if size < 1 and size != -1:
            expected = f'"{tensor.name}": expected sizes >= 1 or -1 (variable), got {size}'
            raise written.error(f"{field}.dims", expected)


def _labels(filename: str, written: Written) -> tuple[str, ...]:
    if not filename:
        return ()
    path = written.file("label_filename", filename)
    try:
        return tuple(path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise written.error("label_filename", f"cannot be read: {error}") from None


def warm_up_sample(sample: pb.ModelWarmup, written: Written) -> WarmUpSample:
    return WarmUpSample(
        name=sample.name,
        batch_size=sample.batch_size,
        inputs={name: _warm_up_input(value, written) for name, value in sample.inputs.items()},
        count=max(1, sample.count),
    )


def _warm_up_input(value: pb.ModelWarmup.Input, written: Written) -> WarmUpInput:
    datatype, dims = _datatype(value.data_type), tuple(value.dims)
    match value.WhichOneof("input_data_type"):
        case "input_data_file":
            file = written.file("model_warmup.input_data_file", "warmup", value.input_data_file)
            return WarmUpInput(datatype, dims, "file", file)
        case "random_data":
            return WarmUpInput(datatype, dims, "random")
    return WarmUpInput(datatype, dims, "zero")


def _datatype(value: int) -> str:
    name = pb.DataType.Name(cast(pb.DataType, value)).removeprefix("TYPE_")
    return {"STRING": "BYTES", "INVALID": ""}.get(name, name)
