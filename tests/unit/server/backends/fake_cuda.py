"""A stand-in for `cuda.bindings.runtime`: memory by address, and every call noted.

Arguments and answers are those of NVIDIA's bindings: each answer begins with an error code. What is
wrong with a call of CUDA is an AssertionError here.
"""

import ctypes
import threading
from enum import IntEnum
from types import ModuleType
from typing import Any


class Code(IntEnum):
    cudaSuccess = 0  # noqa: N815
    cudaErrorMemoryAllocation = 2  # noqa: N815


class Kind(IntEnum):
    cudaMemcpyHostToDevice = 1  # noqa: N815
    cudaMemcpyDeviceToHost = 2  # noqa: N815


class Stream:
    def __init__(self, number: int) -> None:
        self._number = number

    def __int__(self) -> int:
        return self._number


class FakeCuda(ModuleType):
    """One GPU with so many bytes."""

    cudaError_t = Code  # noqa: N815
    cudaMemcpyKind = Kind  # noqa: N815
    cudaStreamNonBlocking = 1  # noqa: N815

    def __init__(self, size: int = 1 << 20) -> None:
        super().__init__("cuda.bindings.runtime")
        self.size = size
        self.memory: dict[int, bytearray] = {}
        self.streams: set[int] = set()
        self.gpus: set[int] = set()  # that were entered
        self._entered = threading.local()
        self._lock = threading.Lock()
        self._next = 0x1000

    def cudaSetDevice(self, gpu: int) -> tuple[Any, ...]:
        self._entered.gpu = gpu
        self.gpus.add(gpu)
        return (Code.cudaSuccess,)

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        assert flags == self.cudaStreamNonBlocking
        number = self._address()
        self.streams.add(number)
        return Code.cudaSuccess, Stream(number)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Any, ...]:
        assert stream in self.streams
        return (Code.cudaSuccess,)

    def cudaStreamDestroy(self, stream: int) -> tuple[Any, ...]:
        self.streams.remove(stream)
        return (Code.cudaSuccess,)

    def cudaMalloc(self, size: int) -> tuple[Any, ...]:
        assert size > 0
        if sum(map(len, self.memory.values())) + size > self.size:
            return Code.cudaErrorMemoryAllocation, None
        address = self._address()
        self.memory[address] = bytearray(size)
        return Code.cudaSuccess, address

    def cudaFree(self, address: int) -> tuple[Any, ...]:
        del self.memory[address]
        return (Code.cudaSuccess,)

    def cudaMemcpyAsync(
        self, target: int, source: int, size: int, kind: Kind, stream: int
    ) -> tuple[Any, ...]:
        assert stream in self.streams
        if kind is Kind.cudaMemcpyHostToDevice:
            assert size <= len(self.memory[target])
            self.memory[target][:size] = ctypes.string_at(source, size)
        else:
            content = bytes(self.memory[source][:size])
            assert len(content) == size
            ctypes.memmove(target, content, size)
        return (Code.cudaSuccess,)

    def cudaGetErrorString(self, code: Code) -> tuple[Any, ...]:
        return Code.cudaSuccess, b"out of memory" if code == 2 else b"no error"

    def _address(self) -> int:
        assert hasattr(self._entered, "gpu"), "no GPU was chosen on this thread"
        with self._lock:
            self._next += 0x100
            return self._next
