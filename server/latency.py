"""Live latency of one served version: quantiles, maximum and rate over sliding windows.

Durations are counted in logarithmic buckets, so a quantile is wrong by at most
`RELATIVE_ERROR` whatever the distribution, and two sets of counts add up exactly (which sliding
windows need). Counts are kept sparse, in slots of a tenth of each window, so memory depends on
how many buckets are in use and not on the traffic.

Nothing here reads a clock: instants are arguments, in `time.monotonic()` seconds.

Source: Masson, Rim, Lee 2019, "DDSketch", VLDB 12(12), section 2 (buckets and their estimate).
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import exp, log
from typing import Final, Literal, TypeAlias

import numpy as np

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
_SLOTS: Final = 10  # per window


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


def quantiles_s(counts: Sequence[Counts], percents: Sequence[int]) -> list[float]:
    """For each percent, the duration that so many of all counted do not exceed (nearest rank).

    `counts` are added up first and must not all be empty.
    """
    n_in_bucket = np.bincount(
        np.fromiter(chain.from_iterable(counts), np.int64),
        np.fromiter(chain.from_iterable(count.values() for count in counts), np.int64),
    )
    seen = np.cumsum(n_in_bucket)
    ranks = [-(-int(seen[-1]) * percent // 100) for percent in percents]
    return [bucket_value_s(int(bucket)) for bucket in np.searchsorted(seen, ranks)]


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
    """The slots of one window: the one being filled, and those closed before it that matter."""

    __slots__ = ("_ticks", "closed", "current")

    def __init__(self, window_s: int, tick: int) -> None:
        self._ticks = window_s * _TICKS_PER_S // _SLOTS  # in a slot
        self.closed: list[_Slot] = []
        self.current = _Slot(tick // self._ticks)

    def advance(self, tick: int) -> _Slot | None:
        """Closes the slot being filled if its time is over, and forgets those too old."""
        number, done = tick // self._ticks, self.current
        if number == done.number:
            return None
        self.closed.append(done)
        oldest = number - _SLOTS
        self.closed = [slot for slot in self.closed if slot.number >= oldest and slot.counts[0]]
        self.current = _Slot(number)
        return done

    @property
    def start_s(self) -> float:
        """Where a window that ends now begins: with the slot that holds the instant now - w."""
        return (self.current.number - _SLOTS) * self._ticks / _TICKS_PER_S


class LatencyRecorder:
    """Counts every request's three durations. One owner (the event loop), no locks.

    What a window means: "the last w seconds" begins at the start of the slot that holds the
    instant now - w, and ends now, the slot being filled included. Slots are a tenth of their
    window (0.1 s, 1 s, 6 s, 30 s); a window therefore covers between w and 1.1 w, and the rate is
    divided by the time really covered. So a steady rate reads steady at every instant: it neither
    dips when a slot begins nor lags by a slot. Time before `started` is not counted as silence,
    but a rate is never taken over less than a second.

    A record costs three logarithms and three dictionary increments (0.5-1 us, see
    `tests/benchmarks/bench_statistics.py`), and ten times a second folds a slot into the next
    coarser one. Before the first record nothing is allocated; then at most 44 slots, each with
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
        """One stage over the window that ends at `now`; costs a few hundred microseconds when busy.

        Raises:
            ValueError: no such stage or window.
        """
        index, ring_index = _stage_index(stage), _window_index(window_s)
        if not self._rings:
            return LatencySummary(window_s, 0, 0.0, 0.0, 0.0, 0.0, 0.0)
        self._advance(now)
        ring = self._rings[ring_index]
        slots = [*ring.closed, *(finer.current for finer in self._rings[: ring_index + 1])]
        covered_s = max(1.0, now - max(ring.start_s, self._started))
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
        self._rings = tuple(_Ring(window_s, tick) for window_s in WINDOWS_S)


def _stage_index(stage: Stage) -> int:
    if stage not in STAGES:
        raise ValueError(f"unknown stage '{stage}', expected one of {', '.join(STAGES)}")
    return STAGES.index(stage)


def _window_index(window_s: float) -> int:
    if window_s not in WINDOWS_S:
        expected = ", ".join(map(str, WINDOWS_S))
        raise ValueError(f"no window of {window_s:g} s is kept, expected one of {expected}")
    return WINDOWS_S.index(int(window_s))


def _merged(slots: Iterable[_Slot], stage_index: int) -> Counts:
    merged: defaultdict[int, int] = defaultdict(int)
    for slot in slots:
        for bucket, count in slot.counts[stage_index].items():
            merged[bucket] += count
    return merged


def _summarize(
    slots: list[_Slot], stage_index: int, window_s: float, covered_s: float
) -> LatencySummary:
    counts = [slot.counts[stage_index] for slot in slots]
    count = sum(sum(in_slot.values()) for in_slot in counts)
    if not count:
        return LatencySummary(window_s, 0, 0.0, 0.0, 0.0, 0.0, 0.0)
    max_s = max(slot.maxima[stage_index] for slot in slots)
    # A bucket's value may lie above the largest duration in it; the maximum is known exactly.
    p50, p95, p99 = (min(value_s, max_s) for value_s in quantiles_s(counts, (50, 95, 99)))
    return LatencySummary(window_s, count, count / covered_s, p50, p95, p99, max_s)
