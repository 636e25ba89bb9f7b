"""What one served version has done so far, and how fast it answers now.

Always on, so recording is plain additions on the event loop; every reader (the protocols'
statistics, `/metrics`, `top`) derives what it shows when it asks.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, TypeVar

from server.errors import Code
from server.latency import Counts, LatencyRecorder, LatencySummary, Stage
from server.request import ReleaseReason, Timing

FailureReason: TypeAlias = Literal["REJECTED", "CANCELED", "BACKEND", "OTHER"]  # Triton's names
DropReason: TypeAlias = Literal["queue_full", "deadline", "queue_timeout", "cancelled"]

FAILURE_REASONS: Final[tuple[FailureReason, ...]] = ("REJECTED", "CANCELED", "BACKEND", "OTHER")
DROP_REASONS: Final[tuple[DropReason, ...]] = (
    "queue_full",
    "deadline",
    "queue_timeout",
    "cancelled",
)

_FAILURE_OF_CODE: Final[dict[Code, FailureReason]] = {
    Code.RESOURCE_EXHAUSTED: "REJECTED",
    Code.UNAVAILABLE: "REJECTED",
    Code.DEADLINE_EXCEEDED: "REJECTED",
    Code.CANCELLED: "CANCELED",
    Code.INTERNAL: "BACKEND",
}


_Key = TypeVar("_Key")


def failure_reason(code: Code) -> FailureReason:
    """The reason under which Triton would count a failure answered with this code."""
    return _FAILURE_OF_CODE.get(code, "OTHER")


@dataclass(slots=True)
class DurationTotal:
    """How often something took time, and how much in all (`StatisticDuration` on the wire)."""

    count: int = 0
    total_s: float = 0.0

    @property
    def ns(self) -> int:
        return round(self.total_s * 1e9)

    def add(self, duration_s: float) -> None:
        self.count += 1
        self.total_s += duration_s

    def absorb(self, other: "DurationTotal") -> None:
        self.count += other.count
        self.total_s += other.total_s


@dataclass(slots=True)
class BatchTotals:
    """The batches of one size; each duration counts once per batch."""

    count: int = 0
    compute_input_s: float = 0.0
    compute_infer_s: float = 0.0
    compute_output_s: float = 0.0

    def absorb(self, other: "BatchTotals") -> None:
        self.count += other.count
        self.compute_input_s += other.compute_input_s
        self.compute_infer_s += other.compute_infer_s
        self.compute_output_s += other.compute_output_s

    @property
    def compute_input(self) -> DurationTotal:
        return DurationTotal(self.count, self.compute_input_s)

    @property
    def compute_infer(self) -> DurationTotal:
        return DurationTotal(self.count, self.compute_infer_s)

    @property
    def compute_output(self) -> DurationTotal:
        return DurationTotal(self.count, self.compute_output_s)


class VersionStatistics:
    """Everything counted about one served version. Event loop only; nothing is ever reset.

    Counting follows Triton: `success`, `queue` and the compute durations count requests that
    were answered, a batch's compute time charged to each request in it; `inference_count`
    counts rows and `execution_count` batches. Only answered requests enter the latency windows:
    a refusal takes microseconds and would flatter them.

    A request costs about 1.5 us with its share of `record_batch`
    (`tests/benchmarks/bench_statistics.py`); an idle version holds less than 1 KiB.
    """

    __slots__ = (
        "_clock",
        "_compute_infer_s",
        "_compute_input_s",
        "_compute_output_s",
        "_last_inference_s",
        "_latency",
        "_queue_s",
        "_success_count",
        "_success_s",
        "_wall_clock",
        "batch_stats",
        "batched_requests",
        "dropped",
        "execution_count",
        "fail",
        "failed_codes",
        "failures",
        "inference_count",
        "queue_depth",
        "releases",
    )

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock, self._wall_clock = clock, wall_clock
        self._latency = LatencyRecorder(started=clock())
        self._success_count = 0
        self._success_s = self._queue_s = 0.0
        self._compute_input_s = self._compute_infer_s = self._compute_output_s = 0.0
        self.queue_depth = 0  # entries waiting, set by the batcher
        self.inference_count = 0  # rows
        self.execution_count = 0  # batches
        self.batched_requests = 0  # requests, or parts of one that was split, in those batches
        self._last_inference_s = 0.0  # wall clock
        self.fail = DurationTotal()
        self.failures: defaultdict[FailureReason, int] = defaultdict(int)
        self.failed_codes: defaultdict[Code, int] = defaultdict(int)
        self.dropped: defaultdict[DropReason, int] = defaultdict(int)
        self.releases: defaultdict[ReleaseReason, int] = defaultdict(int)
        self.batch_stats: dict[int, BatchTotals] = {}  # rows -> what batches of that size cost

    def record_success(self, timing: Timing) -> None:
        """Counts one answered request."""
        compute_input_s, compute_infer_s = timing.compute_input_s, timing.compute_infer_s
        compute_output_s = timing.compute_output_s
        self._success_count += 1
        self._success_s += timing.total_s
        self._queue_s += timing.queue_s
        self._compute_input_s += compute_input_s
        self._compute_infer_s += compute_infer_s
        self._compute_output_s += compute_output_s
        compute_s = compute_input_s + compute_infer_s + compute_output_s
        self._latency.record(timing.total_s, timing.queue_s, compute_s, self._clock())

    def record_failure(self, total_s: float, reason: FailureReason, code: Code) -> None:
        """Counts one request that was answered with an error `total_s` after it arrived."""
        self.fail.add(total_s)
        self.failures[reason] += 1
        self.failed_codes[code] += 1

    def record_batch(  # noqa: PLR0917 - by position: keywords cost, and it runs per batch
        self,
        rows: int,
        requests: int,
        compute_input_s: float,
        compute_infer_s: float,
        compute_output_s: float,
        reason: ReleaseReason,
    ) -> None:
        """Counts one batch that ran, once, whatever the number of requests in it."""
        self.inference_count += rows
        self.execution_count += 1
        self.batched_requests += requests
        self._last_inference_s = self._wall_clock()
        self.releases[reason] += 1
        size = self.batch_stats.get(rows)
        if size is None:
            size = self.batch_stats[rows] = BatchTotals()
        size.count += 1
        size.compute_input_s += compute_input_s
        size.compute_infer_s += compute_infer_s
        size.compute_output_s += compute_output_s

    def record_dropped(self, reason: DropReason) -> None:
        """Counts one request that left without being executed; it also counts as a failure."""
        self.dropped[reason] += 1

    def absorb(self, other: "VersionStatistics") -> None:
        """Adds the totals of another loading of the same version; the windows stay as they are."""
        self._success_count += other._success_count
        self._success_s += other._success_s
        self._queue_s += other._queue_s
        self._compute_input_s += other._compute_input_s
        self._compute_infer_s += other._compute_infer_s
        self._compute_output_s += other._compute_output_s
        self._last_inference_s = max(self._last_inference_s, other._last_inference_s)
        self._latency.absorb(other._latency)
        self.queue_depth += other.queue_depth
        self.inference_count += other.inference_count
        self.execution_count += other.execution_count
        self.batched_requests += other.batched_requests
        self.fail.absorb(other.fail)
        _add_counts(self.failures, other.failures)
        _add_counts(self.failed_codes, other.failed_codes)
        _add_counts(self.dropped, other.dropped)
        _add_counts(self.releases, other.releases)
        for rows, totals in other.batch_stats.items():
            self.batch_stats.setdefault(rows, BatchTotals()).absorb(totals)

    @property
    def last_inference_ms(self) -> int:
        """When the last batch ended, in milliseconds since the epoch; 0 before the first."""
        return int(self._last_inference_s * 1e3)

    @property
    def success(self) -> DurationTotal:
        return DurationTotal(self._success_count, self._success_s)

    @property
    def queue(self) -> DurationTotal:
        return DurationTotal(self._success_count, self._queue_s)

    @property
    def compute_input(self) -> DurationTotal:
        return DurationTotal(self._success_count, self._compute_input_s)

    @property
    def compute_infer(self) -> DurationTotal:
        return DurationTotal(self._success_count, self._compute_infer_s)

    @property
    def compute_output(self) -> DurationTotal:
        return DurationTotal(self._success_count, self._compute_output_s)

    @property
    def compute(self) -> DurationTotal:
        """All three compute durations together, as in the latency stage of that name."""
        total_s = self._compute_input_s + self._compute_infer_s + self._compute_output_s
        return DurationTotal(self._success_count, total_s)

    @property
    def codes(self) -> dict[Code, int]:
        """Requests by the status they were answered with."""
        answered = {Code.OK: self._success_count} if self._success_count else {}
        return answered | self.failed_codes

    def latency(self, stage: Stage, window_s: float) -> LatencySummary:
        """One stage over the last 1, 10, 60 or 300 seconds, as `LatencyRecorder` defines them."""
        return self._latency.summary(stage, window_s, self._clock())

    def duration_counts(self, stage: Stage) -> Counts:
        """Logarithmic bucket counts of every answered request, for histograms."""
        return self._latency.cumulative(stage)


def _add_counts(mine: defaultdict[_Key, int], theirs: Mapping[_Key, int]) -> None:
    for key, count in theirs.items():
        mine[key] += count
