"""A stand-in for the part of the package `tensorrt` that runs engines: y = 2 x, in fake memory.

Names, arguments and answers are those of TensorRT's Python bindings (read from their docstrings).
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from types import ModuleType
from typing import Any

import numpy as np

from tests.unit.server.backends.fake_cuda import FakeCuda


class ILogger:
    ERROR, WARNING, INFO = 1, 2, 3

    def log(self, severity: int, message: str) -> None:
        raise NotImplementedError


class DataType(IntEnum):
    FLOAT = 0
    FP8 = 6


class TensorIOMode(Enum):
    NONE, INPUT, OUTPUT = 0, 1, 2


class TensorLocation(Enum):
    DEVICE, HOST = 0, 1


@dataclass
class Plan:
    """What the engine of a test is like, and what happened to it."""

    width: int = 3  # of x FLOAT[-1, width] and y
    most_rows: int = 8
    y_type: DataType = DataType.FLOAT
    x_location: TensorLocation = TensorLocation.DEVICE
    y_rows: int | None = None  # what is said of y; None: as many as x has
    unknown: tuple[str, ...] = ()
    refuses: str = ""  # why it is not taken
    fails: str = ""  # why its runs fail
    makes_contexts: bool = True
    contexts: int = 0
    gate: threading.Barrier | None = None  # runs wait here for each other
    busy: set[int] = field(default_factory=set)


class _Context:
    def __init__(self, trt: "FakeTensorRt") -> None:
        self._trt, self._plan = trt, trt.plan
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert name == "x"
        if shape[1:] != (self._plan.width,) or shape[0] > self._plan.most_rows:
            self._trt.say(f"static dimension mismatch of {name}")
            return False
        self._shapes[name] = shape
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        assert memory
        self._addresses[name] = memory
        return True

    def infer_shapes(self) -> Sequence[str]:
        return self._plan.unknown

    def get_tensor_shape(self, name: str) -> Sequence[int]:
        rows, width = self._shapes["x"]
        said = self._plan.y_rows
        return (rows if said is None or name == "x" else said, width)

    def execute_async_v3(self, stream_handle: int) -> bool:
        cuda = self._trt.cuda
        assert stream_handle in cuda.streams
        assert stream_handle not in self._plan.busy
        self._plan.busy.add(stream_handle)
        if self._plan.gate is not None:
            self._plan.gate.wait(30)
        if self._plan.fails:
            self._trt.say(self._plan.fails)
        else:
            size = 4 * int(np.prod(self._shapes["x"]))
            x = np.frombuffer(cuda.memory[self._addresses["x"]][:size], np.float32)
            cuda.memory[self._addresses["y"]][:size] = (2 * x).tobytes()
        self._plan.busy.remove(stream_handle)
        return not self._plan.fails


class _Engine:
    num_io_tensors = 2

    def __init__(self, trt: "FakeTensorRt") -> None:
        self._trt, self._plan = trt, trt.plan

    def get_tensor_name(self, index: int) -> str:
        return "xy"[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name == "x" else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType.FLOAT if name == "x" else self._plan.y_type

    def get_tensor_location(self, name: str) -> TensorLocation:
        return self._plan.x_location if name == "x" else TensorLocation.DEVICE

    def get_tensor_shape(self, name: str) -> Sequence[int]:
        return (-1, self._plan.width)

    def create_execution_context(self) -> _Context | None:
        if not self._plan.makes_contexts:
            self._trt.say("requested memory of 1 TB")
            return None
        self._plan.contexts += 1
        return _Context(self._trt)


class _Runtime:
    def __init__(self, trt: "FakeTensorRt", logger: Any) -> None:
        self._trt = trt
        trt.logger = logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> _Engine | None:
        assert serialized_engine == b"plan"
        if self._trt.plan.refuses:
            self._trt.say(self._trt.plan.refuses)
            return None
        return _Engine(self._trt)


class FakeTensorRt(ModuleType):
    ILogger = ILogger
    DataType = DataType
    TensorIOMode = TensorIOMode
    TensorLocation = TensorLocation

    def __init__(self, plan: Plan, cuda: FakeCuda) -> None:
        super().__init__("tensorrt")
        self.plan, self.cuda = plan, cuda
        self.logger: Any = None
        self.has_plugins = False

    def init_libnvinfer_plugins(self, logger: Any, namespace: str) -> bool:
        self.has_plugins = True
        return True

    def Runtime(self, logger: Any) -> _Runtime:
        assert self.has_plugins
        return _Runtime(self, logger)

    def say(self, message: str) -> None:
        self.logger.log(ILogger.ERROR, message)
