"""Requests of model control, built alike for the sync and the async client."""

from collections.abc import Mapping, Sequence
from typing import TypedDict

from protos import models_pb2 as pb
from protos import optimization_pb2


class BatchingChange(TypedDict, total=False):
    """What `set_batching` may change; what is left out stays as it is."""

    window_ms: float  # longest an idle instance waits for companions; 0: takes what is there
    max_batch: int  # rows of one batch
    queue_limit: int  # requests that may wait; 0: no limit
    queue_timeout_ms: float  # longest wait in the queue; 0: no limit
    timeout_action: str  # "reject" or "delay"
    priority_levels: int  # 1 is the highest level
    default_priority: int  # of requests that name none
    priority_queues: Mapping[int, pb.QueueSettings]  # limits of single levels
    slo_p99_ms: float  # the p99 latency operators aim at; 0: none
    preserve_ordering: bool  # answers leave in the order the requests came


class OptimizeOptions(TypedDict, total=False):
    """What `optimize` may be told; what is left out is as the server and the model say."""

    techniques: Sequence[str]  # those that may be used
    method: str  # of quantization: "dynamic" or "static"
    precision: str  # of quantization: "int8" or "int4"
    data_file: str  # rows of input, a file on the server
    query: str  # rows of input, a SELECT on `database`
    database: str  # a connection that the server's operator named
    labels: str  # column or array of the right answers
    accuracy_threshold: float  # ratio to the original, from 0 to 1
    metric: str
    lossless_only: bool
    objective: str  # "latency" or "throughput"
    quick: bool
    time_limit_minutes: float
    do_not_promote: bool  # keep the result, let the model serve as it does


def optimize_request(
    model: str, version: int | None, options: OptimizeOptions
) -> optimization_pb2.OptimizeRequest:
    """The request of a job.

    Raises:
        TypeError, ValueError: an option there is not, or a value of the wrong type.
    """
    given = dict(options)
    request = optimization_pb2.OptimizeRequest(model=model, version=version or 0)
    quantization = {key: given.pop(key) for key in ("method", "precision") if key in given}
    if quantization:
        request.quantization.MergeFrom(optimization_pb2.QuantizationConfig(**quantization))  # type: ignore[arg-type]
    names = {"data_file": "path", "query": "query", "database": "database", "labels": "labels"}
    data = {names[key]: given.pop(key) for key in names if key in given}
    if data:
        source = "file" if "path" in data else "sql"
        dataset = optimization_pb2.ValidationDataset(source=source, **data)  # type: ignore[arg-type]
        request.validation_dataset.MergeFrom(dataset)
    request.MergeFrom(optimization_pb2.OptimizeRequest(**given))  # type: ignore[arg-type]
    return request


def load_request(
    model: str, config: str | None, files: Mapping[str, bytes] | None
) -> pb.LoadModelRequest:
    """The request of a load.

    Raises:
        TypeError: `config` is no text; a mapping goes through `json.dumps` first.
    """
    request = pb.LoadModelRequest(model=model, files=files or {})
    try:
        request.config = config or ""
    except TypeError:
        raise TypeError(f"config: expected JSON text, got {config!r}") from None
    return request


def watch_request(
    model: str, version: int | None, window_s: int, interval_s: float
) -> pb.WatchLatencyRequest:
    return pb.WatchLatencyRequest(
        model=model,
        version=version or 0,
        window_s=window_s,
        interval_ms=round(interval_s * 1e3),
    )


def set_batching_request(
    model: str, version: int | None, change: BatchingChange
) -> pb.SetBatchingRequest:
    """The request of a change.

    Raises:
        TypeError, ValueError: a setting there is not, or a value of the wrong type or sign.
    """
    settings = pb.BatchingSettings()
    for name, value in change.items():
        try:
            settings.MergeFrom(pb.BatchingSettings(**{name: value}))  # type: ignore[arg-type]
        except (TypeError, ValueError) as error:
            raise type(error)(f"{name}={value!r}: {error}") from None
    return pb.SetBatchingRequest(model=model, version=version or 0, settings=settings)
