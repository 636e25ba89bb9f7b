"""What a request to optimize asks for, checked, and as the optimizer's own values. Blocks on disk.

Every way of asking (gRPC, REST, the server itself at load) ends in an `OptimizationRequest`. What
it leaves open is taken from the model's configuration, then from the server's settings.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from optimizer.data import DataSpec
from optimizer.errors import GoalError
from optimizer.goal import TECHNIQUES, Goal, Metric, Objective, check_techniques
from server.errors import InvalidRequest
from server.model_config import DataConfig, ModelConfig, OptimizationConfig
from server.settings import ServeSettings

Method = Literal["", "dynamic", "static"]
Precision = Literal["", "int8", "int4"]
Source = Literal["file", "sql", "live"]

_LONGEST_PATH = 1024  # characters
_QUANTIZING: Mapping[Method, Mapping[Precision, tuple[str, ...]]] = {
    "dynamic": {"int8": ("int8_dynamic", "weight_only_int8"), "int4": ("weight_only_int4",)},
    "static": {"int8": ("int8_static", "int8_smoothquant", "mixed_precision"), "int4": ()},
}
"""What `quantization` stands for, by its method and precision. Only weights become 4 bits wide."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Where real rows of input come from, as a client names it."""

    source: Source
    path: str = ""
    query: str = ""
    database: str = ""
    labels: str = ""

    def __post_init__(self) -> None:
        """Raises InvalidRequest unless it is complete and says one thing only."""
        where = "validation_dataset"
        check_choice(f"{where}.source", self.source, get_args(Source))
        if self.source == "file" and not self.path:
            raise InvalidRequest(f'{where}.path: source "file" needs the path of a file')
        if self.source == "sql" and not self.query:
            raise InvalidRequest(f'{where}.query: source "sql" needs a SELECT')
        for name, of_source in (("path", "file"), ("query", "sql"), ("database", "sql")):
            if getattr(self, name) and self.source != of_source:
                raise InvalidRequest(f'{where}.{name}: belongs to source "{of_source}"')


@dataclass(frozen=True, slots=True)
class OptimizationRequest:
    """What is asked for; empty or None: as configured."""

    model: str
    version: int | None = None
    techniques: tuple[str, ...] = ()
    method: Method = ""
    precision: Precision = ""
    dataset: Dataset | None = None
    accuracy_threshold: float | None = None
    metric: Metric | Literal[""] = ""
    lossless_only: bool | None = None
    objective: Objective | Literal[""] = ""
    is_quick: bool = False
    time_limit_s: float | None = None
    promotes: bool = True  # the winner is to serve

    def __post_init__(self) -> None:
        """Raises InvalidRequest that names the field which is wrong."""
        check_choice("quantization.method", self.method, get_args(Method))
        check_choice("quantization.precision", self.precision, get_args(Precision))
        check_choice("metric", self.metric, ("", *get_args(Metric)))
        check_choice("objective", self.objective, ("", "latency", "throughput"))
        try:
            check_techniques(self.techniques)
        except GoalError as error:
            raise InvalidRequest(f"techniques: {error}") from None
        threshold = self.accuracy_threshold
        if threshold is not None and not 0 <= threshold <= 1:
            raise InvalidRequest(
                f"accuracy_threshold: expected a ratio from 0 to 1, got {threshold:g}"
            )
        if self.time_limit_s is not None and not self.time_limit_s > 0:
            raise InvalidRequest(f"time limit: expected more than 0, got {self.time_limit_s:g} s")
        self.named_techniques()

    def named_techniques(self, configured: Sequence[str] = ()) -> tuple[str, ...]:
        """The techniques that may be used, without the word that stands for several.

        Empty: all there are.

        Raises:
            InvalidRequest: quantization is narrowed to nothing, or narrowed and not asked for.
        """
        wanted = tuple(self.techniques or configured)
        if not (self.method or self.precision):
            return wanted
        narrowed = quantizing(self.method, self.precision)
        every = quantizing("", "")
        wanted = wanted or (*(name for name in TECHNIQUES if name not in every), "quantization")
        if "quantization" not in wanted:
            raise InvalidRequest('quantization: needs "quantization" among the techniques')
        return (*(name for name in wanted if name != "quantization"), *narrowed)


def quantizing(method: Method, precision: Precision) -> tuple[str, ...]:
    """The techniques that quantize, of a method and precision; empty: of any.

    Raises:
        InvalidRequest: there is none.
    """
    methods: Iterable[Method] = (method,) if method else ("dynamic", "static")
    precisions: Iterable[Precision] = (precision,) if precision else ("int8", "int4")
    found = tuple(name for m in methods for p in precisions for name in _QUANTIZING[m][p])
    if not found:
        raise InvalidRequest(
            f'quantization.precision: "{precision}" needs the method "dynamic", got "{method}"'
        )
    return found


def check_choice(field_name: str, value: str, choices: Sequence[str]) -> None:
    """Raises InvalidRequest for a text that is none of the choices."""
    if value not in choices:
        expected = ", ".join(f'"{choice}"' for choice in choices if choice)
        raise InvalidRequest(f'{field_name}: expected one of {expected}, got "{value}"')


@dataclass(frozen=True, slots=True)
class Machine:
    """What a job is granted of this machine."""

    threads: int
    memory_mb: int = 0  # of one child process; 0: no limit


def goal(
    request: OptimizationRequest,
    config: OptimizationConfig,
    settings: ServeSettings,
    machine: Machine,
    *,
    is_batched: bool = True,
) -> Goal:
    """What the optimizer is asked for.

    Raises:
        InvalidRequest: it contradicts itself.
    """
    lossless = config.lossless_only if request.lossless_only is None else request.lossless_only
    thresholds = (request.accuracy_threshold, config.accuracy_threshold)
    default = settings.optimization_accuracy_threshold
    most_s = settings.optimization_max_time_minutes * 60
    wanted = Goal(
        techniques=request.named_techniques(config.techniques),
        accuracy_threshold=next((t for t in thresholds if t is not None), default),
        metric=request.metric or config.metric,
        lossless_only=lossless,
        objective=request.objective or "latency",
        time_limit_s=min(most_s, request.time_limit_s or most_s),
        is_quick=request.is_quick,
        opset=settings.onnx_opset_version,
        threads=machine.threads,
        memory_limit_mb=machine.memory_mb,
        workspace_gb=settings.tensorrt_workspace_size_gb,
    )
    return wanted if is_batched else replace(wanted, max_batch=1, batch_sizes=(1,))


def configured_print(config: ModelConfig, settings: ServeSettings) -> str:
    """Names what a model's configuration asks of a job; of a file of rows only size and time."""
    asked, data = config.optimization, config.data
    threshold = asked.accuracy_threshold
    values = [
        sorted(asked.techniques),
        settings.optimization_accuracy_threshold if threshold is None else threshold,
        asked.metric,
        asked.lossless_only,
        data.source,
        data.query,
        data.labels,
        _state(data.path) if data.source == "file" and data.path else None,
    ]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def _state(path: Path) -> list[object]:
    try:
        found = path.stat()
    except OSError:  # a job says why
        return [str(path.absolute())]
    return [str(path.absolute()), found.st_size, found.st_mtime_ns]


@dataclass(frozen=True, slots=True)
class DataPlaces:
    """Where rows may be read from on behalf of a client."""

    folder: Path | None  # the model's own; None: the model is a bare file
    allowed: Sequence[Path] = ()  # folders; files below them may be named
    databases: Mapping[str, str] = field(default_factory=dict)


def data_spec(
    request: OptimizationRequest, config: DataConfig, places: DataPlaces
) -> DataSpec | None:
    """Where the rows of a job come from; None: there are none. Looks at the disk.

    What a client names is confined to `places`; what the model's configuration names is the
    operator's word, and is not.

    Raises:
        InvalidRequest: a file or connection that a client may not name, or that is not there.
    """
    dataset = request.dataset
    if dataset is None:
        return _configured(config)
    if dataset.source == "live":  # none are kept yet
        return None
    labels = dataset.labels or None
    if dataset.source == "file":
        return DataSpec("file", path=_allowed_file(dataset.path, places), labels=labels)
    database = dataset.database or "default"
    if database not in places.databases:
        known = ", ".join(sorted(places.databases)) or "none"
        raise InvalidRequest(
            f"validation_dataset.database: there is no connection '{database}', the operator named"
            f" {known} ([databases] in the server's configuration file)"
        )
    return DataSpec("sql", query=dataset.query, database=database, labels=labels)


def _configured(config: DataConfig) -> DataSpec | None:
    if config.source == "live":
        return None
    return DataSpec(config.source, path=config.path, query=config.query, labels=config.labels)


def _allowed_file(text: str, places: DataPlaces) -> Path:
    """A file that a client may name, links followed; of others not even existence is told."""
    field_name = "validation_dataset.path"
    if len(text) > _LONGEST_PATH:
        raise InvalidRequest(
            f"{field_name}: expected at most {_LONGEST_PATH} characters, got {len(text)}"
        )
    path = Path(text)
    if not path.is_absolute():
        if places.folder is None:
            raise InvalidRequest(
                f"{field_name}: '{text}' is relative to the model's folder, and this model has none"
            )
        path = places.folder / path
    try:
        real = path.resolve()
    except (OSError, RuntimeError, ValueError):  # a link to itself; a zero byte
        raise InvalidRequest(f"{field_name}: '{text}' is no file") from None
    if not any(real.is_relative_to(folder.resolve()) for folder in places.allowed):
        raise InvalidRequest(
            f"{field_name}: '{text}' is in no folder whose files a request may name: those are the"
            " repositories and the folders of --data-folders"
        )
    if not _is_file(real):
        raise InvalidRequest(f"{field_name}: '{text}': no such file")
    return real


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a part of it is too long
        return False
