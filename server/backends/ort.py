"""ONNX models on ONNX Runtime: on the CPU, and with CUDA or TensorRT where they start."""

import ctypes
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from protos.signature import Signature, TensorSpec
from protos.tensors import DTYPES, Array
from server.backends import providers
from server.backends.model_file import ModelFile
from server.backends.ort_errors import load_reason, plain_text, start_reason, unsupported_type
from server.backends.providers import CPU, NAMES, ON_GPU, Choice, NotStarted
from server.errors import BackendError, InvalidRequest, LoadFailed
from server.model_config import ExecutionConfig

logger = logging.getLogger(__name__)

DATATYPES: dict[str, str] = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(bfloat16)": "BF16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
_GRAPH_LEVELS = {
    "disable": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
_FATAL = 4  # log level: what fails is raised as well, and logged here once
_BFLOAT16 = 16  # TensorProto.BFLOAT16


class OrtBackend:
    """One session. `run` may be called from several threads at once."""

    platform = "onnxruntime_onnx"
    is_in_process = True
    instances: int | None = None

    def __init__(
        self,
        session: Any,
        file: ModelFile,
        signature: Signature,
        *,
        device: str,
        threads: int,
        fallback: str = "",
    ) -> None:
        self.signature = signature
        self.artifact_id = file.artifact_id
        self.fallback = fallback
        self.devices: tuple[str, ...] = (device,)
        self.threads = threads
        self.memory_bytes = file.size_bytes
        self._session = session
        # The binding's own call: the Python wrapper around it, which checks the names of the
        # inputs again, costs as much as a tiny model's run.
        self._execute = session._sess.run if hasattr(session, "_sess") else session.run
        self._texts = frozenset(s.name for s in signature.inputs if s.datatype == "BYTES")
        self._text_outputs = frozenset(s.name for s in signature.outputs if s.datatype == "BYTES")
        tensors = signature.inputs + signature.outputs
        self._has_bfloat16 = any(spec.datatype == "BF16" for spec in tensors)

    def run(self, inputs: Mapping[str, Array], output_names: Sequence[str]) -> list[Array]:
        """Runs one batch; gives up the GIL. The outputs share no memory with the inputs.

        Raises:
            InvalidRequest: a BYTES element is not UTF-8.
            BackendError: ONNX Runtime failed; short text for the client, the
                whole of it is the cause.
        """
        if self._texts:
            inputs = _with_text(inputs, self._texts)
        try:
            outputs = self._run(inputs, output_names)
        except Exception as error:
            raise BackendError(f"onnxruntime: {plain_text(error)}") from error
        if not self._text_outputs:
            return outputs
        pairs = zip(output_names, outputs, strict=True)
        return [_to_bytes(array) if name in self._text_outputs else array for name, array in pairs]

    def interrupt(self, thread: int) -> None:
        """A run of a session cannot be ended."""

    def close(self) -> None:
        """Frees the session; takes milliseconds per 100 MB."""
        self._session = self._execute = None

    def _run(self, feeds: Mapping[str, Array], output_names: Sequence[str]) -> list[Array]:
        if not self._has_bfloat16:
            outputs: list[Array] = self._execute(output_names, feeds, None)
            return outputs
        values = {name: _to_ort_value(array) for name, array in feeds.items()}
        return [_from_ort_value(v) for v in self._session.run_with_ort_values(output_names, values)]


def open_onnx(
    file: ModelFile,
    execution: ExecutionConfig,
    threads: int,
    runtime: Any = onnxruntime,
    root: Path = Path("/"),
    *,
    spins: bool = False,
) -> OrtBackend:
    """Opens a session of `threads` compute threads, the caller of `run` included.

    `spins`: they wait for each other by spinning while a run lasts, and sleep when it ends.

    `runtime` is the onnxruntime module or something that looks like it, `root` the file system
    that devices are looked for in. Where the device that comes first does not start and the CPU
    is allowed, the model runs there, and the backend's `fallback` says why.

    Raises:
        LoadFailed: the model cannot be opened, a tensor of it cannot be carried, or none of the
            providers asked for starts; says what to do.
    """
    names = providers.wanted(execution, runtime, root)
    choices, missing = providers.choices(names, execution, runtime)
    on_gpu = [name for name, _ in choices if name in ON_GPU]
    if on_gpu:
        providers.load_libraries(runtime, on_gpu)
    make_options = partial(_session_options, execution, threads, runtime, spins=spins)
    session, failed = _start(file, make_options, choices, runtime)
    missing |= failed
    for name in names:
        if name not in missing and NAMES[name] not in session.get_providers():
            why = providers.missing_library(name, runtime)
            missing[name] = why or f"{NAMES[name]} did not start"
    used, fallback = _used(names, missing)
    if fallback:
        logger.warning("'%s' %s", file.path, fallback)
    device = f"cuda:{providers.gpu(execution)}" if used in ON_GPU else "cpu"
    signature = read_signature(session)
    return OrtBackend(session, file, signature, device=device, threads=threads, fallback=fallback)


def stays_on_cpu(execution: ExecutionConfig) -> bool:
    """Whether a model of this configuration is tried on nothing but the CPU here."""
    return providers.wanted(execution, onnxruntime) == (CPU,)


def _start(
    file: ModelFile,
    make_options: Callable[[], Any],
    choices: Sequence[Choice],
    runtime: Any,
) -> tuple[Any, dict[str, str]]:
    """A session with the first choice that starts; and by provider why those before did not.

    The CPU, which is the last choice, tells apart what is wrong with a device from what is wrong
    with the model.

    Raises:
        LoadFailed: the model cannot be opened at all.
    """
    failed: dict[str, str] = {}
    for first, (name, _) in enumerate(choices):
        try:
            session = runtime.InferenceSession(
                str(file.path),
                sess_options=make_options(),  # a provider that failed may have added to its own
                providers=[(NAMES[name], options) for name, options in choices[first:]],
                enable_fallback=0,
            )
        except Exception as error:
            logger.info("'%s': ONNX Runtime: %s", file.path, error)
            failed[name] = providers.missing_library(name, runtime) or start_reason(error)
            cause = error
        else:
            return session, failed
    reason = load_reason(file.path, cause, f"ONNX Runtime {runtime.__version__}")
    models = failed.pop(CPU)
    devices = {name: text for name, text in failed.items() if text != models}
    raise LoadFailed(f"{reason} ({_listed(devices)})" if devices else reason) from cause


def _used(names: Sequence[str], missing: Mapping[str, str]) -> tuple[str, str]:
    """The provider that a session runs on; and why not one before it, or "".

    Raises:
        LoadFailed: it would be one that nobody asked for.
    """
    used = next((name for name in names if name not in missing), None)
    if used is None:
        asked = ", ".join(f'"{name}"' for name in names)
        raise NotStarted(
            f"none of [execution] providers = [{asked}] starts: {_listed(missing)}. Add"
            ' "cpu" to run there instead'
        )
    before = {name: missing[name] for name in names[: names.index(used)]}
    return used, f"runs on {used}, since {_listed(before)}" if before else ""


def _listed(reasons: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in reasons.items())


def read_signature(session: Any) -> Signature:
    """A session's inputs and outputs; initializers that are inputs too are optional inputs.

    Raises:
        LoadFailed: one is no tensor, or its type cannot be carried; says how to export it.
    """
    inputs = [_spec("input", node, False) for node in session.get_inputs()]
    inputs += [_spec("input", node, True) for node in session.get_overridable_initializers()]
    outputs = [_spec("output", node, False) for node in session.get_outputs()]
    return Signature(tuple(inputs), tuple(outputs))


def _spec(kind: str, node: Any, optional: bool) -> TensorSpec:
    datatype = DATATYPES.get(node.type)
    if datatype is None:
        raise LoadFailed(unsupported_type(kind, node.name, node.type))
    shape = tuple(
        size if isinstance(size, int | str) and size != "" else f"{node.name}[{axis}]"
        for axis, size in enumerate(node.shape)
    )
    return TensorSpec(node.name, datatype, shape, optional)


def _session_options(execution: ExecutionConfig, threads: int, runtime: Any, *, spins: bool) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    level = _GRAPH_LEVELS[execution.graph_level]
    options.graph_optimization_level = getattr(runtime.GraphOptimizationLevel, level)
    options.log_severity_level = _FATAL
    # Pools that spin win 25 % for one lone client of a millisecond model, and lose 60 % as soon
    # as two of them run at once; the server holds many models. So only a session that never runs
    # beside another spins, and not beyond its runs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spins else "0")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


def _with_text(inputs: Mapping[str, Array], names: Iterable[str]) -> dict[str, Array]:
    feeds = dict(inputs)
    for name in names:
        if name in feeds:
            feeds[name] = _to_text(name, feeds[name])
    return feeds


def _to_text(name: str, array: Array) -> Array:
    """BYTES as ONNX Runtime wants them: `str` objects (of `bytes` it would store the repr)."""
    texts = np.empty(array.size, dtype=object)
    for index, element in enumerate(array.ravel()):
        try:
            texts[index] = element.decode() if isinstance(element, bytes) else str(element)
        except UnicodeDecodeError as error:
            raise InvalidRequest(
                f"input '{name}': element {index} is not UTF-8 text ({error.reason} at byte"
                f" {error.start}), and strings of an ONNX model are"
            ) from None
    return texts.reshape(array.shape)


def _to_bytes(array: Array) -> Array:
    encoded = np.empty(array.size, dtype=object)
    encoded[:] = [text.encode() for text in array.ravel()]
    return encoded.reshape(array.shape)


def _to_ort_value(array: Array) -> Any:
    if array.dtype != DTYPES["BF16"]:
        return onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))
    bits = np.ascontiguousarray(array).view(np.uint16)
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, _BFLOAT16)


def _from_ort_value(value: Any) -> Array:
    """The value as an array of its own; numpy has no BF16, so that is read from memory."""
    if value.data_type() != "tensor(bfloat16)":
        array: Array = value.numpy()
        return array
    raw = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(bytearray(raw), DTYPES["BF16"]).reshape(value.shape())
