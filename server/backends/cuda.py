"""The few calls of the CUDA runtime that running an engine takes, each with its errors raised."""

import importlib
from typing import Any

from optimizer.errors import Unavailable
from protos.tensors import Array
from server.errors import BackendError


class Cuda:
    """One GPU, through NVIDIA's own bindings.

    Source: https://nvidia.github.io/cuda-python/cuda-bindings/latest/module/runtime.html

    Raises:
        Unavailable: the bindings are not installed.
    """

    def __init__(self, gpu: int) -> None:
        try:
            self._runtime: Any = importlib.import_module("cuda.bindings.runtime")
        except ImportError as error:
            why = f"CUDA's Python bindings do not start ({error}): install inflight[gpu]"
            raise Unavailable(why) from None
        self._gpu = gpu
        kinds = self._runtime.cudaMemcpyKind
        self._to_device = kinds.cudaMemcpyHostToDevice
        self._to_host = kinds.cudaMemcpyDeviceToHost

    def enter(self) -> None:
        """Makes this GPU the one of the calling thread. To be called before all others."""
        self._call(self._runtime.cudaSetDevice(self._gpu))

    def make_stream(self) -> int:
        flags = self._runtime.cudaStreamNonBlocking
        return int(self._call(self._runtime.cudaStreamCreateWithFlags(flags)))

    def allocate(self, n_bytes: int) -> int:
        return int(self._call(self._runtime.cudaMalloc(n_bytes)))

    def free(self, address: int) -> None:
        self._call(self._runtime.cudaFree(address))

    def copy_in(self, address: int, array: Array, stream: int) -> None:
        """`array` is contiguous; it may change as soon as this returns."""
        source = array.ctypes.data
        self._call(
            self._runtime.cudaMemcpyAsync(address, source, array.nbytes, self._to_device, stream)
        )

    def copy_out(self, array: Array, address: int, stream: int) -> None:
        """`array` is contiguous; it holds the values when the stream is through."""
        target = array.ctypes.data
        self._call(
            self._runtime.cudaMemcpyAsync(target, address, array.nbytes, self._to_host, stream)
        )

    def wait(self, stream: int) -> None:
        """Until all is done that the stream was given; gives up the GIL."""
        self._call(self._runtime.cudaStreamSynchronize(stream))

    def drop_stream(self, stream: int) -> None:
        self._call(self._runtime.cudaStreamDestroy(stream))

    def _call(self, answer: tuple[Any, ...]) -> Any:
        """The value of an answer, which begins with an error code."""
        code, *values = answer
        if code != self._runtime.cudaError_t.cudaSuccess:
            text = self._runtime.cudaGetErrorString(code)[1]
            raise BackendError(f"CUDA: {text.decode() if text else code}")
        return values[0] if values else None
