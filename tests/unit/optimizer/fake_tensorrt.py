"""A stand-in for the package `tensorrt`, of the calls that engines are built with.

Names, arguments and results are those of TensorRT's Python bindings (read from their docstrings);
an "engine" is the text of what was asked for.
"""

import json
from enum import IntEnum
from types import ModuleType
from typing import Any, ClassVar


class ILogger:
    ERROR, WARNING, INFO = 1, 2, 3

    def log(self, severity: int, message: str) -> None:
        raise NotImplementedError


class MemoryPoolType(IntEnum):
    WORKSPACE = 0


class NetworkDefinitionCreationFlag(IntEnum):
    STRONGLY_TYPED = 1


class BuilderFlag(IntEnum):
    FP16 = 0
    BF16 = 1


class _Tensor:
    def __init__(self, name: str, is_shape_tensor: bool) -> None:
        self.name, self.is_shape_tensor = name, is_shape_tensor


class _Network:
    def __init__(self, flags: int) -> None:
        self.flags = flags
        self.inputs = [_Tensor(name, kind == "shape") for name, kind in FakeTensorRt.inputs.items()]

    @property
    def num_inputs(self) -> int:
        return len(self.inputs)

    def get_input(self, index: int) -> _Tensor:
        return self.inputs[index]


class _Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, Any] = {}

    def set_shape(self, name: str, low: Any, best: Any, high: Any) -> None:
        if name not in FakeTensorRt.inputs:
            raise ValueError("no such input")
        self.shapes[name] = [low, best, high]


class _Cache:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> bytes:
        return self.content + b"+"


class _Config:
    def __init__(self) -> None:
        self.asked: dict[str, Any] = {"flags": []}
        self.builder_optimization_level = 3

    def set_memory_pool_limit(self, pool: MemoryPoolType, size: int) -> None:
        self.asked[pool.name] = size

    def set_flag(self, flag: BuilderFlag) -> None:
        self.asked["flags"].append(flag.name)

    def add_optimization_profile(self, profile: _Profile) -> int:
        self.asked["shapes"] = profile.shapes
        return -1 if FakeTensorRt.refuses_profile else 0

    def create_timing_cache(self, content: bytes) -> _Cache:
        return _Cache(content)

    def set_timing_cache(self, cache: _Cache, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self.asked["known times"] = cache.content.decode()
        return cache.content in (b"", b"+", b"++")


class _Builder:
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger

    def create_network(self, flags: int = 0) -> _Network:
        return _Network(flags)

    def create_builder_config(self) -> _Config:
        return _Config()

    def create_optimization_profile(self) -> _Profile:
        return _Profile()

    def build_serialized_network(self, network: _Network, config: _Config) -> bytes | None:
        FakeTensorRt.builds += 1
        self._logger.log(ILogger.WARNING, "only a warning")
        if FakeTensorRt.error:
            self._logger.log(ILogger.ERROR, FakeTensorRt.error)
            return None
        asked = {"network": network.flags, "level": config.builder_optimization_level}
        return json.dumps(config.asked | asked, sort_keys=True).encode()


class _Parser:
    def __init__(self, network: _Network, logger: ILogger) -> None:
        self.num_errors = 0

    def parse_from_file(self, path: str) -> bool:
        with open(path, "rb") as file:
            self.num_errors = int(file.read() == b"not a model")
        return not self.num_errors

    def get_error(self, index: int) -> str:
        return "unsupported operator: Foo"


class FakeTensorRt(ModuleType):
    __version__ = "10.13.3"
    ILogger = ILogger
    MemoryPoolType = MemoryPoolType
    NetworkDefinitionCreationFlag = NetworkDefinitionCreationFlag
    BuilderFlag: ClassVar[Any] = BuilderFlag
    Builder = _Builder
    OnnxParser = _Parser
    inputs: ClassVar[dict[str, str]] = {"x": "data"}
    refuses_profile: ClassVar[bool] = False
    error: ClassVar[str] = ""
    builds: ClassVar[int] = 0
