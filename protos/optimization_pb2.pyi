from typing import Any as _Any
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class JobState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    JOB_STATE_UNSPECIFIED: _ClassVar[JobState]
    JOB_STATE_QUEUED: _ClassVar[JobState]
    JOB_STATE_RUNNING: _ClassVar[JobState]
    JOB_STATE_COMPLETED: _ClassVar[JobState]
    JOB_STATE_REJECTED: _ClassVar[JobState]
    JOB_STATE_FAILED: _ClassVar[JobState]
    JOB_STATE_CANCELLED: _ClassVar[JobState]
JOB_STATE_UNSPECIFIED: JobState
JOB_STATE_QUEUED: JobState
JOB_STATE_RUNNING: JobState
JOB_STATE_COMPLETED: JobState
JOB_STATE_REJECTED: JobState
JOB_STATE_FAILED: JobState
JOB_STATE_CANCELLED: JobState

class OptimizeRequest(_message.Message):
    __slots__ = ("model", "version", "techniques", "quantization", "validation_dataset", "accuracy_threshold", "metric", "lossless_only", "objective", "quick", "time_limit_minutes", "do_not_promote")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TECHNIQUES_FIELD_NUMBER: _ClassVar[int]
    QUANTIZATION_FIELD_NUMBER: _ClassVar[int]
    VALIDATION_DATASET_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    LOSSLESS_ONLY_FIELD_NUMBER: _ClassVar[int]
    OBJECTIVE_FIELD_NUMBER: _ClassVar[int]
    QUICK_FIELD_NUMBER: _ClassVar[int]
    TIME_LIMIT_MINUTES_FIELD_NUMBER: _ClassVar[int]
    DO_NOT_PROMOTE_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    techniques: _containers.RepeatedScalarFieldContainer[str]
    quantization: QuantizationConfig
    validation_dataset: ValidationDataset
    accuracy_threshold: float
    metric: str
    lossless_only: bool
    objective: str
    quick: bool
    time_limit_minutes: float
    do_not_promote: bool
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., techniques: _Optional[_Iterable[str]] = ..., quantization: _Optional[_Union[QuantizationConfig, _Mapping[str, _Any]]] = ..., validation_dataset: _Optional[_Union[ValidationDataset, _Mapping[str, _Any]]] = ..., accuracy_threshold: _Optional[float] = ..., metric: _Optional[str] = ..., lossless_only: bool = ..., objective: _Optional[str] = ..., quick: bool = ..., time_limit_minutes: _Optional[float] = ..., do_not_promote: bool = ...) -> None: ...

class QuantizationConfig(_message.Message):
    __slots__ = ("method", "precision")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    method: str
    precision: str
    def __init__(self, method: _Optional[str] = ..., precision: _Optional[str] = ...) -> None: ...

class ValidationDataset(_message.Message):
    __slots__ = ("source", "path", "query", "database", "labels")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    DATABASE_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    source: str
    path: str
    query: str
    database: str
    labels: str
    def __init__(self, source: _Optional[str] = ..., path: _Optional[str] = ..., query: _Optional[str] = ..., database: _Optional[str] = ..., labels: _Optional[str] = ...) -> None: ...

class OptimizeResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: OptimizationJob
    def __init__(self, job: _Optional[_Union[OptimizationJob, _Mapping[str, _Any]]] = ...) -> None: ...

class OptimizationJob(_message.Message):
    __slots__ = ("id", "model", "version", "state", "reason", "phase", "percent", "created_ms", "started_ms", "ended_ms", "is_automatic", "artifact_id", "techniques", "is_serving", "not_serving_reason", "queue_position", "candidates", "log", "report_json")
    ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    PERCENT_FIELD_NUMBER: _ClassVar[int]
    CREATED_MS_FIELD_NUMBER: _ClassVar[int]
    STARTED_MS_FIELD_NUMBER: _ClassVar[int]
    ENDED_MS_FIELD_NUMBER: _ClassVar[int]
    IS_AUTOMATIC_FIELD_NUMBER: _ClassVar[int]
    ARTIFACT_ID_FIELD_NUMBER: _ClassVar[int]
    TECHNIQUES_FIELD_NUMBER: _ClassVar[int]
    IS_SERVING_FIELD_NUMBER: _ClassVar[int]
    NOT_SERVING_REASON_FIELD_NUMBER: _ClassVar[int]
    QUEUE_POSITION_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    REPORT_JSON_FIELD_NUMBER: _ClassVar[int]
    id: str
    model: str
    version: int
    state: JobState
    reason: str
    phase: str
    percent: float
    created_ms: int
    started_ms: int
    ended_ms: int
    is_automatic: bool
    artifact_id: str
    techniques: _containers.RepeatedScalarFieldContainer[str]
    is_serving: bool
    not_serving_reason: str
    queue_position: int
    candidates: _containers.RepeatedCompositeFieldContainer[OptimizationCandidate]
    log: _containers.RepeatedScalarFieldContainer[str]
    report_json: str
    def __init__(self, id: _Optional[str] = ..., model: _Optional[str] = ..., version: _Optional[int] = ..., state: _Optional[_Union[JobState, str]] = ..., reason: _Optional[str] = ..., phase: _Optional[str] = ..., percent: _Optional[float] = ..., created_ms: _Optional[int] = ..., started_ms: _Optional[int] = ..., ended_ms: _Optional[int] = ..., is_automatic: bool = ..., artifact_id: _Optional[str] = ..., techniques: _Optional[_Iterable[str]] = ..., is_serving: bool = ..., not_serving_reason: _Optional[str] = ..., queue_position: _Optional[int] = ..., candidates: _Optional[_Iterable[_Union[OptimizationCandidate, _Mapping[str, _Any]]]] = ..., log: _Optional[_Iterable[str]] = ..., report_json: _Optional[str] = ...) -> None: ...

class OptimizationCandidate(_message.Message):
    __slots__ = ("name", "state", "reason", "techniques", "size_bytes", "score", "p50_ms")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TECHNIQUES_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    P50_MS_FIELD_NUMBER: _ClassVar[int]
    name: str
    state: str
    reason: str
    techniques: _containers.RepeatedScalarFieldContainer[str]
    size_bytes: int
    score: float
    p50_ms: float
    def __init__(self, name: _Optional[str] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ..., techniques: _Optional[_Iterable[str]] = ..., size_bytes: _Optional[int] = ..., score: _Optional[float] = ..., p50_ms: _Optional[float] = ...) -> None: ...

class GetOptimizationRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class GetOptimizationResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: OptimizationJob
    def __init__(self, job: _Optional[_Union[OptimizationJob, _Mapping[str, _Any]]] = ...) -> None: ...

class WatchOptimizationRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class WatchOptimizationResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: OptimizationJob
    def __init__(self, job: _Optional[_Union[OptimizationJob, _Mapping[str, _Any]]] = ...) -> None: ...

class ListOptimizationsRequest(_message.Message):
    __slots__ = ("model", "limit")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    model: str
    limit: int
    def __init__(self, model: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class ListOptimizationsResponse(_message.Message):
    __slots__ = ("jobs",)
    JOBS_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.RepeatedCompositeFieldContainer[OptimizationJob]
    def __init__(self, jobs: _Optional[_Iterable[_Union[OptimizationJob, _Mapping[str, _Any]]]] = ...) -> None: ...

class CancelOptimizationRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class CancelOptimizationResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: OptimizationJob
    def __init__(self, job: _Optional[_Union[OptimizationJob, _Mapping[str, _Any]]] = ...) -> None: ...

class PromoteRequest(_message.Message):
    __slots__ = ("model", "version", "id")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    id: str
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., id: _Optional[str] = ...) -> None: ...

class PromoteResponse(_message.Message):
    __slots__ = ("served",)
    SERVED_FIELD_NUMBER: _ClassVar[int]
    served: ServedForm
    def __init__(self, served: _Optional[_Union[ServedForm, _Mapping[str, _Any]]] = ...) -> None: ...

class RollBackRequest(_message.Message):
    __slots__ = ("model", "version")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class RollBackResponse(_message.Message):
    __slots__ = ("served",)
    SERVED_FIELD_NUMBER: _ClassVar[int]
    served: ServedForm
    def __init__(self, served: _Optional[_Union[ServedForm, _Mapping[str, _Any]]] = ...) -> None: ...

class ServedForm(_message.Message):
    __slots__ = ("model", "version", "artifact_id", "techniques", "id")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ARTIFACT_ID_FIELD_NUMBER: _ClassVar[int]
    TECHNIQUES_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    artifact_id: str
    techniques: _containers.RepeatedScalarFieldContainer[str]
    id: str
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., artifact_id: _Optional[str] = ..., techniques: _Optional[_Iterable[str]] = ..., id: _Optional[str] = ...) -> None: ...
