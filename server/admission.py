"""What a request must satisfy before it may queue: pure functions of settings and request."""

from server.batch_policy import BatchSettings, QueuePolicy
from server.errors import InvalidRequest
from server.request import InferRequest


def priority_of(asked: int, settings: BatchSettings, model: str) -> int:
    """The priority level of a request that asked for `asked`; 0 asks for the default.

    Raises:
        InvalidRequest: there is no such level.
    """
    if asked == 0:
        return settings.default_priority
    if not 1 <= asked <= settings.priority_levels:
        levels = settings.priority_levels
        there_is = "1, the only level," if levels == 1 else f"1 (highest) to {levels},"
        raise InvalidRequest(
            f"priority {asked} for model '{model}', expected {there_is} or 0 for the default"
        )
    return asked


def policy_of(priority: int, settings: BatchSettings) -> QueuePolicy:
    """The queue limits of a priority level."""
    for level, policy in settings.priority_queues:
        if level == priority:
            return policy
    return settings.queue


def queue_timeout_s(policy: QueuePolicy, request: InferRequest) -> float | None:
    """The queue's own timeout, or a shorter one that the request asked for and may have."""
    asked = request.queue_timeout_s if policy.allow_timeout_override else None
    if asked is None or policy.timeout_s is None:
        return policy.timeout_s if asked is None else asked
    return min(asked, policy.timeout_s)
