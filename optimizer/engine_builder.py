"""Builds TensorRT engines: with TensorRT itself, or by letting ONNX Runtime's provider do it."""

import importlib
import logging
import shutil
from collections.abc import MutableSequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from optimizer.artifact import Artifact
from optimizer.engine_key import EngineKey
from optimizer.errors import PassError, Unavailable
from optimizer.runner import Opener
from optimizer.tensorrt_options import ENGINES

logger = logging.getLogger(__name__)

ENGINE_FILE = "model.plan"
MODEL_FILE = "model.onnx"
_TIMING_FILE = "builder.timing"


@dataclass(frozen=True, slots=True)
class BuildOrder:
    """What is to be built, and where."""

    model: Path  # .onnx, its external data beside it
    key: EngineKey
    folder: Path  # empty; all that the engine consists of is written here
    timing: Path  # folder that keeps the times of kernels; of this GPU and TensorRT only


class EngineBuilder(Protocol):
    """Takes minutes and gigabytes: to be called in a child process."""

    def build(self, order: BuildOrder) -> Artifact:
        """Builds; returns the artifact in the order's folder, without its id.

        Raises:
            Unavailable: TensorRT is not on this machine.
            PassError: TensorRT cannot do it, with its own words.
        """
        ...


class ProviderBuilder:
    """Opens the model with ONNX Runtime's TensorRT provider, which leaves its engines in a folder.

    What TensorRT has no kernels for runs on CUDA.
    """

    def __init__(self, opener: Opener) -> None:
        self._opener = opener

    def build(self, order: BuildOrder) -> Artifact:
        (order.folder / ENGINES).mkdir()
        built = _artifact(order, MODEL_FILE)
        alone = {name: value for name, value in built.options.items() if name != "baseline"}
        timed = replace(built, options={**alone, "timing": str(order.timing)})
        self._opener(timed, 1).close()
        if not list((order.folder / ENGINES).glob("*.engine")):
            raise PassError("TensorRT took over no part of the model: it left no engine")
        return built


class TensorRtBuilder:
    """Uses TensorRT's own Python package, versions 10 and 11."""

    def build(self, order: BuildOrder) -> Artifact:
        try:
            tensorrt: Any = importlib.import_module("tensorrt")
        except ImportError as error:
            raise Unavailable(f"TensorRT does not start ({error}): install inflight[gpu]") from None
        (order.folder / ENGINE_FILE).write_bytes(_Build(tensorrt, order).run())
        return _artifact(order, ENGINE_FILE)


class _Build:
    """One build. Everything of TensorRT lives as long as this: its objects own each other."""

    def __init__(self, trt: Any, order: BuildOrder) -> None:
        self._trt, self._order = trt, order
        self._said: list[str] = []
        self._log = logger_of(trt, self._said)
        self._builder = trt.Builder(self._log)
        self._network = self._builder.create_network(self._network_flags())
        self._parser = trt.OnnxParser(self._network, self._log)
        self._config = self._builder.create_builder_config()

    def run(self) -> bytes:
        self._parse()
        self._configure()
        self._add_profile()
        cache = self._timing_cache()
        plan = self._builder.build_serialized_network(self._network, self._config)
        if plan is None:
            raise PassError(f"TensorRT builds no engine: {self._last_words()}")
        self._keep_times(cache)
        return bytes(plan)

    def _network_flags(self) -> int:
        """Models with quantization nodes say all types themselves."""
        if self._order.key.precision != "int8":
            return 0
        return 1 << int(self._trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)

    def _parse(self) -> None:
        if not self._parser.parse_from_file(str(self._order.model)):
            errors = [str(self._parser.get_error(i)) for i in range(self._parser.num_errors)]
            raise PassError(f"TensorRT cannot read the model: {'; '.join(errors)}")

    def _configure(self) -> None:
        pool = self._trt.MemoryPoolType.WORKSPACE
        key = self._order.key
        if key.workspace_bytes:
            self._config.set_memory_pool_limit(pool, key.workspace_bytes)
        if key.level is not None:
            self._config.builder_optimization_level = key.level
        self._set_precision(key.precision)

    def _set_precision(self, precision: str) -> None:
        if precision in ("fp16", "bf16"):
            flag = getattr(self._trt.BuilderFlag, precision.upper(), None)
            if flag is None:
                raise Unavailable(
                    f"TensorRT {self._trt.__version__} takes its precision from the model: "
                    f"convert it to {precision} first"
                )
            self._config.set_flag(flag)

    def _add_profile(self) -> None:
        """Raises PassError where the model's own shapes contradict it."""
        profile = self._builder.create_optimization_profile()
        inputs = [self._network.get_input(i) for i in range(self._network.num_inputs)]
        values = [tensor.name for tensor in inputs if tensor.is_shape_tensor]
        if values:
            raise PassError(f"input '{values[0]}' decides on shapes by its values")
        for name, shapes in self._order.key.profile.dynamic.items():
            try:
                profile.set_shape(name, shapes.min, shapes.opt, shapes.max)
            except ValueError as error:
                raise PassError(f"input '{name}': TensorRT refuses {shapes}: {error}") from None
        if self._config.add_optimization_profile(profile) < 0:
            raise PassError(f"TensorRT refuses {self._order.key.profile}: {self._last_words()}")

    def _timing_cache(self) -> Any:
        """The cache that the build uses and adds to; an unsuitable one is begun anew."""
        path = self._order.timing / _TIMING_FILE
        known = path.read_bytes() if path.is_file() else b""
        cache = self._config.create_timing_cache(known)
        if cache is None or not self._config.set_timing_cache(cache, False):
            logger.warning("'%s' is not of this GPU and TensorRT, and begun anew", path)
            cache = self._config.create_timing_cache(b"")
            self._config.set_timing_cache(cache, False)
        return cache

    def _keep_times(self, cache: Any) -> None:
        self._order.timing.mkdir(parents=True, exist_ok=True)
        new = self._order.timing / f"{self._order.folder.name}.new"
        new.write_bytes(bytes(cache.serialize()))
        new.replace(self._order.timing / _TIMING_FILE)

    def _last_words(self) -> str:
        return self._said[-1] if self._said else "it does not say why"


def logger_of(trt: Any, said: MutableSequence[str]) -> Any:
    """A logger for TensorRT: its errors are kept, they and its warnings go to the log."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.ERROR:
                said.append(message)
            if severity <= trt.ILogger.WARNING:
                logger.warning("TensorRT: %s", message)

    return Log()


def _artifact(order: BuildOrder, file: str) -> Artifact:
    """With what loading it takes, what it is built for, and the model for all other shapes."""
    _copy_model(order.model, order.folder / MODEL_FILE)
    key = order.key
    options = {
        "precision": key.precision,
        "profile": key.profile.to_json(),
        "workspace_bytes": key.workspace_bytes,
        "level": key.level,
        "built_for": key.parts(),
        "baseline": MODEL_FILE,
    }
    techniques = ("tensorrt",) if key.precision == "fp32" else ("tensorrt", key.precision)
    return Artifact(order.folder, file, "tensorrt", "tensorrt", techniques, options)


def _copy_model(model: Path, target: Path) -> None:
    shutil.copyfile(model, target)
    # External data are found by the names in the model.
    for pattern in (f"{model.name}.data", f"{model.name}_data"):
        for file in model.parent.glob(pattern):
            shutil.copyfile(file, target.parent / file.name)
