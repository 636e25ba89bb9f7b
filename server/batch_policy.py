"""When a batch leaves and what is in it: pure decisions on values, no clock, queue or loop.

The rule, in one sentence: an idle instance takes what is there at once, unless an operator asked
for a batch window, in which case it waits until the batch is full, the oldest entry has waited
for the window, or waiting longer would cost an entry its deadline.
"""

from dataclasses import dataclass
from enum import StrEnum

from server.request import ReleaseReason


class TimeoutAction(StrEnum):
    """What happens to an entry that waited longer than its queue timeout (Triton's names)."""

    REJECT = "reject"  # answered DEADLINE_EXCEEDED "Request timeout expired"
    DELAY = "delay"  # served after all entries that have not timed out


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """The limits of one priority level's queue."""

    queue_limit: int = 1024  # entries waiting; 0: unlimited
    timeout_s: float | None = None  # longest time in the queue; None: unlimited
    timeout_action: TimeoutAction = TimeoutAction.REJECT
    allow_timeout_override: bool = True  # a request may ask for a shorter timeout of its own


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """Everything about batching that may be changed while a model serves."""

    window_s: float = 0.0  # longest an idle instance waits for companions
    max_batch: int = 1  # rows
    priority_levels: int = 1  # 1 is highest
    default_priority: int = 1  # of requests that name none
    queue: QueuePolicy = QueuePolicy()
    priority_queues: tuple[tuple[int, QueuePolicy], ...] = ()  # level -> its own limits
    slo_p99_s: float | None = None  # the latency target shown to operators and, later, controlled
    preserve_ordering: bool = False  # answers leave in the order the requests came


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a decision is made from: the entries that could share the next batch."""

    rows: int
    oldest: float  # instant the oldest was enqueued
    earliest_deadline: float  # of any of them; math.inf without one


@dataclass(frozen=True, slots=True)
class Hold:
    """Leave the instance idle until then, unless more entries come."""

    until: float


def decide(
    waiting: Waiting, settings: BatchSettings, run_s: float, now: float
) -> ReleaseReason | Hold:
    """Whether an idle instance takes the waiting entries now, and why.

    `run_s` is how long the batch is expected to compute: holding ends early enough for the most
    urgent entry to be answered before its deadline.
    """
    if waiting.rows >= settings.max_batch:
        return ReleaseReason.FULL
    if settings.window_s <= 0.0:
        return ReleaseReason.IDLE_INSTANCE
    window_ends = waiting.oldest + settings.window_s
    latest_start = waiting.earliest_deadline - run_s
    if now >= min(window_ends, latest_start):
        return ReleaseReason.WINDOW if window_ends <= latest_start else ReleaseReason.DEADLINE
    return Hold(min(window_ends, latest_start))


def predicted_wait_s(
    waiting_rows: int, running: int, instances: int, max_batch: int, run_s: float
) -> float:
    """How long a request enqueued now would wait before it is taken.

    The rows before it leave in full batches, `instances` at a time; of those running half their
    time is left on average.
    """
    batches = -(-waiting_rows // max_batch)
    rounds = batches / instances + (0.5 if running >= instances else 0.0)
    return rounds * run_s
