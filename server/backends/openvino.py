"""Models on OpenVINO's CPU plugin: its own IR (.xml) and ONNX. The package is optional."""

import os
import threading
from collections.abc import Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from optimizer.artifact import Artifact
from optimizer.errors import Unavailable
from protos.signature import Signature, TensorSpec
from protos.tensors import DTYPES, Array
from server.errors import BackendError, LoadFailed

DATATYPES: dict[str, str] = {
    "boolean": "BOOL",
    "u8": "UINT8",
    "u16": "UINT16",
    "u32": "UINT32",
    "u64": "UINT64",
    "i8": "INT8",
    "i16": "INT16",
    "i32": "INT32",
    "i64": "INT64",
    "f16": "FP16",
    "bf16": "BF16",
    "f32": "FP32",
    "f64": "FP64",
}
# Its own default on a CPU that has it is bf16, which is not what the model says.
_PRECISION = "f32"
_MAX_LENGTH = 300


class OpenvinoBackend:
    """One compiled model twice. `run` may be called from several threads at once.

    A model compiled for one stream computes on the thread that calls, and runs that overlap wait
    for each other; one for several streams runs them side by side, but hands each to a thread of
    its own, which costs some 25 us. So a lone run goes to the first, others to the second.
    """

    devices: tuple[str, ...] = ("cpu",)
    fallback = ""
    is_in_process = True
    instances: int | None = None

    def __init__(self, alone: Any, others: Any, artifact: Artifact, threads: int) -> None:
        """`others`: the same for several streams; None where the machine has no threads for it."""
        self.platform = "openvino_ir" if artifact.path.suffix == ".xml" else "openvino_onnx"
        self.artifact_id = artifact.artifact_id
        self.threads = threads
        self.memory_bytes = artifact.size_bytes * (1 if others is None else 2)
        wanted = artifact.signature
        inputs = _ports("input", alone.inputs, wanted.inputs if wanted else None)
        outputs = _ports("output", alone.outputs, wanted.outputs if wanted else None)
        self.signature = Signature(
            tuple(spec for spec, _ in inputs), tuple(spec for spec, _ in outputs)
        )
        self._inputs = {spec.name: index for spec, index in inputs}
        self._outputs = {spec.name: index for spec, index in outputs}
        self._bfloat16 = frozenset(spec.name for spec, _ in outputs if spec.datatype == "BF16")
        self._alone = alone.create_infer_request()
        self._turn = threading.Lock()  # to use `_alone`
        self._others = others
        self._idle: SimpleQueue[Any] = SimpleQueue()  # requests of `_others`

    def run(self, inputs: Mapping[str, Array], output_names: Sequence[str]) -> list[Array]:
        """Runs one batch; gives up the GIL. The outputs share no memory with anything.

        Raises:
            BackendError: OpenVINO failed; short text for the client, the whole of it is the cause.
        """
        if not self._turn.acquire(blocking=self._others is None):
            return self._run_beside(inputs, output_names)
        try:
            return self._infer(self._alone, inputs, output_names)
        finally:
            self._turn.release()

    def interrupt(self, thread: int) -> None:
        """A run cannot be ended."""

    def close(self) -> None:
        """Frees the compiled models."""
        self._alone = self._others = None
        self._idle = SimpleQueue()

    def _run_beside(self, inputs: Mapping[str, Array], output_names: Sequence[str]) -> list[Array]:
        try:
            request = self._idle.get_nowait()
        except Empty:
            request = self._others.create_infer_request()
        try:
            return self._infer(request, inputs, output_names)
        finally:
            self._idle.put(request)

    def _infer(
        self, request: Any, inputs: Mapping[str, Array], output_names: Sequence[str]
    ) -> list[Array]:
        try:
            for name, array in inputs.items():
                request.set_input_tensor(self._inputs[name], _tensor(array))
            request.infer()
        except Exception as error:
            raise BackendError(f"openvino: {_plain(error)}") from error
        return [self._output(request, name) for name in output_names]

    def _output(self, request: Any, name: str) -> Array:
        data: Array = request.get_output_tensor(self._outputs[name]).data
        if name in self._bfloat16:  # numpy has none: it comes as the same bits of a float16
            data = data.view(DTYPES["BF16"])
        return data.copy()


def open_openvino(artifact: Artifact, threads: int) -> OpenvinoBackend:
    """Compiles the model for the CPU, for runs of so many threads.

    Raises:
        Unavailable: OpenVINO is not installed, or does not take such tensors.
        LoadFailed: the model cannot be read or compiled, or has not the artifact's tensors.
    """
    try:
        import openvino  # noqa: PLC0415
    except ImportError as error:
        why = f"OpenVINO is not installed ({error}): install inflight[openvino]"
        raise Unavailable(why) from None
    properties = {
        "INFERENCE_PRECISION_HINT": artifact.options.get("precision", _PRECISION),
        # The server has other models, and instances come and go: no core belongs to a thread.
        "ENABLE_CPU_PINNING": False,
    }
    streams = len(os.sched_getaffinity(0)) // threads

    def compiled(streams: int) -> Any:
        size = {"INFERENCE_NUM_THREADS": threads * streams, "NUM_STREAMS": streams}
        return core.compile_model(model, "CPU", {**properties, **size})

    try:
        core = openvino.Core()
        model = core.read_model(artifact.path)
        alone, others = compiled(1), compiled(streams) if streams > 1 else None
    except Exception as error:
        raise LoadFailed(f"'{artifact.path.name}': OpenVINO: {_plain(error)}") from error
    return OpenvinoBackend(alone, others, artifact, threads)


def _ports(
    kind: str, ports: Sequence[Any], wanted: Sequence[TensorSpec] | None
) -> list[tuple[TensorSpec, int]]:
    """The tensors in the order that clients know, and their places in the compiled model."""
    if wanted is None:
        return [(_spec(kind, port), index) for index, port in enumerate(ports)]
    found: list[tuple[TensorSpec, int]] = []
    for spec in wanted:
        index = next((i for i, port in enumerate(ports) if spec.name in port.get_names()), None)
        if index is None:
            names = [sorted(port.get_names()) for port in ports]
            raise LoadFailed(f"{kind} '{spec.name}': OpenVINO's model has {names}")
        datatype = _datatype(kind, spec.name, ports[index])
        if datatype != spec.datatype:
            raise LoadFailed(
                f"{kind} '{spec.name}': expected {spec.datatype}, OpenVINO's model has {datatype}"
            )
        found.append((spec, index))
    return found


def _spec(kind: str, port: Any) -> TensorSpec:
    names = sorted(port.get_names())
    if not names:
        raise LoadFailed(f"an {kind} of OpenVINO's model has no name: export the model again")
    name = names[0]
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic:
        return TensorSpec(name, _datatype(kind, name, port), ())
    sizes = (
        f"{name}[{axis}]" if size.is_dynamic else size.get_length()
        for axis, size in enumerate(shape)
    )
    return TensorSpec(name, _datatype(kind, name, port), tuple(sizes))


def _datatype(kind: str, name: str, port: Any) -> str:
    type_name = port.get_element_type().get_type_name()
    if type_name not in DATATYPES:
        raise Unavailable(f"{kind} '{name}' is {type_name}: such tensors do not run on OpenVINO")
    return DATATYPES[type_name]


def _tensor(array: Array) -> Any:
    """Shares the array's memory where OpenVINO can: it takes no memory that is read only."""
    import openvino  # noqa: PLC0415

    if array.dtype == DTYPES["BF16"]:
        tensor = openvino.Tensor(openvino.Type.bf16, openvino.Shape(array.shape))
        tensor.data[...] = np.ascontiguousarray(array).view(tensor.data.dtype)
        return tensor
    is_sharable = array.flags.writeable and array.flags.c_contiguous
    return openvino.Tensor(array, shared_memory=is_sharable)


def _plain(error: Exception) -> str:
    """OpenVINO's texts name source files first, then what is wrong."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith("Exception from ")]
    text = " ".join(said) or type(error).__name__
    return text if len(text) <= _MAX_LENGTH else text[: _MAX_LENGTH - 1] + "…"
