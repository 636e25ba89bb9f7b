"""The curve and the choice of the largest batch, on a clock that only the model moves."""

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from protos.tensors import Array
from server.latency_curve import choose, measure, sizes
from server.probe import CurvePoint

Cost = Callable[[int], float]


class Machine:
    """A model that takes `cost(rows)` seconds of a clock of its own."""

    def __init__(self, cost: Cost, fails_from: int = 10**9) -> None:
        self.now = 0.0
        self.runs: list[int] = []
        self._cost, self._fails_from = cost, fails_from

    def clock(self) -> float:
        return self.now

    def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        rows = len(inputs["x"])
        if rows >= self._fails_from:
            raise MemoryError(f"{rows} rows")
        self.runs.append(rows)
        self.now += self._cost(rows)
        return inputs

    def curve(self, limit: int = 64, budget_s: float = 1.5) -> tuple[CurvePoint, ...]:
        def make(rows: int) -> Mapping[str, Array]:
            return {"x": np.zeros(rows)}

        return measure(self.run, make, limit, budget_s, self.clock)


def batches(curve: tuple[CurvePoint, ...]) -> list[int]:
    return [point.batch for point in curve]


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(1, [1]), (2, [1, 2]), (33, [1, 2, 4, 8, 16, 32, 33]), (8, [1, 2, 4, 8])],
)
def test_sizes_double_up_to_the_limit(limit: int, expected: list[int]) -> None:
    assert sizes(limit) == expected


CASES: dict[str, tuple[Cost, list[int], int]] = {
    "grows all the way": (lambda n: 1e-4 + n * 1e-6, [1, 2, 4, 8, 16, 32, 64], 64),
    "never grows": (lambda n: n * 1e-3, [1, 2, 4], 1),
    "grows, then falls": (lambda n: (1 + n if n <= 4 else 3 * n) * 1e-3, [1, 2, 4, 8, 16], 4),
    "a dip is looked past": (
        lambda n: {1: 1.0, 2: 2.2, 4: 2.0, 8: 8.0, 16: 16.0}[n] * 1e-3,
        [1, 2, 4, 8, 16],
        4,
    ),
    "2 percent is no growth": (lambda n: n * 1e-3 / (1 + 0.02 * (n > 1)), [1, 2, 4], 1),
}


@pytest.mark.parametrize(("cost", "measured", "chosen"), CASES.values(), ids=CASES)
def test_largest_batch_is_where_throughput_stops_growing(
    cost: Cost, measured: list[int], chosen: int
) -> None:
    curve = Machine(cost).curve()
    assert batches(curve) == measured
    assert choose(curve, 64)[0] == chosen


def test_the_choice_is_never_slower_than_batch_1() -> None:
    for factor in (0.9, 1.0, 1.1, 1.5):
        curve = Machine(lambda n, factor=factor: n**factor * 1e-4).curve()  # type: ignore[misc]
        chosen = choose(curve, 64)[0]
        throughput = {point.batch: point.rows_per_s for point in curve}
        assert throughput[chosen] * 1.03 >= throughput[1]


def test_slow_models_end_within_their_budget() -> None:
    machine = Machine(lambda n: 0.05 * n)
    machine.curve(budget_s=1.5)
    assert machine.now <= 1.5
    crawling = Machine(lambda n: 10.0)
    assert batches(crawling.curve(budget_s=1.5)) == [1]
    assert len(crawling.runs) == 2


def test_quick_models_are_not_run_for_the_whole_budget() -> None:
    machine = Machine(lambda n: 1e-6)
    machine.curve(budget_s=1.5)
    assert len(machine.runs) == 7 * 21


def test_a_size_that_fails_ends_the_curve() -> None:
    curve = Machine(lambda n: 1e-4, fails_from=16).curve()
    assert batches(curve) == [1, 2, 4, 8]
    with pytest.raises(MemoryError):
        Machine(lambda n: 1e-4, fails_from=1).curve()


def test_median_and_fastest_are_both_kept() -> None:
    durations = iter([9.0, 1.0, 5.0, 3.0])
    point = Machine(lambda n: next(durations)).curve(limit=1, budget_s=1.5)[0]
    assert (point.latency_s, point.fastest_s) == (1.0, 1.0)  # one run was all the time there was


@pytest.mark.parametrize(
    ("curve", "limit", "reason"),
    [
        (
            [(1, 1e-3), (2, 1e-3)],
            2,
            "throughput grows up to the limit of 2: 2,000 rows/s at batch 2",
        ),
        ([(1, 1e-3), (2, 1e-3)], 64, "the largest batch that could be measured"),
        ([(1, 1e-3), (2, 2e-3)], 64, "1,000 rows/s at batch 1; larger gains nothing: 1,000 rows/s"),
    ],
)
def test_the_reason_holds_the_numbers(
    curve: list[tuple[int, float]], limit: int, reason: str
) -> None:
    points = tuple(CurvePoint(batch, latency, latency) for batch, latency in curve)
    assert choose(points, limit)[1].startswith(reason)
