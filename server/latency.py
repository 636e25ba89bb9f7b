"""Live latency of one served version: quantiles, maximum and rate over sliding windows.

Durations are counted in logarithmic buckets, so a quantile is wrong by at most
`RELATIVE_ERROR` whatever the distribution, and two sets of counts add up exactly (which sliding
windows need). Counts are kept sparse in slots of 0.1 s, 1 s and 10 s, coarser as they age, so
memory depends on how many buckets are in use and not on the traffic.

Nothing here reads a clock: instants are arguments, in `time.monotonic()` seconds.

Source: Masson, Rim, Lee 2019, "DDSketch", VLDB 12(12), section 2 (buckets and their estimate).
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import exp, log
from typing import Final, Literal, TypeAlias

Stage: TypeAlias = Literal["total", "queue", "compute"]
Counts: TypeAlias = Mapping[int, int]  # bucket -> durations in it

STAGES: Final[tuple[Stage, ...]] = ("total", "queue", "compute")
WINDOWS_S: Final = (1, 10, 60, 300)
RELATIVE_ERROR: Final = 0.01

_LOG_GAMMA: Final = log((1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR))
_SMALLEST_S: Final = 1e-9  # a clock counts in nanoseconds: anything shorter is zero
_SCALE: Final = 1 / _LOG_GAMMA
_SHIFT: Final = 1 - log(_SMALLEST_S) / _LOG_GAMMA  # bucket 1 begins at the smallest duration
_TICKS_PER_S: Final = 10
_RING_TICKS: Final = (1, 10, 100)  # slots of 0.1 s, 1 s and 10 s
_RING_SLOTS: Final = (10, 10, 30)
_RING_OF_WINDOW: Final[dict[float, int]] = {1: 0, 10: 1, 60: 2, 300: 2}


@dataclass(frozen=True, slots=True)
class LatencySummary:
    """One stage over one window. All zero, never NaN, when nothing ended in the window."""

    window_s: float
    count: int
    rate: float  # per second
    p50_s: float
    p95_s: float
    p99_s: float
    max_s: float  # exact


def bucket_of(duration_s: float) -> int:
    """The bucket that counts a duration; bucket 0 holds zero and what no clock can tell from it."""
    return int(log(duration_s) * _SCALE + _SHIFT) if duration_s > _SMALLEST_S else 0


def bucket_value_s(bucket: int) -> float:
    """The duration a bucket stands for: within `RELATIVE_ERROR` of every duration in it."""
    if bucket == 0:
        return 0.0
    return exp((bucket - _SHIFT) * _LOG_GAMMA) * (1 + RELATIVE_ERROR)


def quantile_s(counts: Counts, percent: int) -> float:
    """The duration that `percent` of those counted do not exceed (nearest rank); 0.0 of none."""
    rank = -(-sum(counts.values()) * percent // 100)
    for bucket in sorted(counts):
        rank -= counts[bucket]
        if rank <= 0:
            return bucket_value_s(bucket)
    return 0.0


class _Slot:
    """What ended during one slot of time, per stage in the order of `STAGES`."""

    __slots__ = ("counts", "maxima", "number")

    def __init__(self, number: int) -> None:
        self.number = number  # slots since the clock's zero
        self.counts: tuple[defaultdict[int, int], ...] = tuple(defaultdict(int) for _ in STAGES)
        self.maxima = [0.0 for _ in STAGES]

    def absorb(self, other: "_Slot") -> None:
        for mine, theirs in zip(self.counts, other.counts, strict=True):
            for bucket, count in theirs.items():
                mine[bucket] += count
        self.maxima = [max(pair) for pair in zip(self.maxima, other.maxima, strict=True)]


class _Ring:
    """Slots of one length: the one being filled, and those closed before it that still matter."""

    __slots__ = ("_n_slots", "_ticks", "closed", "current")

    def __init__(self, ticks: int, n_slots: int, tick: int) -> None:
        self._ticks, self._n_slots = ticks, n_slots
        self.closed: list[_Slot] = []
        self.current = _Slot(tick // ticks)

    def advance(self, tick: int) -> _Slot | None:
        """Closes the slot being filled if its time is over, and forgets those too old."""
        number, done = tick // self._ticks, self.current
        if number == done.number:
            return None
        if done.counts[0]:
            self.closed.append(done)
        oldest = number - self._n_slots
        self.closed = [slot for slot in self.closed if slot.number >= oldest]
        self.current = _Slot(number)
        return done

    def first_slot(self, tick: int, window_s: float) -> int:
        """The oldest slot that a window ending at `tick` reaches into."""
        return tick // self._ticks - int(window_s) * _TICKS_PER_S // self._ticks

    def start_s(self, number: int) -> float:
        return number * self._ticks / _TICKS_PER_S

    def since(self, number: int) -> list[_Slot]:
        return [slot for slot in self.closed if slot.number >= number] + [self.current]


class LatencyRecorder:
    """Counts every request's three durations. One owner (the event loop), no locks.

    What a window means: "the last w seconds" begins at the start of the slot that holds the
    instant now - w, and ends now, the slot being filled included. Slots are 0.1 s long for the
    1 s window, 1 s for 10 s, 10 s for 60 s and 300 s; a window therefore covers between w and
    w + one slot, and the rate is divided by the time really covered. So a steady rate reads
    steady at every instant: it neither dips when a slot begins nor lags by a slot. Time before
    `started` is not counted as silence, but a rate is never taken over less than a second.

    A record costs three logarithms and three dictionary increments (0.5-1 us, see
    `tests/benchmarks/bench_statistics.py`), and ten times a second folds a slot into the next
    coarser one. Before the first record nothing is allocated; then at most 53 slots, each with
    one counter per stage and bucket in use (a few hundred: durations within a factor of e
    spread over 50 buckets).
    """

    __slots__ = ("_counts", "_folded", "_maxima", "_rings", "_slot_end", "_started")

    def __init__(self, started: float) -> None:
        self._started = started
        self._slot_end = float("-inf")  # the first record opens the first slot
        self._rings: tuple[_Ring, ...] = ()
        self._counts: tuple[defaultdict[int, int], ...] = ()
        self._maxima: list[float] = []

    def record(self, total_s: float, queue_s: float, compute_s: float, now: float) -> None:
        """Counts one request that ended at `now`. Negative durations count as zero."""
        if now >= self._slot_end:
            self._advance(now)
        # Written out three times: a loop over the stages costs more than the work in it.
        totals, queues, computes = self._counts
        totals[int(log(total_s) * _SCALE + _SHIFT) if total_s > _SMALLEST_S else 0] += 1
        queues[int(log(queue_s) * _SCALE + _SHIFT) if queue_s > _SMALLEST_S else 0] += 1
        computes[int(log(compute_s) * _SCALE + _SHIFT) if compute_s > _SMALLEST_S else 0] += 1
        maxima = self._maxima
        # Comparisons, not max(): three calls would make the whole record half as dear again.
        if total_s > maxima[0]:  # noqa: PLR1730
            maxima[0] = total_s
        if queue_s > maxima[1]:  # noqa: PLR1730
            maxima[1] = queue_s
        if compute_s > maxima[2]:  # noqa: PLR1730
            maxima[2] = compute_s

    def summary(self, stage: Stage, window_s: float, now: float) -> LatencySummary:
        """One stage over the window that ends at `now`; costs up to a millisecond when busy.

        Raises:
            ValueError: no such stage or window.
        """
        index, ring_index = _stage_index(stage), _ring_index(window_s)
        if not self._rings:
            return LatencySummary(window_s, 0, 0.0, 0.0, 0.0, 0.0, 0.0)
        self._advance(now)
        ring, tick = self._rings[ring_index], int(now * _TICKS_PER_S)
        first = ring.first_slot(tick, window_s)
        slots = ring.since(first) + [finer.current for finer in self._rings[:ring_index]]
        covered_s = max(1.0, now - max(ring.start_s(first), self._started))
        return _summarize(slots, index, window_s, covered_s)

    def cumulative(self, stage: Stage) -> Counts:
        """Bucket counts of everything ever recorded, for histograms."""
        if not self._rings:
            return {}
        slots = [self._folded, *(ring.current for ring in self._rings)]
        return _merged(slots, _stage_index(stage))

    def absorb(self, other: "LatencyRecorder") -> None:
        """Adds what another recorder ever counted to the cumulative counts, not to the windows."""
        if not other._rings:
            return
        if not self._rings:
            self._open(tick=0)
        for slot in (other._folded, *(ring.current for ring in other._rings)):
            self._folded.absorb(slot)

    def _advance(self, now: float) -> None:
        """Opens the slot that `now` falls into; closed slots fold into the next coarser one."""
        tick = int(now * _TICKS_PER_S)
        if not self._rings:
            self._open(tick)
        for ring, coarser in zip(self._rings, (*self._rings[1:], None), strict=True):
            done = ring.advance(tick)
            if done is None:
                break
            (coarser.current if coarser else self._folded).absorb(done)
        fine = self._rings[0].current
        self._counts, self._maxima = fine.counts, fine.maxima
        self._slot_end = (fine.number + 1) / _TICKS_PER_S

    def _open(self, tick: int) -> None:
        self._folded = _Slot(0)  # everything older than the coarsest slot being filled
        self._rings = tuple(
            _Ring(ticks, n_slots, tick)
            for ticks, n_slots in zip(_RING_TICKS, _RING_SLOTS, strict=True)
        )


def _stage_index(stage: Stage) -> int:
    if stage not in STAGES:
        raise ValueError(f"unknown stage '{stage}', expected one of {', '.join(STAGES)}")
    return STAGES.index(stage)


def _ring_index(window_s: float) -> int:
    if window_s not in _RING_OF_WINDOW:
        expected = ", ".join(map(str, WINDOWS_S))
        raise ValueError(f"no window of {window_s:g} s is kept, expected one of {expected}")
    return _RING_OF_WINDOW[window_s]


def _merged(slots: Iterable[_Slot], stage_index: int) -> Counts:
    merged: defaultdict[int, int] = defaultdict(int)
    for slot in slots:
        for bucket, count in slot.counts[stage_index].items():
            merged[bucket] += count
    return merged


def _summarize(
    slots: list[_Slot], stage_index: int, window_s: float, covered_s: float
) -> LatencySummary:
    counts = _merged(slots, stage_index)
    count = sum(counts.values())
    max_s = max(slot.maxima[stage_index] for slot in slots)
    # A bucket's value may lie above the largest duration in it; the maximum is known exactly.
    p50, p95, p99 = (min(quantile_s(counts, percent), max_s) for percent in (50, 95, 99))
    return LatencySummary(window_s, count, count / covered_s, p50, p95, p99, max_s)
