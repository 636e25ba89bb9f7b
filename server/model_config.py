"""What an operator may say about one model: frozen values, the same for every way of saying it.

`config_toml.py` reads them from model.toml, `config_pbtxt.py` from Triton's config.pbtxt and from
the JSON of its load call. Nothing here opens a file or knows a framework. A value of None means
"not said": the loader infers it from the model. Durations are float seconds, named `_s`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from optimizer.artifact import Artifact
from optimizer.goal import Metric
from server.batch_policy import QueuePolicy
from server.errors import Code, ServeError

Pad = Literal["none", "right"]
GraphLevel = Literal["disable", "basic", "extended", "all"]


class ConfigError(ServeError):
    """A model's configuration is wrong: the text names file, line where known, key and value."""

    code: ClassVar[Code] = Code.INVALID_ARGUMENT


@dataclass(frozen=True, slots=True)
class BatchingConfig:
    """How requests are gathered.

    `preferred_batch_sizes` are read and shown, and have no effect: the batcher takes what is
    there whenever an instance is free, so it never waits for a size to come about.
    """

    enabled: bool | None = None  # None: on when the model's shapes and the load-time probe allow
    window_s: float | None = None  # longest wait for companions; None ("auto"): 0
    max_batch: int | None = None  # rows; None ("auto"): where measured throughput stops growing
    slo_p99_s: float | None = None  # latency target
    pad: Pad = "none"  # "right": requests of different lengths are padded and share a batch
    pad_mask: str | None = None  # input that marks real elements; None: found by its name
    priority_levels: int = 1  # 1 is highest
    default_priority: int = 1  # of requests that name none
    queue: QueuePolicy = field(default_factory=QueuePolicy)
    priority_queues: tuple[tuple[int, QueuePolicy], ...] = ()  # level -> its own limits
    preserve_ordering: bool = False  # answers leave in the order the requests came
    preferred_batch_sizes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ExecutionConfig:
    """Where and with how much of the machine the model runs."""

    instances: int | None = None
    threads: int | None = None  # compute threads of one instance
    # In order of preference: "tensorrt", "cuda", "cpu". None ("auto"): CUDA where it is, else CPU.
    providers: tuple[str, ...] | None = None
    gpus: tuple[int, ...] = ()  # device numbers; empty: the first one
    warm_up: bool = True
    graph_level: GraphLevel = "all"  # the framework's own graph optimization
    provider_options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # by provider


@dataclass(frozen=True, slots=True)
class TensorConfig:
    """One input or output as config.pbtxt declares it."""

    name: str
    datatype: str  # Open Inference name, "FP32"; "" where the file does not say
    dims: tuple[int, ...]  # -1: variable; without the batch dimension if max_batch_size > 0
    reshape: tuple[int, ...] | None = None  # the shape the model itself wants
    optional: bool = False
    labels: tuple[str, ...] = ()  # class names, from label_filename
    label_filename: str = ""
    allow_ragged_batch: bool = False


@dataclass(frozen=True, slots=True)
class VersionPolicy:
    """Which of the versions present are served at once."""

    latest: int | None = 1  # so many of the highest; None: all
    specific: tuple[int, ...] = ()  # not empty: these and no others

    def select(self, versions: Iterable[int]) -> list[int]:
        """The versions to serve, ascending; specific ones that are missing are left out."""
        present = sorted(versions)
        if self.specific:
            return [version for version in present if version in self.specific]
        return present if self.latest is None else present[-self.latest :]


@dataclass(frozen=True, slots=True)
class WarmUpInput:
    """One input of a warm-up sample; exactly one source is set."""

    datatype: str
    dims: tuple[int, ...]  # without the batch dimension
    source: Literal["zero", "random", "file"]
    file: Path | None = None  # raw little-endian data, where source is "file"


@dataclass(frozen=True, slots=True)
class WarmUpSample:
    """A request to run before the version answers any."""

    name: str
    batch_size: int  # 0: the model has no batch dimension
    inputs: Mapping[str, WarmUpInput]
    count: int = 1


@dataclass(frozen=True, slots=True)
class OptimizationConfig:
    """What the optimizer may do to this model."""

    enabled: bool = True
    techniques: tuple[str, ...] = ()  # empty: all that apply
    accuracy_threshold: float | None = None  # ratio to the original; None: the server's
    metric: Metric = "auto"
    lossless_only: bool = False


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Where calibration and validation data come from."""

    source: Literal["file", "sql", "live"] = "live"
    path: Path | None = None
    query: str | None = None
    labels: str | None = None  # column or array that holds the right answers


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Everything said about one model. The default says nothing: all is inferred."""

    name: str
    batching: BatchingConfig = BatchingConfig()
    execution: ExecutionConfig = ExecutionConfig()
    version_policy: VersionPolicy = VersionPolicy()
    optimization: OptimizationConfig = OptimizationConfig()
    data: DataConfig = DataConfig()
    max_batch_size: int | None = None  # config.pbtxt only; 0: no batch dimension; None: not said
    inputs: tuple[TensorConfig, ...] = ()  # empty: inferred
    outputs: tuple[TensorConfig, ...] = ()
    platform: str = ""  # as config.pbtxt says, "onnxruntime_onnx"
    backend: str = ""  # as config.pbtxt says, "onnxruntime"
    default_model_filename: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    metric_tags: Mapping[str, str] = field(default_factory=dict)
    warm_up_samples: tuple[WarmUpSample, ...] = ()
    response_cache: bool = False  # asked for; this server has none
    origin: str = ""  # the file (or "load request") this came from; "" when inferred
    warnings: tuple[str, ...] = ()  # what was asked for and has no effect here

    def model_shape(self, tensor: TensorConfig) -> tuple[int, ...]:
        """The shape the model itself is given: `reshape` applied, batch dimension included."""
        inner = tensor.dims if tensor.reshape is None else tensor.reshape
        return (-1, *inner) if self.max_batch_size else inner


@dataclass(frozen=True, slots=True)
class Optimized:
    """An artifact that serves in place of a version's own file, and where it comes from."""

    artifact: Artifact
    optimization_id: str  # of the job that made it


@dataclass(frozen=True, slots=True)
class VersionSource:
    """One version to open: what a loader is given.

    Contents sent with a load call have been written to a folder of their own, so there is
    always a path, and files beside it (external data) are found in either case.
    """

    model: str
    version: int
    path: Path  # the model file
    config: ModelConfig
    optimized: Optimized | None = None  # to be opened instead of the file
