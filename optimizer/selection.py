"""Chooses the winner: pure, from what was measured to a choice with its reasons in words.

Ranked by minima: on a shared machine they name the same winner again and again where medians do
not. That the winner beats the baseline at all has to be true of what a run usually takes, too: the
median of the block that was disturbed least. What people are told is the median of all runs.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from math import isqrt

from optimizer.candidate import Outcome, State, Timing, Verdict
from optimizer.goal import Goal

NOISE = 0.05
"""Differences below are ties: repeated runs of the same candidate differ by as much."""
REGIME_GAIN = 0.15
"""What a second winner for large batches has to save at least, as it takes memory of its own."""
MOST_REGIME_GAIN = 0.30
"""What suffices however much a second winner adds to the size."""
_NEARLY_ALL = -0.985
_FEWEST_SAMPLES = 3  # runs, of which not all are disturbed: no second winner for less
_SCORE_DIGITS = 3  # of scores that count as different


@dataclass(frozen=True, slots=True)
class Regime:
    """Who answers batches of up to so many rows."""

    max_rows: int | None  # None: any number
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Selection:
    """The choice. Rejected when nothing beats the baseline: it has no regimes then."""

    regimes: tuple[Regime, ...]  # ascending by rows; one where the winner wins everywhere
    reason: str

    @property
    def is_rejected(self) -> bool:
        return not self.regimes

    @property
    def winner(self) -> Outcome | None:
        """Who answers the smallest batches."""
        return self.regimes[0].outcome if self.regimes else None


@dataclass(frozen=True, slots=True)
class _Cost:
    """What the objective counts, in seconds per row or run; lower is better."""

    minimum: float
    usual: float
    median: float

    def beats(self, other: "_Cost", margin: float = NOISE) -> bool:
        return self.minimum < other.minimum * (1 - margin) and self.usual < other.usual

    def times(self, factor: float) -> "_Cost":
        return _Cost(self.minimum * factor, self.usual * factor, self.median * factor)

    def plus(self, other: "_Cost") -> "_Cost":
        return _Cost(
            self.minimum + other.minimum, self.usual + other.usual, self.median + other.median
        )


def select(outcomes: Sequence[Outcome], goal: Goal, baseline: Outcome) -> Selection:
    """The fastest acceptable outcome for the objective, or two by batch size.

    `baseline` is one that was measured; it is always acceptable.
    """
    able = [outcome for outcome in outcomes if is_acceptable(outcome, goal) and outcome.timings]
    able = [outcome for outcome in able if outcome.candidate != baseline.candidate]
    winner = _winner(able, goal, baseline)
    small = winner or baseline
    large = _large(able, small, baseline)
    if large is not None and large.is_as_fast_before:
        reason = f"{_reason(large.outcome, goal, baseline)}; {_at_most(large.outcome, small)}"
        return Selection((Regime(None, large.outcome),), reason)
    if large is not None and _is_worth_its_size(large.outcome, small, baseline):
        first, other = Regime(large.max_rows, small), Regime(None, large.outcome)
        return Selection((first, other), _reason_of_two(first, other, baseline, goal))
    if winner is None:
        return Selection((), _why_rejected(able, goal, baseline))
    return Selection((Regime(None, winner),), _reason(winner, goal, baseline))


def is_acceptable(outcome: Outcome, goal: Goal) -> bool:
    """Whether an outcome may win: measured, and found to answer as the original does."""
    if outcome.state is not State.MEASURED:
        return False
    if goal.lossless_only and not outcome.candidate.is_lossless:
        return False
    return outcome.verdict is not None and outcome.verdict.is_accepted


def _winner(able: Sequence[Outcome], goal: Goal, baseline: Outcome) -> Outcome | None:
    original = _cost(baseline, goal)
    if original is None:
        return None
    costs = [(outcome, cost) for outcome in able if (cost := _cost(outcome, goal))]
    return _best([(outcome, cost) for outcome, cost in costs if cost.beats(original)])


def _best(costs: Sequence[tuple[Outcome, _Cost]]) -> Outcome | None:
    """The fastest; of those within the noise of it the most accurate, then the smallest."""
    if not costs:
        return None
    fastest = min(cost.minimum for _, cost in costs)
    ties = [(o, cost) for o, cost in costs if cost.minimum * (1 - NOISE) <= fastest]
    return min(ties, key=lambda tie: (-_score(tie[0]), tie[0].size_bytes, tie[1].minimum))[0]


def _score(outcome: Outcome) -> float:
    """More than the original's is luck: no merit that others may be measured by."""
    return min(1.0, round(outcome.verdict.score, _SCORE_DIGITS)) if outcome.verdict else 1.0


def _cost(outcome: Outcome, goal: Goal) -> _Cost | None:
    if not outcome.timings:
        return None
    match goal.objective:
        case "throughput":
            per_row = min(1 / timing.rows_per_s for timing in outcome.timings)
            return _Cost(per_row, per_row, per_row)
        case "mix" if goal.batch_mix:
            return _mixed(outcome, goal)
        case _:
            return _at(outcome, min(timing.batch for timing in outcome.timings))


def _mixed(outcome: Outcome, goal: Goal) -> _Cost:
    """Seconds of an average request: batches weighted by how often they come."""
    total = sum(goal.batch_mix.values())
    parts = [
        _interpolated(outcome, rows).times(share / total) for rows, share in goal.batch_mix.items()
    ]
    return reduce(_Cost.plus, parts)


def _interpolated(outcome: Outcome, rows: int) -> _Cost:
    """The cost of a batch between those that were measured, in proportion; beyond them by rows."""
    timings = sorted(outcome.timings, key=lambda timing: timing.batch)
    below = [timing for timing in timings if timing.batch <= rows] or timings[:1]
    above = [timing for timing in timings if timing.batch >= rows] or timings[-1:]
    low, high = below[-1], above[0]
    if low.batch == high.batch:
        return _cost_of(low).times(max(1.0, rows / low.batch))
    part = (rows - low.batch) / (high.batch - low.batch)
    return _cost_of(low).times(1 - part).plus(_cost_of(high).times(part))


def _at(outcome: Outcome, batch: int) -> _Cost | None:
    timing = outcome.timing(batch)
    return _cost_of(timing) if timing else None


def _cost_of(timing: Timing) -> _Cost:
    return _Cost(timing.min_s, timing.undisturbed_s, timing.p50_s)


@dataclass(frozen=True, slots=True)
class _Large:
    """A second winner, and the largest batch that is still left to the first."""

    max_rows: int
    outcome: Outcome
    is_as_fast_before: bool  # as the first winner, within the noise: then that is not needed


def _large(able: Sequence[Outcome], small: Outcome, baseline: Outcome) -> _Large | None:
    """Who answers large batches so much faster than `small` that it pays to keep both."""
    batches = sorted(timing.batch for timing in baseline.timings)
    found = [
        (outcome, begin)
        for outcome in (*able, baseline)
        if outcome.candidate != small.candidate
        and (begin := _pays_from(outcome, small, batches)) is not None
    ]
    costs = [(outcome, cost) for outcome, _ in found if (cost := _at(outcome, batches[-1]))]
    best = _best(costs)
    if best is None:
        return None
    begin = next(begin for outcome, begin in found if outcome is best)
    pairs = [(_at(best, batch), _at(small, batch)) for batch in batches[:begin]]
    is_as_fast = best.candidate != baseline.candidate and all(
        own is not None and other is not None and own.minimum * (1 - NOISE) <= other.minimum
        for own, other in pairs
    )
    # Where between two measured sizes the lines cross is not known: half way, in proportion.
    return _Large(isqrt(batches[begin - 1] * batches[begin]), best, is_as_fast)


def _is_worth_its_size(large: Outcome, small: Outcome, baseline: Outcome) -> bool:
    """Whether a second winner saves as much time as it adds to the size, each as a share.

    The original adds nothing: it is kept in any case.
    """
    batch = max(timing.batch for timing in large.timings)
    own, other = large.timing(batch), small.timing(batch)
    if large.candidate == baseline.candidate or own is None or other is None:
        return True
    added = large.size_bytes / max(1, baseline.size_bytes)
    return 1 - own.min_s / other.min_s >= min(MOST_REGIME_GAIN, max(REGIME_GAIN, added))


def _pays_from(outcome: Outcome, small: Outcome, batches: Sequence[int]) -> int | None:
    """The index of the first batch from which on `outcome` saves enough at every batch."""
    first: int | None = None
    for index in range(len(batches) - 1, 0, -1):
        own, other = outcome.timing(batches[index]), small.timing(batches[index])
        if own is None or not _saves_enough(own, other):
            break
        first = index
    return first


def _saves_enough(own: Timing, other: Timing | None) -> bool:
    if other is None:
        return True  # that one was too slow to be measured
    if min(own.samples, other.samples) < _FEWEST_SAMPLES:
        return False
    return _cost_of(own).beats(_cost_of(other), REGIME_GAIN)


def _why_rejected(able: Sequence[Outcome], goal: Goal, baseline: Outcome) -> str:
    if not baseline.timings:
        return f"'{baseline.candidate.name}' could not be measured: {baseline.reason}"
    costs = [(cost.minimum, outcome) for outcome in able if (cost := _cost(outcome, goal))]
    if not costs:
        return "no candidate was built, accepted and measured: the original stays"
    minimum, best = min(costs, key=lambda pair: pair[0])
    original = _cost(baseline, goal) or _Cost(minimum, minimum, minimum)
    change = minimum / original.minimum - 1
    return (
        f"nothing beats '{baseline.candidate.name}' by more than the noise of {NOISE:.0%}; the"
        f" closest is '{best.candidate.name}': {change:+.0%} in the fastest run"
    )


def _reason(winner: Outcome, goal: Goal, baseline: Outcome) -> str:
    praise = [*_praise(winner, goal, baseline), *_sizes(winner.size_bytes, baseline)]
    return f"'{winner.candidate.name}': {', '.join(praise)}"


def _reason_of_two(small: Regime, large: Regime, baseline: Outcome, goal: Goal) -> str:
    first, second = (f"'{regime.outcome.candidate.name}'" for regime in (small, large))
    if small.outcome.candidate == baseline.candidate:
        first = f"{first}, which nothing beats there"
    else:
        first = f"{first}: {', '.join(_praise(small.outcome, goal, baseline))}"
    second = f"{second}, {_at_most(large.outcome, small.outcome)}"
    if large.outcome.candidate != baseline.candidate and large.outcome.verdict is not None:
        second = f"{second}, {_answers(large.outcome.verdict)}"
    both = small.outcome.size_bytes + large.outcome.size_bytes
    sizes = "".join(f"; together, {size}" for size in _sizes(both, baseline))
    return f"up to {small.max_rows} rows {first}; beyond, {second}{sizes}"


def _at_most(outcome: Outcome, other: Outcome) -> str:
    """How the two compare at the largest batch."""
    batch = max(timing.batch for timing in outcome.timings)
    own, others = outcome.timing(batch), other.timing(batch)
    if own is None or others is None:
        return f"as '{other.candidate.name}' is too slow to be measured at batch {batch}"
    return f"{_change(own.p50_s, others.p50_s)} at batch {batch}"


def _praise(winner: Outcome, goal: Goal, baseline: Outcome) -> Iterator[str]:
    yield _figures(winner, goal, baseline)
    if winner.verdict is not None:
        yield _answers(winner.verdict)


def _sizes(size_bytes: int, baseline: Outcome) -> Iterator[str]:
    if size_bytes and baseline.size_bytes:
        change = size_bytes / baseline.size_bytes - 1
        sizes = f"{_megabytes(baseline.size_bytes)} -> {_megabytes(size_bytes)} MB"
        yield f"size {change:+.0%} ({sizes})"


def _answers(verdict: Verdict) -> str:
    is_same = verdict.metric == "exact"
    if verdict.optimized is not None and verdict.original is not None:
        figures = f"{verdict.optimized:.4f} (original {verdict.original:.4f})"
        return (
            f"same answers, on the labels {figures}" if is_same else f"{verdict.metric} {figures}"
        )
    if is_same:
        return "same answers up to rounding"
    return f"{verdict.metric} {verdict.score:.4f} of {verdict.threshold:g} asked"


def _figures(outcome: Outcome, goal: Goal, baseline: Outcome) -> str:
    if goal.objective == "throughput":
        own, other = _most_rows(outcome.timings), _most_rows(baseline.timings)
        change = own.rows_per_s / other.rows_per_s - 1
        return (
            f"{change:+.0%} rows/s ({other.rows_per_s:.0f} at batch {other.batch} ->"
            f" {own.rows_per_s:.0f} at batch {own.batch})"
        )
    if goal.objective == "mix" and goal.batch_mix:
        mixed, before = _mixed(outcome, goal), _mixed(baseline, goal)
        return f"{_change(mixed.median, before.median)} for the mix of batches"
    batch = min(timing.batch for timing in baseline.timings)
    first, second = outcome.timing(batch), baseline.timing(batch)
    if first is None or second is None:
        return f"not measured at batch {batch}"
    return f"{_change(first.p50_s, second.p50_s)} at batch {batch}"


def _change(own_s: float, other_s: float) -> str:
    change = own_s / other_s - 1
    digits = 1 if change < _NEARLY_ALL else 0  # "-100%" would be no time at all
    return f"{change:+.{digits}%} median time ({other_s * 1e3:.3g} -> {own_s * 1e3:.3g} ms)"


def _most_rows(timings: Iterable[Timing]) -> Timing:
    return max(timings, key=lambda timing: timing.rows_per_s)


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.3g}"
