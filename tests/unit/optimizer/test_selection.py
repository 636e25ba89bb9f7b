from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from optimizer.candidate import Candidate, Outcome, State, Timing, Verdict
from optimizer.goal import Goal
from optimizer.selection import Selection, select

BASELINE = "original"


def timing(batch: int, ms: float, median_ms: float = 0.0) -> Timing:
    seconds, p50 = ms / 1e3, (median_ms or ms * 1.05) / 1e3
    return Timing(batch, 300, seconds, p50, p50 * 1.2, p50 * 1.5, batch / p50)


def outcome(
    name: str,
    times: Mapping[int, float],
    *,
    score: float = 1.0,
    accepted: bool = True,
    size: int = 1000,
    state: State = State.MEASURED,
    lossless: bool = True,
) -> Outcome:
    return Outcome(
        Candidate(name, (), "onnxruntime", is_lossless=lossless),
        state,
        size_bytes=size,
        verdict=Verdict(accepted, "top1", score, 0.99),
        timings=tuple(timing(batch, ms) for batch, ms in times.items()),
    )


def choose(*outcomes: Outcome, goal: Goal | None = None) -> Selection:
    original = outcome(BASELINE, {1: 10.0, 16: 100.0, 32: 200.0})
    return select([original, *outcomes], goal or Goal(), original)


def name_of(selection: Selection) -> str:
    return selection.winner.candidate.name if selection.winner else ""


def test_the_fastest_wins() -> None:
    chosen = choose(
        outcome("slow", {1: 8.0, 16: 80.0, 32: 160.0}),
        outcome("fast", {1: 4.0, 16: 40.0, 32: 80.0}),
    )
    assert name_of(chosen) == "fast"
    assert not chosen.is_rejected
    assert "-60% median time (10.5 -> 4.2 ms) at batch 1" in chosen.reason


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(outcome("x", {1: 1.0}, accepted=False), id="refused by the gate"),
        pytest.param(outcome("x", {1: 1.0}, state=State.FAILED), id="failed"),
        pytest.param(outcome("x", {1: 1.0}, state=State.DROPPED), id="dropped"),
        pytest.param(replace(outcome("x", {1: 1.0}), verdict=None), id="never validated"),
        pytest.param(outcome("x", {}), id="not measured"),
    ],
)
def test_what_is_not_acceptable_never_wins(other: Outcome) -> None:
    assert choose(other).is_rejected


def test_lossy_ones_do_not_win_where_only_lossless_may() -> None:
    lossy = outcome("lossy", {1: 1.0, 16: 10.0, 32: 20.0}, lossless=False)
    assert choose(lossy, goal=Goal(lossless_only=True)).is_rejected
    assert name_of(choose(lossy)) == "lossy"


def test_a_gain_within_the_noise_is_no_gain() -> None:
    chosen = choose(outcome("close", {1: 9.7, 16: 98.0, 32: 195.0}))
    assert chosen.is_rejected
    assert chosen.winner is None
    assert "nothing beats 'original'" in chosen.reason
    assert "'close': -3% in the fastest run" in chosen.reason


def test_a_median_worse_than_the_baselines_is_no_gain() -> None:
    lucky = replace(outcome("lucky", {}), timings=(timing(1, 5.0, median_ms=30.0),))
    assert choose(lucky).is_rejected


def test_a_median_that_was_disturbed_does_not_hide_a_gain() -> None:
    point = replace(timing(1, 5.0, median_ms=50.0), steady_s=5.2e-3)
    chosen = choose(replace(outcome("unlucky", {}), timings=(point,)))
    assert name_of(chosen) == "unlucky"
    assert "+376% median time" in chosen.reason  # what was measured, all the same


def test_more_accuracy_than_the_original_has_is_no_merit() -> None:
    lossy = outcome("a", {1: 4.0}, score=1.01, size=900)
    assert name_of(choose(lossy, outcome("b", {1: 4.1}, score=1.0, size=300))) == "b"


@pytest.mark.parametrize(
    ("first", "second", "winner"),
    [
        pytest.param(
            outcome("a", {1: 4.0}, score=0.991),
            outcome("b", {1: 4.1}, score=1.0),
            "b",
            id="a tie goes to the more accurate",
        ),
        pytest.param(
            outcome("a", {1: 4.0}, size=900),
            outcome("b", {1: 4.1}, size=300),
            "b",
            id="then to the smaller",
        ),
        pytest.param(
            outcome("a", {1: 4.0}, score=0.9997),
            outcome("b", {1: 4.1}, score=0.9999, size=2000),
            "a",
            id="scores that differ in the fourth digit are equal",
        ),
        pytest.param(
            outcome("a", {1: 4.0}, score=0.991),
            outcome("b", {1: 4.4}, score=1.0),
            "a",
            id="beyond the noise the faster wins",
        ),
    ],
)
def test_ties(first: Outcome, second: Outcome, winner: str) -> None:
    assert name_of(choose(first, second)) == winner
    assert name_of(choose(second, first)) == winner


def test_throughput_counts_the_best_batch_of_each() -> None:
    goal = Goal(objective="throughput")
    chosen = choose(
        outcome("quick alone", {1: 4.0, 16: 95.0, 32: 190.0}),
        outcome("quick together", {1: 9.0, 16: 40.0, 32: 70.0}),
        goal=goal,
    )
    assert name_of(chosen) == "quick together"
    assert "rows/s" in chosen.reason


def test_a_mix_weighs_batches_by_how_often_they_come() -> None:
    alone = outcome("quick alone", {1: 4.0, 16: 95.0, 32: 190.0})
    together = outcome("quick together", {1: 9.0, 16: 40.0, 32: 70.0})
    mostly_one = Goal(objective="mix", batch_mix={1: 0.999, 32: 0.001})
    mostly_many = Goal(objective="mix", batch_mix={1: 0.1, 24: 0.9})
    assert name_of(choose(alone, together, goal=mostly_one)) == "quick alone"
    assert name_of(choose(alone, together, goal=mostly_many)) == "quick together"
    assert "for the mix of batches" in choose(alone, together, goal=mostly_many).reason


def test_a_mix_reaches_beyond_what_was_measured() -> None:
    goal = Goal(objective="mix", batch_mix={64: 1.0})
    chosen = choose(outcome("fast", {1: 9.9, 16: 40.0, 32: 70.0}), goal=goal)
    assert name_of(chosen) == "fast"


def test_large_batches_get_a_winner_of_their_own_where_it_pays() -> None:
    chosen = choose(
        outcome("small", {1: 4.0, 16: 60.0, 32: 190.0}),
        outcome("large", {1: 9.0, 16: 58.0, 32: 80.0}),
    )
    assert [regime.outcome.candidate.name for regime in chosen.regimes] == ["small", "large"]
    assert [regime.max_rows for regime in chosen.regimes] == [22, None]
    assert chosen.reason.startswith("up to 22 rows 'small'")
    assert "beyond, 'large', -58% median time (200 -> 84 ms) at batch 32" in chosen.reason
    assert chosen.reason.endswith("together, size +100% (0.001 -> 0.002 MB)")


def test_the_regime_begins_where_the_other_pays_from_then_on() -> None:
    chosen = choose(
        outcome("small", {1: 4.0, 16: 60.0, 32: 190.0}),
        outcome("large", {1: 9.0, 16: 40.0, 32: 80.0}),
    )
    assert chosen.regimes[0].max_rows == 4


def test_two_winners_that_do_not_pay_are_one() -> None:
    chosen = choose(
        outcome("small", {1: 4.0, 16: 60.0, 32: 90.0}),
        outcome("large", {1: 9.0, 16: 58.0, 32: 80.0}),
    )
    assert [regime.outcome.candidate.name for regime in chosen.regimes] == ["small"]


@pytest.mark.parametrize("small", [{1: 4.0, 16: 60.0, 32: 190.0}, {1: 9.9, 16: 99.0, 32: 190.0}])
def test_who_pays_for_large_batches_and_is_as_fast_for_small_ones_answers_all(
    small: dict[int, float],
) -> None:
    large = {1: small[1] * 1.02, 16: small[16] * 1.04, 32: 80.0}
    chosen = choose(outcome("small", small, score=1.0), outcome("large", large, score=0.995))
    assert [regime.outcome.candidate.name for regime in chosen.regimes] == ["large"]
    assert "at batch 32" in chosen.reason


@pytest.mark.parametrize(("size", "kept"), [(270, ["small"]), (200, ["small", "large"])])
def test_a_second_winner_has_to_be_worth_its_size(size: int, kept: list[str]) -> None:
    chosen = choose(
        outcome("small", {1: 4.0, 16: 60.0, 32: 100.0}, size=270),
        outcome("large", {1: 9.0, 16: 58.0, 32: 78.0}, size=size),
    )
    assert [regime.outcome.candidate.name for regime in chosen.regimes] == kept


def test_the_original_keeps_large_batches_where_it_is_faster_there() -> None:
    chosen = choose(outcome("trees", {1: 0.1, 16: 90.0, 32: 900.0}))
    names = [regime.outcome.candidate.name for regime in chosen.regimes]
    assert names == ["trees", BASELINE]


def test_who_is_too_slow_to_be_measured_at_large_batches_does_not_answer_them() -> None:
    chosen = choose(outcome("trees", {1: 0.1, 16: 90.0}))
    names = [regime.outcome.candidate.name for regime in chosen.regimes]
    assert names == ["trees", BASELINE]
    assert chosen.regimes[0].max_rows == 22
    assert "as 'trees' is too slow to be measured at batch 32" in chosen.reason


def test_a_run_or_two_at_large_batches_make_no_second_winner() -> None:
    small = outcome("small", {1: 4.0, 16: 60.0})
    disturbed = replace(timing(32, 1900.0), samples=1)
    chosen = choose(
        replace(small, timings=(*small.timings, disturbed)),
        outcome("large", {1: 9.0, 16: 70.0, 32: 180.0}),
    )
    assert [regime.outcome.candidate.name for regime in chosen.regimes] == ["small"]


def test_the_original_keeps_small_batches_where_nothing_beats_it_there() -> None:
    chosen = choose(outcome("large", {1: 12.0, 16: 50.0, 32: 80.0}))
    names = [regime.outcome.candidate.name for regime in chosen.regimes]
    assert names == [BASELINE, "large"]
    assert "which nothing beats there" in chosen.reason


def test_an_original_that_could_not_be_measured_is_said() -> None:
    original = replace(outcome(BASELINE, {}), state=State.FAILED, reason="batch 1: no memory")
    chosen = select([original, outcome("fast", {1: 1.0})], Goal(), original)
    assert chosen.reason == "'original' could not be measured: batch 1: no memory"


def test_nothing_measured_is_said() -> None:
    assert "the original stays" in choose().reason


def test_noisy_measurements_name_the_same_winner() -> None:
    """Minima scatter by 2 to 4 % from run to run: whoever is 12 % ahead wins every time."""
    random = np.random.default_rng(0)
    true = {"a": 5.0, "b": 4.4, "c": 6.0, "d": 5.6, "e": 5.05}

    def measured(name: str, ms: float) -> Outcome:
        factor = 1 + abs(random.normal(0, 0.02))
        noise = 1 + abs(random.normal(0, 0.3))
        point = timing(1, ms * factor, median_ms=ms * factor * noise)
        return replace(outcome(name, {}), timings=(point,))

    winners = {
        name_of(choose(*(measured(name, ms) for name, ms in true.items()))) for _ in range(200)
    }
    assert winners == {"b"}
