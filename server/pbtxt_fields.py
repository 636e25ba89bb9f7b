"""What each group of fields of Triton's model configuration becomes here.

Values only: a parsed message in, our dataclasses out. Files that the configuration names (labels,
warm-up data) must lie in the model's folder; whoever sends a configuration with a load call reads
nothing else of this machine.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

from protos.inference import model_config_pb2 as pb
from server.batch_policy import QueuePolicy, TimeoutAction
from server.model_config import (
    BatchingConfig,
    ConfigError,
    ExecutionConfig,
    GraphLevel,
    TensorConfig,
    VersionPolicy,
    WarmUpInput,
    WarmUpSample,
)

ACCELERATORS = ("tensorrt", "cuda", "openvino")

_PRECISIONS = {"FP32": {}, "FP16": {"trt_fp16_enable": "1"}, "INT8": {"trt_int8_enable": "1"}}
# Triton's names of TensorRT's parameters that are not ONNX Runtime's names of its options.
_TENSORRT_OPTIONS = {
    "max_workspace_size_bytes": "trt_max_workspace_size",
    "int8_calibration_table_name": "trt_int8_calibration_table_name",
    "int8_use_native_calibration_table": "trt_int8_use_native_calibration_table",
}
# CUDA options that Triton also takes as parameters of the model, and its numbers for their values.
_CUDA_PARAMETERS: dict[str, tuple[str, ...]] = {
    "cudnn_conv_algo_search": ("EXHAUSTIVE", "HEURISTIC", "DEFAULT"),
    "arena_extend_strategy": ("kNextPowerOfTwo", "kSameAsRequested"),
    "gpu_mem_limit": (),
    "do_copy_in_default_stream": (),
}
_GRAPH_LEVELS: dict[int, GraphLevel] = {0: "all", -1: "basic", 1: "extended", 2: "disable"}
_Accelerators = pb.ModelOptimizationPolicy.ExecutionAccelerators


class Written:
    """The text a message was parsed from: for the lines in errors, and for what it says at all."""

    def __init__(self, origin: str, text: str, folder: Path) -> None:
        """`origin` names the text in errors; files it names are in `folder`."""
        self.origin, self._folder = origin, folder
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


def execution(message: pb.ModelConfig, written: Written) -> ExecutionConfig:
    groups, optimization = message.instance_group, message.optimization
    level = optimization.graph.level
    if level not in _GRAPH_LEVELS:
        expected = f"expected one of {sorted(_GRAPH_LEVELS)}, got {level}"
        raise written.error("optimization.graph.level", expected)
    accelerators = optimization.execution_accelerators
    return ExecutionConfig(
        instances=sum(_instances(group) for group in groups) if groups else None,
        threads=_threads(message, written),
        providers=_providers(groups, accelerators),
        gpus=tuple(sorted({gpu for group in groups for gpu in group.gpus})),
        graph_level=_GRAPH_LEVELS[level],
        provider_options=_provider_options(message, written),
    )


def _instances(group: pb.ModelInstanceGroup) -> int:
    return max(1, group.count) * max(1, len(group.gpus))


def _threads(message: pb.ModelConfig, written: Written) -> int | None:
    """ONNX Runtime's parameter `intra_op_thread_count`; 0 leaves it to the server."""
    if "intra_op_thread_count" not in message.parameters:
        return None
    said = message.parameters["intra_op_thread_count"].string_value
    if not said.isascii() or not said.isdigit():
        raise written.error("intra_op_thread_count", f'expected a whole number, got "{said}"')
    return int(said) or None


def _providers(
    groups: Iterable[pb.ModelInstanceGroup], said: _Accelerators
) -> tuple[str, ...] | None:
    """Execution providers in Triton's order: GPU accelerators, CUDA, CPU accelerators, CPU.

    Those of a GPU count where an instance group asks for one, or where none speaks against it
    and an accelerator for one is named. None, where nothing is said: a GPU where there is one.
    """
    kinds = {group.kind for group in groups}
    wanted = pb.ModelInstanceGroup.KIND_GPU in kinds or any(group.gpus for group in groups)
    is_free = pb.ModelInstanceGroup.KIND_CPU not in kinds
    on_gpu = [item.name for item in said.gpu_execution_accelerator] + ["cuda"]
    on_cpu = [item.name for item in said.cpu_execution_accelerator] + ["cpu"]
    if is_free and not wanted and len(on_gpu) == len(on_cpu) == 1:
        return None
    names = on_gpu + on_cpu if wanted or (is_free and len(on_gpu) > 1) else on_cpu
    return tuple(dict.fromkeys(name for name in names if name in (*ACCELERATORS, "cpu")))


def _provider_options(message: pb.ModelConfig, written: Written) -> dict[str, dict[str, str]]:
    """What is said about the providers, by provider and ONNX Runtime's names of its options.

    Source: README.md of triton-inference-server/onnxruntime_backend.
    """
    said = message.optimization.execution_accelerators
    options = {"cuda": _cuda_parameters(message, written)}
    for item in (*said.gpu_execution_accelerator, *said.cpu_execution_accelerator):
        if item.name == "tensorrt":
            options[item.name] = _tensorrt_options(item.parameters, written)
        elif item.name in ACCELERATORS:
            options[item.name] = {**options.get(item.name, {}), **item.parameters}
    return {name: values for name, values in options.items() if values}


def _cuda_parameters(message: pb.ModelConfig, written: Written) -> dict[str, str]:
    options: dict[str, str] = {}
    for name, values in _CUDA_PARAMETERS.items():
        if name in message.parameters:
            said = message.parameters[name].string_value
            if values and said not in map(str, range(len(values))):
                expected = f'expected a number from 0 to {len(values) - 1}, got "{said}"'
                raise written.error(name, expected)
            options[name] = values[int(said)] if values else said
    return options


def _tensorrt_options(parameters: Mapping[str, str], written: Written) -> dict[str, str]:
    options: dict[str, str] = {}
    for name, value in parameters.items():
        if name != "precision_mode":
            options[_TENSORRT_OPTIONS.get(name, name)] = value
        elif value in _PRECISIONS:
            options |= _PRECISIONS[value]
        else:
            expected = f'expected one of {", ".join(_PRECISIONS)}, got "{value}"'
            raise written.error("precision_mode", expected)
    return options


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
