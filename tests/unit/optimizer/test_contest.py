from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from optimizer.artifact import Artifact
from optimizer.benchmark import Benchmark, Entry, Measured, Turn
from optimizer.candidate import Candidate, Outcome, State, Timing
from optimizer.contest import Contest, usual_threads
from optimizer.errors import StageFailed
from optimizer.goal import Goal
from optimizer.progress import Board
from tests.unit.optimizer.stage_stand_in import ACCEPTED, StandIn, case_in

Tell = Callable[[Turn], None]


def timing(ms: float) -> Timing:
    return Timing(1, 300, ms / 1e3, ms / 1e3, ms / 1e3, ms / 1e3, 1e3 / ms)


class Bench:
    """A contest of candidates whose times are said."""

    def __init__(self, folder: Path, goal: Goal | None = None, **ms: float) -> None:
        self.goal, self.ms = goal or Goal(), ms
        self.board = Board(lambda progress: None)
        self.board.add([self._outcome(name, folder) for name in ms])
        self.case = case_in(folder, self.goal)
        self.races: list[list[tuple[str, int]]] = []

    def run(self, measure: Callable[..., Benchmark] | None = None) -> None:
        stages = StandIn(self.goal, self.board, measure=measure or self.measure)
        self.load = Contest(self.case, stages, self.board, (65.0, 95.0)).run("original")

    def measure(self, *arguments: Any) -> Benchmark:
        entries: Sequence[Entry] = arguments[2]
        tell: Tell = arguments[-1]
        self.races.append([(entry.name, entry.threads) for entry in entries])
        found = []
        for entry in entries:
            tell(Turn(entry.name, 1, 0.5))
            found.append(Measured(entry.name, (timing(self.ms[entry.name]),)))
        return Benchmark(tuple(found), 0.5, 0.6, 1.0)

    @staticmethod
    def _outcome(name: str, folder: Path) -> Outcome:
        artifact = Artifact(folder, "model.onnx", "onnxruntime", name)
        candidate = Candidate(name, (), "onnxruntime", {}, ("graph",))
        return Outcome(candidate, State.MEASURING, artifact=artifact, verdict=ACCEPTED)


def test_all_are_measured_together(tmp_path: Path) -> None:
    bench = Bench(tmp_path, original=2.0, fast=1.0)
    bench.run()
    assert bench.races == [[("original", 1), ("fast", 1)]]
    assert {outcome.state for outcome in bench.board.outcomes} == {State.MEASURED}
    assert (bench.load.before, bench.load.after) == (0.5, 0.6)


def test_whoever_ends_the_process_is_left_out_and_the_others_are_measured(tmp_path: Path) -> None:
    bench = Bench(tmp_path, original=2.0, bad=1.0, fast=1.5)

    def measure(*arguments: Any) -> Benchmark:
        entries, tell = arguments[2], arguments[-1]
        if any(entry.name == "bad" for entry in entries):
            tell(Turn("original", 1, 0.1))
            tell(Turn("bad", 1, 0.2))
            raise StageFailed("measure was ended by SIGSEGV\nlast words")
        return bench.measure(*arguments)

    bench.run(measure)
    assert bench.board["bad"].state is State.FAILED
    assert bench.board["bad"].reason == "measure was ended by SIGSEGV"
    assert bench.board["fast"].state is State.MEASURED


def test_a_baseline_that_ends_the_process_ends_the_job(tmp_path: Path) -> None:
    def measure(*arguments: Any) -> Benchmark:
        arguments[-1](Turn("original", 1, 0.1))
        raise StageFailed("measure was ended by SIGSEGV")

    with pytest.raises(StageFailed):
        Bench(tmp_path, original=2.0).run(measure)


def test_who_is_hopeless_or_fails_is_marked(tmp_path: Path) -> None:
    bench = Bench(tmp_path, original=2.0, slow=9.0, broken=1.0)

    def measure(*arguments: Any) -> Benchmark:
        slow = Measured("slow", (timing(9.0),), dropped="4.5 times the best one's time")
        broken = Measured("broken", failed="batch 1: no\nmore")
        return Benchmark((Measured("original", (timing(2.0),)), slow, broken), 0, 0, 1)

    bench.run(measure)
    assert bench.board["slow"].state is State.DROPPED
    assert bench.board["slow"].timings
    assert (bench.board["broken"].state, bench.board["broken"].reason) == (
        State.FAILED,
        "batch 1: no",
    )


def test_the_best_is_measured_with_another_number_of_threads(tmp_path: Path) -> None:
    narrow = "fast, 1 thread a run"
    bench = Bench(tmp_path, Goal(threads=2), original=2.0, fast=1.0)
    bench.ms[narrow] = 0.8
    bench.run()
    assert bench.races[1] == [("fast", 2), (narrow, 1)]
    added = bench.board[narrow]
    assert added.state is State.MEASURED
    assert added.artifact is not None
    assert added.artifact.options == {"threads": 1}
    assert added.candidate.techniques == ("graph", "threads")


def test_a_layout_that_is_no_better_is_not_listed(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Goal(threads=2), original=2.0, fast=1.0)
    bench.ms["fast, 1 thread a run"] = 0.99
    bench.run()
    assert len(bench.board.outcomes) == 2


@pytest.mark.parametrize(
    "goal",
    [
        pytest.param(Goal(threads=1), id="one thread is all there is"),
        pytest.param(Goal(threads=2, is_quick=True), id="quick"),
        pytest.param(Goal(threads=2, techniques=("graph",)), id="not asked for"),
    ],
)
def test_layouts_are_not_always_compared(goal: Goal, tmp_path: Path) -> None:
    bench = Bench(tmp_path, goal, original=2.0, fast=1.0)
    bench.run()
    assert len(bench.races) == 1


def test_layouts_that_cannot_be_measured_change_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Goal(threads=2), original=2.0, fast=1.0)

    def measure(*arguments: Any) -> Benchmark:
        if len(bench.races) == 1:
            arguments[-1](Turn("fast", 1, 0.1))
            raise StageFailed("died")
        return bench.measure(*arguments)

    bench.run(measure)
    assert bench.board["fast"].state is State.MEASURED


def test_throughput_is_measured_with_a_thread_a_run() -> None:
    assert usual_threads(Goal(threads=4, objective="throughput")) == 1
    assert usual_threads(Goal(threads=4)) == 4
