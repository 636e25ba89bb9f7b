"""Reads Triton's model configuration, as config.pbtxt and as the JSON of its load call.

The file is parsed into Triton's own message, so its syntax and defaults are Triton's; this file
says what each field becomes here. A field this server cannot honour is an error where leaving it
out would give other answers (`_REFUSED`), and a warning in the model's state where it is merely
tuning (`_WITHOUT_EFFECT`).

Where Triton and we part on purpose: a model with `max_batch_size` above 0 and no
`dynamic_batching` is batched here when the probe at load finds that safe (Triton runs its
requests one by one), and a request with more rows than `max_batch_size` is split, not refused.
"""

import json
import re
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

from google.protobuf import json_format, text_format
from google.protobuf.message import Message

from protos.inference import model_config_pb2 as pb
from protos.pool import POOL
from server import pbtxt_execution, pbtxt_fields
from server.model_config import ConfigError, ModelConfig
from server.pbtxt_execution import ACCELERATORS
from server.pbtxt_fields import Written

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
_REQUEST = "config of the load request"
_IGNORED_PARAMETERS = ("inter_op_thread_count", "execution_mode")


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
    return _model(message, model, Written(str(path), text, path.parent))


def read_json(text: str, model: str, folder: Path) -> ModelConfig:
    """The configuration in the `config` parameter of a load call; other files are in `folder`.

    Raises:
        ConfigError: as `read_pbtxt`.
    """
    message = pb.ModelConfig()
    try:
        if not isinstance(json.loads(text), dict):
            raise ConfigError(f"{_REQUEST}: expected a JSON object, got {text[:40]}")
        json_format.Parse(text, message, descriptor_pool=POOL)
    except (ValueError, json_format.ParseError) as error:
        problem = str(error).splitlines()[0]
        raise ConfigError(f"{_REQUEST}: {problem}{_near_field(problem)}") from None
    return _model(message, model, Written(_REQUEST, text, folder, is_from_client=True))


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


def _model(message: pb.ModelConfig, model: str, written: Written) -> ModelConfig:
    _check_identity(message, model, written)
    for field, reason in _REFUSED.items():
        if _is_set(message, field):
            raise written.error(field, f"cannot be honoured: {reason}")
    limit = pbtxt_fields.max_batch_size(message, written)
    return ModelConfig(
        name=model,
        batching=pbtxt_fields.batching(message, limit, written),
        execution=pbtxt_execution.execution(message, written),
        version_policy=pbtxt_fields.version_policy(message.version_policy, written),
        max_batch_size=limit,
        inputs=tuple(pbtxt_fields.input_tensor(tensor, written) for tensor in message.input),
        outputs=tuple(pbtxt_fields.output_tensor(tensor, written) for tensor in message.output),
        platform=message.platform,
        backend=message.backend,
        default_model_filename=message.default_model_filename,
        parameters={key: value.string_value for key, value in message.parameters.items()},
        metric_tags=dict(message.metric_tags),
        warm_up_samples=tuple(
            pbtxt_fields.warm_up_sample(sample, written) for sample in message.model_warmup
        ),
        response_cache=message.response_cache.enable,
        origin=written.origin,
        warnings=tuple(_warnings(message)),
    )


def _check_identity(message: pb.ModelConfig, model: str, written: Written) -> None:
    if message.name and message.name != model:
        problem = f'expected the name of the model\'s folder, "{model}", got "{message.name}"'
        raise written.error("name", problem)
    for field, expected in (("platform", "onnxruntime_onnx"), ("backend", "onnxruntime")):
        said = getattr(message, field)
        if said not in ("", expected):
            problem = f'expected "{expected}", got "{said}": convert the model to ONNX first'
            raise written.error(field, problem)


def _warnings(message: pb.ModelConfig) -> Iterator[str]:
    for field, reason in _WITHOUT_EFFECT.items():
        if _is_set(message, field):
            yield f"{field} has no effect: {reason}"
    for name in _IGNORED_PARAMETERS:
        if name in message.parameters:
            yield f'parameter "{name}" has no effect: the server plans threads itself'
    gpus = sorted({gpu for group in message.instance_group for gpu in group.gpus})
    if len(gpus) > 1:
        yield f"instance_group.gpus {gpus}: all instances run on GPU {gpus[0]}"
    said = message.optimization.execution_accelerators
    for accelerator in (*said.gpu_execution_accelerator, *said.cpu_execution_accelerator):
        if accelerator.name not in ACCELERATORS:
            known = ", ".join(ACCELERATORS)
            yield f'accelerator "{accelerator.name}" has no effect: expected one of {known}'
