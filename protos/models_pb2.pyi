from typing import Any as _Any
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATE_UNSPECIFIED: _ClassVar[State]
    STATE_LOADING: _ClassVar[State]
    STATE_READY: _ClassVar[State]
    STATE_UNLOADING: _ClassVar[State]
    STATE_UNAVAILABLE: _ClassVar[State]
STATE_UNSPECIFIED: State
STATE_LOADING: State
STATE_READY: State
STATE_UNLOADING: State
STATE_UNAVAILABLE: State

class ListModelsRequest(_message.Message):
    __slots__ = ("window_s",)
    WINDOW_S_FIELD_NUMBER: _ClassVar[int]
    window_s: int
    def __init__(self, window_s: _Optional[int] = ...) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ModelSummary]
    def __init__(self, models: _Optional[_Iterable[_Union[ModelSummary, _Mapping[str, _Any]]]] = ...) -> None: ...

class ModelSummary(_message.Message):
    __slots__ = ("model", "version", "state", "reason", "batching", "batching_reason", "max_batch", "total", "window_s", "artifact_id", "techniques")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    BATCHING_FIELD_NUMBER: _ClassVar[int]
    BATCHING_REASON_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    WINDOW_S_FIELD_NUMBER: _ClassVar[int]
    ARTIFACT_ID_FIELD_NUMBER: _ClassVar[int]
    TECHNIQUES_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    state: State
    reason: str
    batching: bool
    batching_reason: str
    max_batch: int
    total: StageLatency
    window_s: int
    artifact_id: str
    techniques: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., state: _Optional[_Union[State, str]] = ..., reason: _Optional[str] = ..., batching: bool = ..., batching_reason: _Optional[str] = ..., max_batch: _Optional[int] = ..., total: _Optional[_Union[StageLatency, _Mapping[str, _Any]]] = ..., window_s: _Optional[int] = ..., artifact_id: _Optional[str] = ..., techniques: _Optional[_Iterable[str]] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("model", "version", "window_s")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    WINDOW_S_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    window_s: int
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., window_s: _Optional[int] = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("model", "versions")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    model: str
    versions: _containers.RepeatedCompositeFieldContainer[ModelVersion]
    def __init__(self, model: _Optional[str] = ..., versions: _Optional[_Iterable[_Union[ModelVersion, _Mapping[str, _Any]]]] = ...) -> None: ...

class ModelVersion(_message.Message):
    __slots__ = ("version", "state", "reason", "platform", "artifact_id", "memory_bytes", "inputs", "outputs", "batching", "curve", "max_batch_reason", "execution", "load_ms", "warm_up_ms", "latency", "warnings", "config_origin", "techniques", "optimization_id")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PLATFORM_FIELD_NUMBER: _ClassVar[int]
    ARTIFACT_ID_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    BATCHING_FIELD_NUMBER: _ClassVar[int]
    CURVE_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_REASON_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_FIELD_NUMBER: _ClassVar[int]
    LOAD_MS_FIELD_NUMBER: _ClassVar[int]
    WARM_UP_MS_FIELD_NUMBER: _ClassVar[int]
    LATENCY_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    CONFIG_ORIGIN_FIELD_NUMBER: _ClassVar[int]
    TECHNIQUES_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZATION_ID_FIELD_NUMBER: _ClassVar[int]
    version: int
    state: State
    reason: str
    platform: str
    artifact_id: str
    memory_bytes: int
    inputs: _containers.RepeatedCompositeFieldContainer[TensorInfo]
    outputs: _containers.RepeatedCompositeFieldContainer[TensorInfo]
    batching: Batching
    curve: _containers.RepeatedCompositeFieldContainer[CurvePoint]
    max_batch_reason: str
    execution: Execution
    load_ms: float
    warm_up_ms: float
    latency: ModelLatency
    warnings: _containers.RepeatedScalarFieldContainer[str]
    config_origin: str
    techniques: _containers.RepeatedScalarFieldContainer[str]
    optimization_id: str
    def __init__(self, version: _Optional[int] = ..., state: _Optional[_Union[State, str]] = ..., reason: _Optional[str] = ..., platform: _Optional[str] = ..., artifact_id: _Optional[str] = ..., memory_bytes: _Optional[int] = ..., inputs: _Optional[_Iterable[_Union[TensorInfo, _Mapping[str, _Any]]]] = ..., outputs: _Optional[_Iterable[_Union[TensorInfo, _Mapping[str, _Any]]]] = ..., batching: _Optional[_Union[Batching, _Mapping[str, _Any]]] = ..., curve: _Optional[_Iterable[_Union[CurvePoint, _Mapping[str, _Any]]]] = ..., max_batch_reason: _Optional[str] = ..., execution: _Optional[_Union[Execution, _Mapping[str, _Any]]] = ..., load_ms: _Optional[float] = ..., warm_up_ms: _Optional[float] = ..., latency: _Optional[_Union[ModelLatency, _Mapping[str, _Any]]] = ..., warnings: _Optional[_Iterable[str]] = ..., config_origin: _Optional[str] = ..., techniques: _Optional[_Iterable[str]] = ..., optimization_id: _Optional[str] = ...) -> None: ...

class TensorInfo(_message.Message):
    __slots__ = ("name", "datatype", "shape", "dimension_names", "optional")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DATATYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_NAMES_FIELD_NUMBER: _ClassVar[int]
    OPTIONAL_FIELD_NUMBER: _ClassVar[int]
    name: str
    datatype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    dimension_names: _containers.RepeatedScalarFieldContainer[str]
    optional: bool
    def __init__(self, name: _Optional[str] = ..., datatype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., dimension_names: _Optional[_Iterable[str]] = ..., optional: bool = ...) -> None: ...

class CurvePoint(_message.Message):
    __slots__ = ("batch", "latency_ms", "rows_per_s")
    BATCH_FIELD_NUMBER: _ClassVar[int]
    LATENCY_MS_FIELD_NUMBER: _ClassVar[int]
    ROWS_PER_S_FIELD_NUMBER: _ClassVar[int]
    batch: int
    latency_ms: float
    rows_per_s: float
    def __init__(self, batch: _Optional[int] = ..., latency_ms: _Optional[float] = ..., rows_per_s: _Optional[float] = ...) -> None: ...

class Execution(_message.Message):
    __slots__ = ("instances", "threads", "wide_threads", "devices")
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    WIDE_THREADS_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    instances: int
    threads: int
    wide_threads: int
    devices: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, instances: _Optional[int] = ..., threads: _Optional[int] = ..., wide_threads: _Optional[int] = ..., devices: _Optional[_Iterable[str]] = ...) -> None: ...

class LoadModelRequest(_message.Message):
    __slots__ = ("model", "config", "files")
    class FilesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    model: str
    config: str
    files: _containers.ScalarMap[str, bytes]
    def __init__(self, model: _Optional[str] = ..., config: _Optional[str] = ..., files: _Optional[_Mapping[str, bytes]] = ...) -> None: ...

class LoadModelResponse(_message.Message):
    __slots__ = ("versions",)
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedCompositeFieldContainer[ModelSummary]
    def __init__(self, versions: _Optional[_Iterable[_Union[ModelSummary, _Mapping[str, _Any]]]] = ...) -> None: ...

class UnloadModelRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class UnloadModelResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StageLatency(_message.Message):
    __slots__ = ("count", "rate", "p50_ms", "p95_ms", "p99_ms", "max_ms")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    RATE_FIELD_NUMBER: _ClassVar[int]
    P50_MS_FIELD_NUMBER: _ClassVar[int]
    P95_MS_FIELD_NUMBER: _ClassVar[int]
    P99_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_MS_FIELD_NUMBER: _ClassVar[int]
    count: int
    rate: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    def __init__(self, count: _Optional[int] = ..., rate: _Optional[float] = ..., p50_ms: _Optional[float] = ..., p95_ms: _Optional[float] = ..., p99_ms: _Optional[float] = ..., max_ms: _Optional[float] = ...) -> None: ...

class ModelLatency(_message.Message):
    __slots__ = ("model", "version", "window_s", "total", "queue", "compute", "queue_depth", "predicted_wait_ms", "successes", "failures", "batches", "rows", "released", "dropped")
    class ReleasedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class DroppedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    WINDOW_S_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_FIELD_NUMBER: _ClassVar[int]
    QUEUE_DEPTH_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    SUCCESSES_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    RELEASED_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    window_s: int
    total: StageLatency
    queue: StageLatency
    compute: StageLatency
    queue_depth: int
    predicted_wait_ms: float
    successes: int
    failures: int
    batches: int
    rows: int
    released: _containers.ScalarMap[str, int]
    dropped: _containers.ScalarMap[str, int]
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., window_s: _Optional[int] = ..., total: _Optional[_Union[StageLatency, _Mapping[str, _Any]]] = ..., queue: _Optional[_Union[StageLatency, _Mapping[str, _Any]]] = ..., compute: _Optional[_Union[StageLatency, _Mapping[str, _Any]]] = ..., queue_depth: _Optional[int] = ..., predicted_wait_ms: _Optional[float] = ..., successes: _Optional[int] = ..., failures: _Optional[int] = ..., batches: _Optional[int] = ..., rows: _Optional[int] = ..., released: _Optional[_Mapping[str, int]] = ..., dropped: _Optional[_Mapping[str, int]] = ...) -> None: ...

class GetLatencyRequest(_message.Message):
    __slots__ = ("model", "version", "window_s")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    WINDOW_S_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    window_s: int
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., window_s: _Optional[int] = ...) -> None: ...

class GetLatencyResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ModelLatency]
    def __init__(self, models: _Optional[_Iterable[_Union[ModelLatency, _Mapping[str, _Any]]]] = ...) -> None: ...

class WatchLatencyRequest(_message.Message):
    __slots__ = ("model", "version", "window_s", "interval_ms")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    WINDOW_S_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    window_s: int
    interval_ms: int
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., window_s: _Optional[int] = ..., interval_ms: _Optional[int] = ...) -> None: ...

class QueueSettings(_message.Message):
    __slots__ = ("queue_limit", "queue_timeout_ms")
    QUEUE_LIMIT_FIELD_NUMBER: _ClassVar[int]
    QUEUE_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    queue_limit: int
    queue_timeout_ms: float
    def __init__(self, queue_limit: _Optional[int] = ..., queue_timeout_ms: _Optional[float] = ...) -> None: ...

class BatchingSettings(_message.Message):
    __slots__ = ("window_ms", "max_batch", "queue_limit", "queue_timeout_ms", "timeout_action", "priority_levels", "default_priority", "priority_queues", "slo_p99_ms", "preserve_ordering")
    class PriorityQueuesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: QueueSettings
        def __init__(self, key: _Optional[int] = ..., value: _Optional[_Union[QueueSettings, _Mapping[str, _Any]]] = ...) -> None: ...
    WINDOW_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_FIELD_NUMBER: _ClassVar[int]
    QUEUE_LIMIT_FIELD_NUMBER: _ClassVar[int]
    QUEUE_TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_ACTION_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_LEVELS_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_PRIORITY_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_QUEUES_FIELD_NUMBER: _ClassVar[int]
    SLO_P99_MS_FIELD_NUMBER: _ClassVar[int]
    PRESERVE_ORDERING_FIELD_NUMBER: _ClassVar[int]
    window_ms: float
    max_batch: int
    queue_limit: int
    queue_timeout_ms: float
    timeout_action: str
    priority_levels: int
    default_priority: int
    priority_queues: _containers.MessageMap[int, QueueSettings]
    slo_p99_ms: float
    preserve_ordering: bool
    def __init__(self, window_ms: _Optional[float] = ..., max_batch: _Optional[int] = ..., queue_limit: _Optional[int] = ..., queue_timeout_ms: _Optional[float] = ..., timeout_action: _Optional[str] = ..., priority_levels: _Optional[int] = ..., default_priority: _Optional[int] = ..., priority_queues: _Optional[_Mapping[int, QueueSettings]] = ..., slo_p99_ms: _Optional[float] = ..., preserve_ordering: bool = ...) -> None: ...

class Batching(_message.Message):
    __slots__ = ("enabled", "reason", "padding", "padding_reason", "settings", "max_batch_limit")
    ENABLED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    PADDING_REASON_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_LIMIT_FIELD_NUMBER: _ClassVar[int]
    enabled: bool
    reason: str
    padding: bool
    padding_reason: str
    settings: BatchingSettings
    max_batch_limit: int
    def __init__(self, enabled: bool = ..., reason: _Optional[str] = ..., padding: bool = ..., padding_reason: _Optional[str] = ..., settings: _Optional[_Union[BatchingSettings, _Mapping[str, _Any]]] = ..., max_batch_limit: _Optional[int] = ...) -> None: ...

class GetBatchingRequest(_message.Message):
    __slots__ = ("model", "version")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class GetBatchingResponse(_message.Message):
    __slots__ = ("model", "version", "batching")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BATCHING_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    batching: Batching
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., batching: _Optional[_Union[Batching, _Mapping[str, _Any]]] = ...) -> None: ...

class SetBatchingRequest(_message.Message):
    __slots__ = ("model", "version", "settings")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    settings: BatchingSettings
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., settings: _Optional[_Union[BatchingSettings, _Mapping[str, _Any]]] = ...) -> None: ...

class SetBatchingResponse(_message.Message):
    __slots__ = ("model", "version", "settings", "previous")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    settings: BatchingSettings
    previous: BatchingSettings
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., settings: _Optional[_Union[BatchingSettings, _Mapping[str, _Any]]] = ..., previous: _Optional[_Union[BatchingSettings, _Mapping[str, _Any]]] = ...) -> None: ...
