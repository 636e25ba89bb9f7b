"""Jobs as messages of `protos/optimization.proto`, and requests as the use case's own values."""

from typing import Any, cast

from optimizer.job import CandidateProgress, Job, JobState
from protos import optimization_pb2 as pb
from server.errors import InvalidRequest
from server.optimization_request import Dataset, OptimizationRequest
from server.served import ServedVersion

_STATES = {
    JobState.QUEUED: pb.JOB_STATE_QUEUED,
    JobState.RUNNING: pb.JOB_STATE_RUNNING,
    JobState.COMPLETED: pb.JOB_STATE_COMPLETED,
    JobState.REJECTED: pb.JOB_STATE_REJECTED,
    JobState.FAILED: pb.JOB_STATE_FAILED,
    JobState.CANCELLED: pb.JOB_STATE_CANCELLED,
}


def to_request(message: pb.OptimizeRequest) -> OptimizationRequest:
    """What a message asks for.

    Raises:
        InvalidRequest: names the field that is wrong.
    """
    if not message.model:
        raise InvalidRequest("the request names no model")
    if message.version < 0:
        raise InvalidRequest(
            f"version: expected a positive number or 0 for any, got {message.version}"
        )
    threshold = message.accuracy_threshold if message.HasField("accuracy_threshold") else None
    return OptimizationRequest(
        model=message.model,
        version=message.version or None,
        techniques=tuple(message.techniques),
        method=cast(Any, message.quantization.method),
        precision=cast(Any, message.quantization.precision),
        dataset=_dataset(message),
        accuracy_threshold=threshold,
        metric=cast(Any, message.metric),
        lossless_only=message.lossless_only if message.HasField("lossless_only") else None,
        objective=cast(Any, message.objective),
        is_quick=message.quick,
        time_limit_s=message.time_limit_minutes * 60 if message.time_limit_minutes else None,
        promotes=not message.do_not_promote,
    )


def _dataset(message: pb.OptimizeRequest) -> Dataset | None:
    if not message.HasField("validation_dataset"):
        return None
    given = message.validation_dataset
    source = cast(Any, given.source)
    return Dataset(source, given.path, given.query, given.database, given.labels)


def job_message(
    job: Job, serving: ServedVersion | None, position: int, *, is_whole: bool = True
) -> pb.OptimizationJob:
    """A job; `serving` is what answers for its version now, if anything does."""
    message = pb.OptimizationJob(
        id=job.id,
        model=job.model,
        version=job.version,
        state=_STATES[job.state],
        reason=job.reason,
        phase=job.phase,
        percent=job.percent,
        created_ms=_milliseconds(job.created_s),
        started_ms=_milliseconds(job.started_s),
        ended_ms=_milliseconds(job.ended_s),
        is_automatic=job.is_automatic,
        artifact_id=job.artifact_id,
        techniques=job.techniques,
        not_serving_reason=job.not_serving_reason,
        queue_position=position,
    )
    if serving is not None and serving.optimized is not None:
        message.is_serving = serving.artifact_id == job.artifact_id
    if is_whole:
        message.candidates.extend(map(_candidate, job.candidates))
        message.log.extend(job.log)
        message.report_json = job.report
    return message


def served_message(served: ServedVersion) -> pb.ServedForm:
    """What answers for a version."""
    optimized = served.optimized
    return pb.ServedForm(
        model=served.model,
        version=served.version,
        artifact_id=served.artifact_id,
        techniques=optimized.artifact.techniques if optimized else (),
        id=optimized.optimization_id if optimized else "",
    )


def _candidate(candidate: CandidateProgress) -> pb.OptimizationCandidate:
    return pb.OptimizationCandidate(
        name=candidate.name,
        state=candidate.state,
        reason=candidate.reason,
        techniques=candidate.techniques,
        size_bytes=candidate.size_bytes,
        score=candidate.score,
        p50_ms=candidate.p50_ms,
    )


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1e3)
