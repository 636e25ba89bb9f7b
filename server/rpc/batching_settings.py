"""Batching settings between the wire and the batcher: what is in force, and what a change makes.

Pure: a change is checked as a whole before anything of it counts.
"""

import math
from collections.abc import Mapping
from dataclasses import replace

from protos import models_pb2 as pb
from server.batch_policy import BatchSettings, QueuePolicy, TimeoutAction
from server.errors import InvalidRequest
from server.served import ServedVersion

_MAX_WINDOW_MS = 60_000.0  # a longer wait is a mistaken unit
_MAX_TIME_MS = 86_400_000.0  # a day
_MAX_LEVELS = 1000
_MAX_ROWS = 65_536


def max_batch_limit(served: ServedVersion) -> int:
    """The most rows `max_batch` may be set to; 1 where requests run one by one."""
    if not served.profile.batchable:
        return 1
    return served.config.max_batch_size or _MAX_ROWS


def to_message(settings: BatchSettings) -> pb.BatchingSettings:
    """All settings, in the wire's units."""
    return pb.BatchingSettings(
        window_ms=_ms(settings.window_s),
        max_batch=settings.max_batch,
        queue_limit=settings.queue.queue_limit,
        queue_timeout_ms=_ms(settings.queue.timeout_s),
        timeout_action=settings.queue.timeout_action,
        priority_levels=settings.priority_levels,
        default_priority=settings.default_priority,
        priority_queues={
            level: pb.QueueSettings(
                queue_limit=queue.queue_limit, queue_timeout_ms=_ms(queue.timeout_s)
            )
            for level, queue in settings.priority_queues
        },
        slo_p99_ms=_ms(settings.slo_p99_s),
        preserve_ordering=settings.preserve_ordering,
    )


def changed(settings: BatchSettings, change: pb.BatchingSettings, limit: int) -> BatchSettings:
    """The settings after a change; what the change leaves out stays. `limit`: of `max_batch`.

    Raises:
        InvalidRequest: names the field, its value and what was expected.
    """
    _check(change, limit)
    levels = change.priority_levels if change.HasField("priority_levels") else None
    n_levels = settings.priority_levels if levels is None else levels
    default = change.default_priority or min(settings.default_priority, n_levels)
    _check_range("default_priority", default, 1, n_levels, "(priority_levels)")
    return BatchSettings(
        window_s=_s(change.window_ms) if change.HasField("window_ms") else settings.window_s,
        max_batch=change.max_batch if change.HasField("max_batch") else settings.max_batch,
        priority_levels=n_levels,
        default_priority=default,
        queue=_queue(settings.queue, change),
        priority_queues=_priority_queues(settings, change.priority_queues, n_levels),
        slo_p99_s=_or_none(change.slo_p99_ms)
        if change.HasField("slo_p99_ms")
        else settings.slo_p99_s,
        preserve_ordering=change.preserve_ordering
        if change.HasField("preserve_ordering")
        else settings.preserve_ordering,
    )


def _check(change: pb.BatchingSettings, limit: int) -> None:
    _check_range("window_ms", change.window_ms, 0, _MAX_WINDOW_MS, "milliseconds")
    _check_range("queue_timeout_ms", change.queue_timeout_ms, 0, _MAX_TIME_MS, "milliseconds")
    _check_range("slo_p99_ms", change.slo_p99_ms, 0, _MAX_TIME_MS, "milliseconds")
    if change.HasField("max_batch"):
        why = "rows" if limit > 1 else "since requests of this model run one by one"
        _check_range("max_batch", change.max_batch, 1, limit, why)
    if change.HasField("priority_levels"):
        _check_range("priority_levels", change.priority_levels, 1, _MAX_LEVELS, "levels")
    if change.HasField("default_priority"):
        _check_range("default_priority", change.default_priority, 1, _MAX_LEVELS, "levels")
    if change.HasField("timeout_action") and change.timeout_action not in [*TimeoutAction]:
        expected = " or ".join(f'"{action}"' for action in TimeoutAction)
        raise InvalidRequest(f"timeout_action: expected {expected}, got '{change.timeout_action}'")


def _check_range(field: str, value: float, low: float, high: float, what: str) -> None:
    if not low <= value <= high:  # NaN is in no range
        bounds = f"{low:g}" if low == high else f"{low:g} to {high:g}"
        raise InvalidRequest(f"{field}: expected {bounds} {what}, got {value:g}")


def _queue(policy: QueuePolicy, change: pb.BatchingSettings | pb.QueueSettings) -> QueuePolicy:
    if change.HasField("queue_limit"):
        policy = replace(policy, queue_limit=change.queue_limit)
    if change.HasField("queue_timeout_ms"):
        policy = replace(policy, timeout_s=_or_none(change.queue_timeout_ms))
    if isinstance(change, pb.BatchingSettings) and change.HasField("timeout_action"):
        policy = replace(policy, timeout_action=TimeoutAction(change.timeout_action))
    return policy


def _priority_queues(
    settings: BatchSettings, change: Mapping[int, pb.QueueSettings], n_levels: int
) -> tuple[tuple[int, QueuePolicy], ...]:
    """Levels that a smaller number of levels leaves behind are dropped."""
    queues = {level: queue for level, queue in settings.priority_queues if level <= n_levels}
    for level, queue in change.items():
        _check_range("priority_queues", level, 1, n_levels, "(priority_levels)")
        name = f"priority_queues[{level}].queue_timeout_ms"
        _check_range(name, queue.queue_timeout_ms, 0, _MAX_TIME_MS, "milliseconds")
        queues[level] = _queue(queues.get(level, settings.queue), queue)
    return tuple(sorted(queues.items()))


def _ms(seconds: float | None) -> float:
    return 0.0 if seconds is None else round(seconds * 1e3, 6)


def _s(milliseconds: float) -> float:
    return milliseconds / 1e3


def _or_none(milliseconds: float) -> float | None:
    return milliseconds / 1e3 if milliseconds > 0 and math.isfinite(milliseconds) else None
