"""TensorRT's own engines, run by TensorRT itself: where ONNX Runtime's provider does not start."""

import importlib
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from optimizer.artifact import Artifact
from optimizer.engine_builder import logger_of
from optimizer.errors import Unavailable
from protos.signature import Signature, TensorSpec
from protos.tensors import DTYPES, Array
from server.backends.cuda import Cuda
from server.errors import BackendError, LoadFailed

_DATATYPES = {
    "FLOAT": "FP32",
    "HALF": "FP16",
    "BF16": "BF16",
    "INT8": "INT8",
    "UINT8": "UINT8",
    "INT32": "INT32",
    "INT64": "INT64",
    "BOOL": "BOOL",
}
_WORDS_KEPT = 8  # errors of TensorRT


class TensorRtBackend:
    """One engine. `run` may be called from several threads at once.

    Runs that are under way at the same time have an execution context each, which is made when it
    is needed first: as many as the version has instances.
    """

    platform = "tensorrt_plan"
    fallback = ""
    threads = 1
    is_in_process = True
    instances: int | None = None

    def __init__(self, engine: "_Engine", artifact: Artifact, gpu: int) -> None:
        self.signature = engine.signature
        self.artifact_id = artifact.artifact_id
        self.devices: tuple[str, ...] = (f"cuda:{gpu}",)
        self.memory_bytes = artifact.size_bytes
        self._engine = engine
        self._lock = threading.Lock()
        self._idle = [engine.make_lane()]

    def run(self, inputs: Mapping[str, Array], output_names: Sequence[str]) -> list[Array]:
        """Runs one batch; gives up the GIL.

        Raises:
            BackendError: TensorRT or CUDA failed, in their own words.
        """
        self._engine.cuda.enter()
        lane = self._take()
        try:
            return lane.run(inputs, output_names)
        finally:
            with self._lock:
                self._idle.append(lane)

    def interrupt(self, thread: int) -> None:
        """A run on a GPU cannot be ended."""

    def close(self) -> None:
        self._engine.cuda.enter()
        while self._idle:
            self._idle.pop().close()
        self._engine.close()

    def _take(self) -> "_Lane":
        with self._lock:
            return self._idle.pop() if self._idle else self._engine.make_lane()


def open_engine(artifact: Artifact, gpu: int = 0) -> TensorRtBackend:
    """Opens an engine that `TensorRtBuilder` wrote.

    Raises:
        Unavailable: TensorRT, or CUDA's Python bindings, are not installed.
        LoadFailed: TensorRT does not take it, or one of its tensors cannot be carried.
    """
    try:
        tensorrt: Any = importlib.import_module("tensorrt")
    except ImportError as error:
        raise Unavailable(f"TensorRT does not start ({error}): install inflight[gpu]") from None
    cuda = Cuda(gpu)
    try:
        cuda.enter()
        return TensorRtBackend(_Engine(tensorrt, cuda, artifact), artifact, gpu)
    except BackendError as error:
        raise LoadFailed(f"'{artifact.path}': {error}") from error


class _Engine:
    """What all lanes share. TensorRT's objects own each other, so they are kept together."""

    def __init__(self, trt: Any, cuda: Cuda, artifact: Artifact) -> None:
        self.cuda = cuda
        self._said: deque[str] = deque(maxlen=_WORDS_KEPT)
        self._log = logger_of(trt, self._said)
        trt.init_libnvinfer_plugins(self._log, "")
        self._runtime = trt.Runtime(self._log)
        self._engine = self._runtime.deserialize_cuda_engine(artifact.path.read_bytes())
        if self._engine is None:
            raise self.failed("it does not take the engine")
        self.signature = _signature(trt, self._engine)

    def make_lane(self) -> "_Lane":
        """Raises BackendError where the GPU's memory does not suffice."""
        context = self._engine.create_execution_context()
        if context is None:
            raise self.failed("it makes no execution context")
        return _Lane(self, context)

    def failed(self, what: str) -> BackendError:
        return BackendError(f"TensorRT: {what}: {self._said[-1] if self._said else 'no reason'}")

    def close(self) -> None:
        self._engine = self._runtime = None


class _Lane:
    """An execution context with a stream and memory of its own: one run at a time."""

    def __init__(self, engine: _Engine, context: Any) -> None:
        self._engine, self._context, self._cuda = engine, context, engine.cuda
        self._stream = self._cuda.make_stream()
        self._memory: dict[str, tuple[int, int]] = {}  # address and size, by tensor

    def run(self, inputs: Mapping[str, Array], output_names: Sequence[str]) -> list[Array]:
        try:
            return self._run(inputs, output_names)
        except BackendError:
            # A smaller batch, which is tried next, is not to fail for want of this memory.
            with suppress(BackendError):
                self._free()
            raise

    def close(self) -> None:
        self._context = None
        self._free()
        self._cuda.drop_stream(self._stream)

    def _run(self, inputs: Mapping[str, Array], output_names: Sequence[str]) -> list[Array]:
        for name, array in inputs.items():
            self._feed(name, np.asarray(array, order="C"))
        outputs = self._outputs()
        if not self._context.execute_async_v3(self._stream):
            raise self._engine.failed("the run fails")
        for name in output_names:
            self._cuda.copy_out(outputs[name], self._memory[name][0], self._stream)
        self._cuda.wait(self._stream)
        return [outputs[name] for name in output_names]

    def _feed(self, name: str, array: Array) -> None:
        if not self._context.set_input_shape(name, array.shape):
            raise self._engine.failed(f"input '{name}' cannot have shape {list(array.shape)}")
        self._place(name, array.nbytes)
        self._cuda.copy_in(self._memory[name][0], array, self._stream)

    def _outputs(self) -> dict[str, Array]:
        """Arrays for all outputs, which have to have memory on the GPU, wanted or not."""
        missing = self._context.infer_shapes()
        if missing:
            raise self._engine.failed(f"nothing is known of {', '.join(missing)}")
        outputs = {}
        for spec in self._engine.signature.outputs:
            shape = tuple(self._context.get_tensor_shape(spec.name))
            if min(shape, default=0) < 0:
                raise self._engine.failed(f"the size of output '{spec.name}' depends on values")
            outputs[spec.name] = np.empty(shape, DTYPES[spec.datatype])
            self._place(spec.name, outputs[spec.name].nbytes)
        return outputs

    def _place(self, name: str, n_bytes: int) -> None:
        """Sees to it that a tensor has at least so much memory."""
        address, size = self._memory.get(name, (0, 0))
        if n_bytes > size or not address:
            if address:
                self._cuda.free(self._memory.pop(name)[0])
            size = max(n_bytes, 1)
            address = self._cuda.allocate(size)
            self._memory[name] = address, size
            self._context.set_tensor_address(name, address)

    def _free(self) -> None:
        while self._memory:
            _, (address, _) = self._memory.popitem()
            self._cuda.free(address)


def _signature(trt: Any, engine: Any) -> Signature:
    """Raises LoadFailed for what cannot be carried, or has no memory of a known size."""
    inputs: list[TensorSpec] = []
    outputs: list[TensorSpec] = []
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        (inputs if is_input else outputs).append(_spec(trt, engine, name))
    return Signature(tuple(inputs), tuple(outputs))


def _spec(trt: Any, engine: Any, name: str) -> TensorSpec:
    kind = engine.get_tensor_dtype(name).name
    if kind not in _DATATYPES:
        known = ", ".join(_DATATYPES)
        raise LoadFailed(
            f"tensor '{name}' of the engine is of type {kind}, expected one of {known}"
        )
    if engine.get_tensor_location(name) != trt.TensorLocation.DEVICE:
        raise LoadFailed(f"tensor '{name}' of the engine is a shape, not data")
    sizes = enumerate(engine.get_tensor_shape(name))
    shape = tuple(size if size >= 0 else f"{name}[{axis}]" for axis, size in sizes)
    return TensorSpec(name, _DATATYPES[kind], shape)
