"""What is known about models, as messages of `protos/models.proto`. Reads only, decides nothing."""

from protos import models_pb2 as pb
from protos.signature import TensorSpec
from server.latency import LatencySummary, Stage
from server.model_versions import ModelState, VersionStatus
from server.rpc.batching_settings import max_batch_limit, to_message
from server.served import ServedVersion

_STATES = {
    ModelState.LOADING: pb.STATE_LOADING,
    ModelState.READY: pb.STATE_READY,
    ModelState.UNLOADING: pb.STATE_UNLOADING,
    ModelState.UNAVAILABLE: pb.STATE_UNAVAILABLE,
}


def summary(status: VersionStatus, served: ServedVersion | None, window_s: int) -> pb.ModelSummary:
    """One line of the list; `served` is None where the version does not serve."""
    message = pb.ModelSummary(
        model=status.model,
        version=status.version or 0,
        state=_STATES[status.state],
        reason=status.reason,
        window_s=window_s,
    )
    if served is not None:
        message.batching = served.profile.batchable
        message.batching_reason = served.profile.reason
        message.max_batch = served.batcher.settings.max_batch
        message.total.CopyFrom(_stage(served, "total", window_s))
        message.artifact_id = served.artifact_id
        message.techniques.extend(techniques(served))
    return message


def detail(status: VersionStatus, served: ServedVersion | None, window_s: int) -> pb.ModelVersion:
    """Everything about one version."""
    message = pb.ModelVersion(
        version=status.version or 0, state=_STATES[status.state], reason=status.reason
    )
    if served is not None:
        _fill(message, served)
        message.latency.CopyFrom(latency(served, window_s))
    return message


def techniques(served: ServedVersion) -> tuple[str, ...]:
    """What made the artifact that serves; empty where it is the model's own file."""
    return served.optimized.artifact.techniques if served.optimized else ()


def batching(served: ServedVersion) -> pb.Batching:
    """The verdict of the probes, and the settings in force."""
    profile = served.profile
    return pb.Batching(
        enabled=profile.batchable,
        reason=profile.reason,
        padding=profile.pad is not None,
        padding_reason=profile.pad_reason,
        settings=to_message(served.batcher.settings),
        max_batch_limit=max_batch_limit(served),
    )


def latency(served: ServedVersion, window_s: int) -> pb.ModelLatency:
    """Live latency per stage, and the counts since the load."""
    stats = served.stats
    return pb.ModelLatency(
        model=served.model,
        version=served.version,
        window_s=window_s,
        total=_stage(served, "total", window_s),
        queue=_stage(served, "queue", window_s),
        compute=_stage(served, "compute", window_s),
        queue_depth=stats.queue_depth,
        predicted_wait_ms=served.batcher.predicted_wait_s() * 1e3,
        successes=stats.success.count,
        failures=stats.fail.count,
        batches=stats.execution_count,
        rows=stats.inference_count,
        released={reason.value: count for reason, count in stats.releases.items()},
        dropped={str(reason): count for reason, count in stats.dropped.items()},
    )


def _fill(message: pb.ModelVersion, served: ServedVersion) -> None:
    profile, loaded = served.profile, served.loaded
    message.platform = served.platform
    message.artifact_id = served.artifact_id
    message.memory_bytes = served.memory_bytes
    message.inputs.extend(map(_tensor, served.signature.inputs))
    message.outputs.extend(map(_tensor, served.signature.outputs))
    message.batching.CopyFrom(batching(served))
    for point in profile.curve:
        message.curve.add(
            batch=point.batch, latency_ms=point.latency_s * 1e3, rows_per_s=point.rows_per_s
        )
    message.max_batch_reason = profile.max_batch_reason
    message.execution.instances = loaded.instances
    message.execution.threads = loaded.narrow.threads
    message.execution.wide_threads = 0 if loaded.wide is None else loaded.wide.threads
    message.execution.devices.extend(loaded.narrow.devices)
    message.load_ms = profile.load_s * 1e3
    message.warm_up_ms = profile.warm_up_s * 1e3
    if profile.fallback:
        message.warnings.append(profile.fallback)
    message.warnings.extend(served.config.warnings)
    message.config_origin = served.config.origin
    message.techniques.extend(techniques(served))
    message.optimization_id = served.optimized.optimization_id if served.optimized else ""


def _tensor(spec: TensorSpec) -> pb.TensorInfo:
    return pb.TensorInfo(
        name=spec.name,
        datatype=spec.datatype,
        shape=spec.wire_shape,
        dimension_names=["" if isinstance(size, int) else size for size in spec.shape],
        optional=spec.optional,
    )


def _stage(served: ServedVersion, stage: Stage, window_s: int) -> pb.StageLatency:
    measured: LatencySummary = served.stats.latency(stage, window_s)
    return pb.StageLatency(
        count=measured.count,
        rate=measured.rate,
        p50_ms=measured.p50_s * 1e3,
        p95_ms=measured.p95_s * 1e3,
        p99_ms=measured.p99_s * 1e3,
        max_ms=measured.max_s * 1e3,
    )
