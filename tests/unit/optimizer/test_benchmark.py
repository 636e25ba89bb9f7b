from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from optimizer.artifact import Artifact
from optimizer.benchmark import Benchmark, Entry, Measured, Turn, batch_sizes, budget_s, measure
from optimizer.candidate import SIGNIFICANT
from optimizer.errors import Unavailable
from optimizer.goal import Goal
from optimizer.race import Clock
from optimizer.runner import Runner
from optimizer.samples import Samples
from protos.signature import Signature, TensorSpec
from protos.tensors import Array

SIGNATURE = Signature((TensorSpec("x", "FP32", ("n", 2)),), (TensorSpec("y", "FP32", ("n", 2)),))
SAMPLES = Samples({"x": np.ones((5, 2), np.float32)})
TIMES = Callable[[int], float]


class FakeTime:
    """A clock that stands still unless somebody works or sleeps."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.clock = Clock(lambda: self.now_s, self.pass_)

    def pass_(self, seconds: float) -> None:
        self.now_s += seconds


class FakeRunner:
    """Takes as long as it is told for a batch."""

    signature = SIGNATURE
    threads = 1

    def __init__(self, time: FakeTime, seconds: TIMES) -> None:
        self._time, self._seconds = time, seconds
        self.batches: list[int] = []
        self.is_closed = False

    def run(self, inputs: Mapping[str, Array], output_names: Sequence[str]) -> list[Array]:
        rows = len(inputs["x"])
        self.batches.append(rows)
        self._time.pass_(self._seconds(rows))
        return [inputs["x"]]

    def close(self) -> None:
        self.is_closed = True


class Bench:
    """Measures fake runners by name."""

    def __init__(self, **seconds: TIMES) -> None:
        self.time = FakeTime()
        self.runners = {name: FakeRunner(self.time, s) for name, s in seconds.items()}
        self.turns: list[Turn] = []
        self.entries = [
            Entry(name, Artifact(Path(), name, "onnxruntime", name), 1) for name in seconds
        ]

    def open(self, artifact: Artifact, threads: int) -> Runner:
        return self.runners[artifact.file]

    def run(self, goal: Goal, memory_mb: int = 0) -> Benchmark:
        return measure(
            self.entries, SAMPLES, goal, self.open, baseline="original", memory_mb=memory_mb,
            listener=self.turns.append, clock=self.time.clock,
        )  # fmt: skip


def of(found: Benchmark, name: str) -> Measured:
    return next(entry for entry in found.entries if entry.name == name)


GOAL = Goal(benchmark_s=40, iterations=1000, warmup_iterations=10)


@pytest.fixture(autouse=True)
def _sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of no size: nothing is on disk."""
    monkeypatch.setattr(Artifact, "size_bytes", property(lambda self: 40 * 2**20))


def test_fast_ones_run_as_often_as_wanted() -> None:
    bench = Bench(original=lambda n: 1e-4 * n, fast=lambda n: 0.9e-4 * n)
    found = bench.run(GOAL)
    timing = of(found, "fast").timings[0]
    assert timing.samples >= 1000
    assert timing.min_s == pytest.approx(0.9e-4)
    assert timing.p99_s == pytest.approx(0.9e-4)
    assert [t.batch for t in of(found, "fast").timings] == [1, 16, 32, 64]


def test_they_run_in_turns() -> None:
    bench = Bench(original=lambda n: 1e-3, fast=lambda n: 0.9e-3)
    bench.run(GOAL)
    first = [turn.name for turn in bench.turns if turn.batch == 1][2:]  # behind the warm-up
    rounds = [first[start : start + 2] for start in range(0, 12, 2)]
    assert all(sorted(names) == ["fast", "original"] for names in rounds)
    assert len({tuple(names) for names in rounds}) == 2  # not always in the same order


def test_slow_ones_run_less_often_and_the_time_is_kept() -> None:
    bench = Bench(original=lambda n: 0.04 * n, fast=lambda n: 0.035 * n)
    found = bench.run(GOAL)
    samples = [timing.samples for timing in of(found, "fast").timings]
    assert samples == sorted(samples, reverse=True)
    assert samples[-1] < 10
    assert bench.time.now_s < 1.7 * GOAL.benchmark_s


def test_who_is_twice_behind_is_only_looked_at_after_one_round() -> None:
    bench = Bench(original=lambda n: 1e-3, hopeless=lambda n: 2.5e-3)
    found = bench.run(GOAL)
    hopeless = of(found, "hopeless")
    assert hopeless.dropped == "2.5 times the best one's time at batch 1"
    assert hopeless.timings[0].samples < of(found, "original").timings[0].samples / 3


def test_who_was_disturbed_in_the_first_rounds_is_measured_when_it_no_longer_is() -> None:
    bench = Bench(original=lambda n: 1e-3, best=lambda n: 0.0)

    def per_block(n: int) -> float:
        turns = [turn for turn in bench.turns if turn.name == "best" and turn.batch]
        return 5e-3 if len(turns) <= 3 else 0.5e-3

    bench.runners["best"] = FakeRunner(bench.time, per_block)
    best = of(bench.run(replace(GOAL, batch_sizes=(1,))), "best")
    assert not best.dropped
    assert best.timings[0].samples > 300
    assert best.timings[0].steady_s == pytest.approx(0.5e-3)


def test_percentiles_are_completed_in_turns() -> None:
    """One disturbed block must not be most of what the baseline's median is made of."""
    bench = Bench(original=lambda n: 0.07, fast=lambda n: 0.05)
    bench.run(Goal(benchmark_s=40, batch_sizes=(1,)))
    last = [turn.name for turn in bench.turns][-4:]
    assert sorted(last[:2]) == sorted(last[2:]) == ["fast", "original"]


def test_few_runs_that_may_have_been_disturbed_give_nobody_up() -> None:
    runs = 0

    def disturbed_at_first(n: int) -> float:
        nonlocal runs
        runs += 1
        return 2.0 if runs < 3 else 0.3

    bench = Bench(original=lambda n: 0.4, unlucky=disturbed_at_first)
    found = bench.run(Goal(benchmark_s=20, batch_sizes=(1,)))
    assert not of(found, "unlucky").dropped
    assert of(found, "unlucky").timings[0].min_s == pytest.approx(0.3)


def test_the_baseline_is_never_given_up() -> None:
    found = Bench(original=lambda n: 9e-3, fast=lambda n: 1e-3).run(GOAL)
    assert not of(found, "original").dropped
    assert of(found, "original").timings[0].samples >= SIGNIFICANT


def test_who_is_behind_at_one_size_only_is_not_dropped() -> None:
    bench = Bench(original=lambda n: 1e-3 * n, large=lambda n: 5e-3 + 1e-4 * n)
    assert not of(bench.run(GOAL), "large").dropped


def test_a_size_that_takes_too_long_is_measured_for_the_best_only() -> None:
    slow: dict[str, TIMES] = {f"slow{i}": lambda n: 0.20 * n for i in range(6)}
    bench = Bench(original=lambda n: 0.19 * n, best=lambda n: 0.12 * n, **slow)
    found = bench.run(Goal(benchmark_s=40, batch_sizes=(1, 64)))
    assert len(of(found, "best").timings) == 2
    assert sum(len(entry.timings) == 2 for entry in found.entries) == 3


def test_percentiles_of_the_best_come_from_enough_runs() -> None:
    bench = Bench(original=lambda n: 0.05, fast=lambda n: 0.03)
    found = bench.run(Goal(benchmark_s=40, batch_sizes=(1,)))
    assert of(found, "fast").timings[0].samples >= SIGNIFICANT


def test_noise_of_one_block_does_not_change_the_minimum() -> None:
    time = {"runs": 0}

    def noisy(n: int) -> float:
        time["runs"] += 1
        return 2e-3 if time["runs"] % 3 else 1e-3

    found = Bench(original=noisy).run(GOAL)
    timing = of(found, "original").timings[0]
    assert timing.min_s == pytest.approx(1e-3)
    assert timing.p50_s == pytest.approx(2e-3)


def test_who_fails_is_told_and_the_others_go_on() -> None:
    def fails(n: int) -> float:
        if n > 1:
            raise ValueError("too many rows")
        return 1e-3

    bench = Bench(original=lambda n: 1e-3, broken=fails)
    found = bench.run(GOAL)
    assert of(found, "broken").failed == "batch 16: too many rows"
    assert len(of(found, "original").timings) == 4


def test_batches_that_the_original_does_not_take_are_nobodys_fault() -> None:
    def takes_few(n: int) -> float:
        if n > 16:
            raise ValueError("too many rows")
        return 1e-3

    bench = Bench(original=takes_few, alike=takes_few, able=lambda n: 1e-3)
    found = bench.run(GOAL)
    assert [entry.failed for entry in found.entries] == [""] * 3
    assert [timing.batch for timing in of(found, "original").timings] == [1, 16]
    assert [timing.batch for timing in of(found, "alike").timings] == [1, 16]


def test_who_cannot_be_opened_is_told() -> None:
    bench = Bench(original=lambda n: 1e-3, absent=lambda n: 1e-3)

    def opener(artifact: Artifact, threads: int) -> Runner:
        if artifact.file == "absent":
            raise Unavailable("no CUDA here")
        return bench.open(artifact, threads)

    found = measure(
        bench.entries, SAMPLES, GOAL, opener, baseline="original", clock=bench.time.clock
    )
    assert of(found, "absent").failed == "cannot be opened: no CUDA here"
    assert of(found, "original").timings


def test_all_are_closed() -> None:
    bench = Bench(original=lambda n: 1e-3, fast=lambda n: 1e-3)
    bench.run(GOAL)
    assert all(runner.is_closed for runner in bench.runners.values())


def test_what_does_not_fit_into_memory_is_measured_in_groups_with_the_baseline() -> None:
    bench = Bench(original=lambda n: 1e-3, a=lambda n: 1e-3, b=lambda n: 1e-3)
    found = bench.run(GOAL, memory_mb=320)
    opened = [turn.name for turn in bench.turns if turn.batch == 0]
    assert opened == ["original", "a", "original", "b"]
    assert [entry.name for entry in found.entries] == ["original", "a", "b"]
    assert bench.turns[-1].part > 0.5


def test_throughput_runs_side_by_side_and_counts_rows() -> None:
    bench = Bench(original=lambda n: 1e-3)
    found = bench.run(Goal(objective="throughput", threads=2, benchmark_s=1, iterations=20))
    assert all(timing.rows_per_s > 0 for timing in of(found, "original").timings)


def test_what_the_machine_did_beside_is_recorded() -> None:
    found = Bench(original=lambda n: 1e-3).run(GOAL)
    assert found.load_before >= 0
    assert found.seconds > 0


def test_quick_takes_little_time() -> None:
    assert budget_s(Goal(is_quick=True)) < budget_s(Goal())


@pytest.mark.parametrize(
    ("goal", "leading", "sizes"),
    [
        pytest.param(Goal(), "n", (1, 16, 32, 64), id="defaults"),
        pytest.param(Goal(is_quick=True), "n", (1, 32), id="quick"),
        pytest.param(Goal(max_batch=20), "n", (1, 16), id="no more than are served"),
        pytest.param(Goal(batch_sizes=(64,), max_batch=8), "n", (64,), id="at least one"),
        pytest.param(Goal(), 4, (4,), id="a fixed batch"),
    ],
)
def test_batch_sizes(goal: Goal, leading: int | str, sizes: tuple[int, ...]) -> None:
    signature = Signature((TensorSpec("x", "FP32", (leading, 2)),), ())
    assert batch_sizes(goal, signature) == sizes
