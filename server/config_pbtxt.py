"""Reads Triton's model configuration, as config.pbtxt and as the JSON of its load call.

The file is parsed into Triton's own message, so its syntax and defaults are Triton's; this file
says what each field becomes here. A field this server cannot honour is an error where leaving it
out would give other answers (`_REFUSED`), and a warning in the model's state where it is merely
tuning (`_WITHOUT_EFFECT`).

Where Triton and we part on purpose: a model with `max_batch_size` above 0 and no
`dynamic_batching` is batched here when the probe at load finds that safe (Triton runs its
requests one by one), and a request with more rows than `max_batch_size` is split, not refused.
"""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import cast

from google.protobuf import json_format, text_format
from google.protobuf.message import Message

from protos.inference import model_config_pb2 as pb
from protos.pool import POOL
from server.batch_policy import QueuePolicy, TimeoutAction
from server.model_config import (
    BatchingConfig,
    ConfigError,
    ExecutionConfig,
    GraphLevel,
    ModelConfig,
    TensorConfig,
    VersionPolicy,
    WarmUpInput,
    WarmUpSample,
)

_REFUSED = {
    "sequence_batching": "sequences keep state between requests, which this server does not",
    "ensemble_scheduling": "ensembles are not served; serve their models and call them in turn",
    "batch_input": "the model expects inputs that the server would have to make",
    "batch_output": "the model's outputs would have to be scattered by the server",
    "model_transaction_policy.decoupled": "one request gets exactly one response here",
    "model_operations": "libraries of custom operators are not loaded",
    "model_repository_agents": "repository agents are not run, so the files may not be ready",
    "input.is_shape_tensor": "shape tensors belong to TensorRT engines",
    "output.is_shape_tensor": "shape tensors belong to TensorRT engines",
    "input.is_non_linear_format_io": "non-linear tensor formats belong to TensorRT engines",
    "output.is_non_linear_format_io": "non-linear tensor formats belong to TensorRT engines",
}
_WITHOUT_EFFECT = {
    "dynamic_batching.preferred_batch_size": "an idle instance takes the requests that are there",
    "response_cache.enable": "there is no response cache",
    "model_metrics": "histograms have this server's own buckets",
    "input.allow_ragged_batch": "requests of one shape are batched together",
    "instance_group.rate_limiter": "there is no rate limiter",
    "instance_group.profile": "profiles belong to TensorRT engines",
    "instance_group.passive": "every instance takes requests",
    "instance_group.host_policy": "there are no host policies",
    "instance_group.secondary_devices": "there are no secondary devices",
    "optimization.priority": "models have no priority among each other",
    "optimization.cuda": "CUDA graphs are not captured",
    "optimization.gather_kernel_buffer_threshold": "gather kernels belong to TensorRT engines",
    "optimization.eager_batching": "a batch is formed when an instance is free",
    "cc_model_filenames": "default_model_filename is used on every device",
    "runtime": "the backend is part of the server",
}
_IGNORED_PARAMETERS = ("inter_op_thread_count", "execution_mode")
_GRAPH_LEVELS: dict[int, GraphLevel] = {0: "all", -1: "basic", 1: "extended", 2: "disable"}
_ACCELERATORS = ("tensorrt", "cuda", "openvino")
_KINDS = pb.ModelInstanceGroup


def read_pbtxt(path: Path, model: str) -> ModelConfig:
    """The configuration in a config.pbtxt; label and warm-up files are looked for beside it.

    Raises:
        ConfigError: no such syntax, unknown field, or a value that cannot be honoured. Names
            file, line where known, and field.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    message = pb.ModelConfig()
    try:
        text_format.Parse(text, message, descriptor_pool=POOL)
    except text_format.ParseError as error:
        raise ConfigError(f"{path}{_syntax_error(error)}") from None
    return _Reader(str(path), text, path.parent).model(message, model)


def read_json(text: str, model: str, folder: Path) -> ModelConfig:
    """The configuration in the `config` parameter of a load call; other files are in `folder`.

    Raises:
        ConfigError: as `read_pbtxt`.
    """
    message = pb.ModelConfig()
    try:
        json_format.Parse(text, message, descriptor_pool=POOL)
    except json_format.ParseError as error:
        problem = str(error).splitlines()[0]
        raise ConfigError(f"config of the load request: {problem}{_near_field(problem)}") from None
    return _Reader("config of the load request", text, folder).model(message, model)


def _syntax_error(error: text_format.ParseError) -> str:
    problem = re.sub(r"^\d+:\d+ : ", "", str(error))
    return f", line {error.GetLine()}, column {error.GetColumn()}: {problem}{_near_field(problem)}"


def _near_field(problem: str) -> str:
    """A hint at the field that was meant, where protobuf complains of an unknown one."""
    found = re.search(r'type "([\w.]+)" has no field named "(\w+)"', problem)
    if not found:
        return ""
    fields = list(POOL.FindMessageTypeByName(found[1]).fields_by_name)
    near = get_close_matches(found[2], fields, n=1, cutoff=0.5)
    return f' Did you mean "{near[0]}"?' if near else f" Valid fields: {', '.join(fields)}."


def _is_set(message: Message, path: str) -> bool:
    """Whether a field, or any of its occurrences inside repeated messages, has a value."""
    name, _, rest = path.partition(".")
    for field, value in message.ListFields():
        if field.name != name:
            continue
        if not rest:
            return True
        inner = (value,) if isinstance(value, Message) else value
        return any(_is_set(item, rest) for item in inner)
    return False


class _Reader:
    """One configuration being mapped; knows where it came from, for the errors."""

    def __init__(self, origin: str, text: str, folder: Path) -> None:
        self._origin, self._folder = origin, folder
        self._lines = [line.partition("#")[0] for line in text.splitlines()]

    def model(self, message: pb.ModelConfig, model: str) -> ModelConfig:
        self._check_identity(message, model)
        for field, reason in _REFUSED.items():
            if _is_set(message, field):
                raise self._error(field, f"cannot be honoured: {reason}")
        batch_limit = self._max_batch_size(message)
        return ModelConfig(
            name=model,
            batching=self._batching(message, batch_limit),
            execution=self._execution(message),
            version_policy=self._version_policy(message.version_policy),
            max_batch_size=batch_limit,
            inputs=tuple(self._input(tensor) for tensor in message.input),
            outputs=tuple(self._output(tensor) for tensor in message.output),
            platform=message.platform,
            backend=message.backend,
            default_model_filename=message.default_model_filename,
            parameters={key: value.string_value for key, value in message.parameters.items()},
            metric_tags=dict(message.metric_tags),
            warm_up_samples=tuple(self._sample(sample) for sample in message.model_warmup),
            response_cache=message.response_cache.enable,
            origin=self._origin,
            warnings=tuple(self._warnings(message)),
        )

    def _error(self, field: str, problem: str) -> ConfigError:
        name = field.rpartition(".")[2]
        found = (n for n, line in enumerate(self._lines, 1) if re.search(rf"\b{name}\b", line))
        line = next(found, None)
        where = f", line {line}" if line else ""
        return ConfigError(f"{self._origin}{where}: {field}: {problem}")

    def _says(self, field: str) -> bool:
        return any(re.search(rf"\b{field}\b", line) for line in self._lines)

    def _check_identity(self, message: pb.ModelConfig, model: str) -> None:
        if message.name and message.name != model:
            problem = f'expected the name of the model\'s folder, "{model}", got "{message.name}"'
            raise self._error("name", problem)
        for field, expected in (("platform", "onnxruntime_onnx"), ("backend", "onnxruntime")):
            said = getattr(message, field)
            if said not in ("", expected):
                problem = f'expected "{expected}", got "{said}": convert the model to ONNX first'
                raise self._error(field, problem)

    def _max_batch_size(self, message: pb.ModelConfig) -> int | None:
        """The declared limit; None where nothing is declared about shapes at all.

        As in Triton, declared tensors without a `max_batch_size` mean 0: their dims are whole.
        """
        size = message.max_batch_size
        if size < 0:
            raise self._error("max_batch_size", f"expected a whole number >= 0, got {size}")
        declared = message.input or message.output or self._says("max_batch_size")
        if size == 0 and declared and message.HasField("dynamic_batching"):
            raise self._error("max_batch_size", "expected at least 1 with dynamic_batching, got 0")
        return size if size or declared else None

    def _batching(self, message: pb.ModelConfig, batch_limit: int | None) -> BatchingConfig:
        if not message.HasField("dynamic_batching"):
            return BatchingConfig(enabled=False if batch_limit == 0 else None)
        said = message.dynamic_batching
        levels = max(1, said.priority_levels)
        default = said.default_priority_level or levels // 2 + 1
        if default > levels:
            raise self._error("default_priority_level", f"expected 1 to {levels}, got {default}")
        for size in said.preferred_batch_size:
            if size < 1 or (batch_limit and size > batch_limit):
                expected = f"expected 1 to max_batch_size ({batch_limit or 'any'}), got {size}"
                raise self._error("preferred_batch_size", expected)
        return BatchingConfig(
            enabled=True,
            window_s=said.max_queue_delay_microseconds / 1e6,
            priority_levels=levels,
            default_priority=default,
            queue=_queue_policy(said.default_queue_policy)
            if said.HasField("default_queue_policy")
            else QueuePolicy(),
            priority_queues=self._priority_queues(said.priority_queue_policy, levels),
            preserve_ordering=said.preserve_ordering,
            preferred_batch_sizes=tuple(said.preferred_batch_size),
        )

    def _priority_queues(
        self, policies: Mapping[int, pb.ModelQueuePolicy], levels: int
    ) -> tuple[tuple[int, QueuePolicy], ...]:
        for level in policies:
            if not 1 <= level <= levels:
                expected = f"expected levels 1 to {levels} (priority_levels), got {level}"
                raise self._error("priority_queue_policy", expected)
        return tuple((level, _queue_policy(policies[level])) for level in sorted(policies))

    def _version_policy(self, policy: pb.ModelVersionPolicy) -> VersionPolicy:
        match policy.WhichOneof("policy_choice"):
            case "all":
                return VersionPolicy(latest=None)
            case "specific":
                versions = tuple(policy.specific.versions)
                if not versions or min(versions) < 1:
                    expected = f"expected positive version numbers, got {list(versions)}"
                    raise self._error("version_policy.specific.versions", expected)
                return VersionPolicy(specific=versions)
        return VersionPolicy(latest=policy.latest.num_versions or 1)

    def _execution(self, message: pb.ModelConfig) -> ExecutionConfig:
        groups, optimization = message.instance_group, message.optimization
        level = optimization.graph.level
        if level not in _GRAPH_LEVELS:
            expected = f"expected one of {sorted(_GRAPH_LEVELS)}, got {level}"
            raise self._error("optimization.graph.level", expected)
        accelerators = optimization.execution_accelerators
        return ExecutionConfig(
            instances=sum(_instances(group) for group in groups) if groups else None,
            threads=self._threads(message),
            providers=_providers(groups, accelerators),
            gpus=tuple(sorted({gpu for group in groups for gpu in group.gpus})),
            graph_level=_GRAPH_LEVELS[level],
            provider_options={
                accelerator.name: dict(accelerator.parameters)
                for accelerator in _accelerators(accelerators)
            },
        )

    def _threads(self, message: pb.ModelConfig) -> int | None:
        """ONNX Runtime's parameter `intra_op_thread_count`; 0 leaves it to the server."""
        if "intra_op_thread_count" not in message.parameters:
            return None
        said = message.parameters["intra_op_thread_count"].string_value
        if not said.isascii() or not said.isdigit():
            raise self._error("intra_op_thread_count", f'expected a whole number, got "{said}"')
        return int(said) or None

    def _input(self, tensor: pb.ModelInput) -> TensorConfig:
        self._check_tensor("input", tensor)
        return TensorConfig(
            name=tensor.name,
            datatype=_datatype(tensor.data_type),
            dims=tuple(tensor.dims),
            reshape=tuple(tensor.reshape.shape) if tensor.HasField("reshape") else None,
            optional=tensor.optional,
            allow_ragged_batch=tensor.allow_ragged_batch,
        )

    def _output(self, tensor: pb.ModelOutput) -> TensorConfig:
        self._check_tensor("output", tensor)
        return TensorConfig(
            name=tensor.name,
            datatype=_datatype(tensor.data_type),
            dims=tuple(tensor.dims),
            reshape=tuple(tensor.reshape.shape) if tensor.HasField("reshape") else None,
            labels=self._labels(tensor.label_filename),
            label_filename=tensor.label_filename,
        )

    def _check_tensor(self, field: str, tensor: pb.ModelInput | pb.ModelOutput) -> None:
        if not tensor.name:
            raise self._error(f"{field}.name", "expected a name, got none")
        for size in (*tensor.dims, *tensor.reshape.shape):
            if size < 1 and size != -1:
                expected = f'"{tensor.name}": expected sizes >= 1 or -1 (variable), got {size}'
                raise self._error(f"{field}.dims", expected)

    def _labels(self, filename: str) -> tuple[str, ...]:
        if not filename:
            return ()
        try:
            return tuple((self._folder / filename).read_text(encoding="utf-8").splitlines())
        except (OSError, UnicodeDecodeError) as error:
            raise self._error("label_filename", f"cannot be read: {error}") from None

    def _sample(self, sample: pb.ModelWarmup) -> WarmUpSample:
        return WarmUpSample(
            name=sample.name,
            batch_size=sample.batch_size,
            inputs={name: self._sample_input(value) for name, value in sample.inputs.items()},
            count=max(1, sample.count),
        )

    def _sample_input(self, value: pb.ModelWarmup.Input) -> WarmUpInput:
        datatype, dims = _datatype(value.data_type), tuple(value.dims)
        match value.WhichOneof("input_data_type"):
            case "input_data_file":
                file = self._folder / "warmup" / value.input_data_file
                if not file.is_file():
                    raise self._error("model_warmup.input_data_file", f"no such file: {file}")
                return WarmUpInput(datatype, dims, "file", file)
            case "random_data":
                return WarmUpInput(datatype, dims, "random")
        return WarmUpInput(datatype, dims, "zero")

    def _warnings(self, message: pb.ModelConfig) -> Iterable[str]:
        for field, reason in _WITHOUT_EFFECT.items():
            if _is_set(message, field):
                yield f"{field} has no effect: {reason}"
        for name in _IGNORED_PARAMETERS:
            if name in message.parameters:
                yield f'parameter "{name}" has no effect: the server plans threads itself'
        said = message.optimization.execution_accelerators
        for accelerator in (*said.gpu_execution_accelerator, *said.cpu_execution_accelerator):
            if accelerator.name not in _ACCELERATORS:
                known = ", ".join(_ACCELERATORS)
                yield f'accelerator "{accelerator.name}" has no effect: expected one of {known}'


def _datatype(value: int) -> str:
    name = pb.DataType.Name(cast(pb.DataType, value)).removeprefix("TYPE_")
    return {"STRING": "BYTES", "INVALID": ""}.get(name, name)


def _queue_policy(policy: pb.ModelQueuePolicy) -> QueuePolicy:
    delays = policy.timeout_action == pb.ModelQueuePolicy.DELAY
    return QueuePolicy(
        queue_limit=policy.max_queue_size,
        timeout_s=policy.default_timeout_microseconds / 1e6 or None,
        timeout_action=TimeoutAction.DELAY if delays else TimeoutAction.REJECT,
        allow_timeout_override=policy.allow_timeout_override,
    )


def _instances(group: pb.ModelInstanceGroup) -> int:
    return max(1, group.count) * max(1, len(group.gpus))


def _accelerators(
    said: pb.ModelOptimizationPolicy.ExecutionAccelerators,
) -> list[pb.ModelOptimizationPolicy.ExecutionAccelerators.Accelerator]:
    both = (*said.gpu_execution_accelerator, *said.cpu_execution_accelerator)
    return [accelerator for accelerator in both if accelerator.name in _ACCELERATORS]


def _providers(
    groups: Iterable[pb.ModelInstanceGroup],
    said: pb.ModelOptimizationPolicy.ExecutionAccelerators,
) -> tuple[str, ...]:
    """Execution providers in Triton's order: GPU accelerators, CUDA, CPU accelerators, CPU.

    Those of a GPU count where an instance group asks for one, or where none speaks against it
    and an accelerator for one is named.
    """
    kinds = {group.kind for group in groups}
    has_gpus = any(group.gpus for group in groups)
    wanted = _KINDS.KIND_GPU in kinds or has_gpus
    allowed = _KINDS.KIND_CPU not in kinds and bool(said.gpu_execution_accelerator)
    on_gpu = [item.name for item in said.gpu_execution_accelerator] + ["cuda"]
    on_cpu = [item.name for item in said.cpu_execution_accelerator] + ["cpu"]
    names = on_gpu + on_cpu if wanted or allowed else on_cpu
    known = [name for name in names if name in (*_ACCELERATORS, "cpu")]
    return tuple(dict.fromkeys(known))
