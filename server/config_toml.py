"""The keys of model.toml, their ranges and what they become. Milliseconds become seconds here.

A wrong file fails its own model only: the caller catches `ConfigError` per model.
"""

from pathlib import Path
from typing import Any, cast, get_args

from optimizer.errors import GoalError
from optimizer.goal import Metric, check_techniques
from server.batch_policy import QueuePolicy
from server.model_config import (
    BatchingConfig,
    ConfigError,
    DataConfig,
    ExecutionConfig,
    ModelConfig,
    OptimizationConfig,
    Pad,
    VersionPolicy,
)
from server.toml_table import (
    TomlError,
    TomlFile,
    TomlTable,
    auto,
    boolean,
    integer,
    number,
    one_of,
    optional,
    text,
    texts,
)

PROVIDERS = ("cpu", "cuda", "tensorrt", "openvino")
METRICS = get_args(Metric)
SOURCES = ("file", "sql", "live")
TABLES = ("batching", "execution", "optimization", "data")
_ALL: tuple[str, ...] = ()

_milliseconds = number("a number of milliseconds >= 0", lambda value: value >= 0, per=1e3)
_milliseconds_above_0 = number("a number of milliseconds > 0", lambda value: value > 0, per=1e3)
_ratio = number("a ratio above 0 and up to 1", lambda value: 0 < value <= 1)


def read_toml(path: Path, model: str) -> ModelConfig:
    """The configuration in a model.toml; paths in it are relative to the file's folder.

    Raises:
        ConfigError: no TOML, an unknown key, a wrong type or range. Names file, line and key.
    """
    try:
        return _read(TomlFile(path), model)
    except TomlError as error:
        raise ConfigError(str(error)) from None


def _read(file: TomlFile, model: str) -> ModelConfig:
    top = file.top(TABLES)
    tables = {name: file.table(name) for name in TABLES}
    config = ModelConfig(
        name=model,
        version_policy=top.take("versions", _versions, VersionPolicy()),
        batching=_batching(tables["batching"]),
        execution=_execution(tables["execution"]),
        optimization=_optimization(tables["optimization"]),
        data=_data(tables["data"], file.path.parent),
        origin=str(file.path),
    )
    for table in (top, *tables.values()):
        table.finish()
    return config


def _batching(table: TomlTable) -> BatchingConfig:
    levels = table.take("priority_levels", integer(1, 1000), 1)
    return BatchingConfig(
        enabled=table.take("enabled", optional(boolean), None),
        window_s=table.take("window_ms", auto(_milliseconds), None),
        max_batch=table.take("max_batch", auto(integer(1)), None),
        slo_p99_s=table.take("slo_p99_ms", optional(_milliseconds_above_0), None),
        pad=cast(Pad, table.take("pad", one_of("none", "right"), "none")),
        pad_mask=table.take("pad_mask", optional(text), None),
        priority_levels=levels,
        # Without a word, the middle: there is room above and below it.
        default_priority=table.take("default_priority", integer(1, levels), levels // 2 + 1),
        queue=QueuePolicy(
            queue_limit=table.take("queue_limit", integer(1), QueuePolicy().queue_limit),
            timeout_s=table.take("queue_timeout_ms", optional(_milliseconds_above_0), None),
        ),
        preserve_ordering=table.take("preserve_ordering", boolean, False),
    )


def _execution(table: TomlTable) -> ExecutionConfig:
    return ExecutionConfig(
        instances=table.take("instances", optional(integer(1)), None),
        threads=table.take("threads", optional(integer(1)), None),
        providers=table.take("providers", auto(texts(*PROVIDERS)), None),
        warm_up=table.take("warm_up", boolean, True),
    )


def _optimization(table: TomlTable) -> OptimizationConfig:
    techniques = table.take("techniques", texts(may_be_empty=True), _ALL)
    try:
        check_techniques(techniques)
    except GoalError as error:
        raise table.error("techniques", str(error)) from None
    return OptimizationConfig(
        enabled=table.take("enabled", boolean, True),
        techniques=techniques,
        accuracy_threshold=table.take("accuracy_threshold", optional(_ratio), None),
        metric=cast(Metric, table.take("metric", one_of(*METRICS), "auto")),
        lossless_only=table.take("lossless_only", boolean, False),
    )


def _data(table: TomlTable, folder: Path) -> DataConfig:
    path = table.take("path", optional(text), None)
    query = table.take("query", optional(text), None)
    given = "file" if path is not None else "sql" if query is not None else "live"
    source = table.take("source", one_of(*SOURCES), given)
    if source == "file" and path is None:
        raise table.error("source", '"file" needs the key path')
    if source == "sql" and query is None:
        raise table.error("source", '"sql" needs the key query')
    return DataConfig(
        source=cast(Any, source),
        path=None if path is None else folder / path,
        query=query,
        labels=table.take("labels", optional(text), None),
    )


def _versions(value: Any) -> VersionPolicy:
    """`versions = "all" | 2 | [1, 3]`: all, so many of the latest, or these."""
    if value == "all":
        return VersionPolicy(latest=None)
    positive = integer(1)
    try:
        if isinstance(value, list) and value:
            return VersionPolicy(specific=tuple(positive(item) for item in value))
        return VersionPolicy(latest=positive(value))
    except ValueError:
        expected = '"all", a whole number >= 1 (so many of the latest) or a list of versions'
        raise ValueError(expected) from None
