from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from optimizer.artifact import Artifact
from optimizer.candidate import Candidate, Outcome, State, Step, Verdict
from optimizer.errors import Cancelled, PassError, StageFailed, Unavailable
from optimizer.goal import Goal
from optimizer.progress import Board
from optimizer.stages import Built, Case
from optimizer.trials import Trials
from tests.unit.optimizer.stage_stand_in import (
    ACCEPTED,
    ORIGINAL,
    REFUSED,
    StandIn,
    case_in,
    store_in,
)

PLAIN = Candidate("plain", (), "onnxruntime", {"graph_level": "basic"}, ("graph",))
INT8 = Candidate("int8", (Step("int8_static"),), "onnxruntime", {}, ("int8_static",), False, True)
BF16 = Candidate("bf16", (Step("openvino_ir"),), "openvino", {}, ("bf16",), False)


def build(case: Case, steps: Sequence[Step], model: Path, target: Path) -> Built:
    (target / "0").mkdir()
    (target / "0" / "model.onnx").write_bytes(b"built by " + steps[-1].name.encode())
    return Built("0/model.onnx", True, ("a note",))


def accept(case: Case, artifact: Artifact, *_: Any) -> Verdict:
    return ACCEPTED


def refuse(case: Case, artifact: Artifact, *_: Any) -> Verdict:
    return REFUSED


class Bench:
    """Trials of some candidates."""

    def __init__(self, folder: Path, *candidates: Candidate, goal: Goal | None = None) -> None:
        self.goal = goal or Goal()
        self.board = Board(lambda progress: None)
        self.board.add([Outcome(candidate) for candidate in candidates])
        self.case = case_in(folder, self.goal)
        self.store = store_in(folder, self.goal)

    def run(
        self, check: Callable[..., Any] = accept, build: Callable[..., Any] = build
    ) -> list[Outcome]:
        stages = StandIn(self.goal, self.board, build=build, check=check)
        trials = Trials(self.case, stages, self.board, self.store, ORIGINAL)
        trials.run(self.case.source.path, 0.0, (20.0, 65.0))
        return list(self.board.outcomes)


def test_what_is_accepted_is_kept_and_waits_to_be_measured(tmp_path: Path) -> None:
    bench = Bench(tmp_path, PLAIN, INT8)
    plain, int8 = bench.run()
    assert (plain.state, int8.state) == (State.MEASURING, State.MEASURING)
    assert plain.artifact is not None
    assert plain.artifact.path == tmp_path / "model.onnx"  # the user's own file, not copied
    assert int8.artifact is not None
    assert bench.store.has(int8.artifact)
    assert int8.notes == ("a note",)
    assert int8.size_bytes == len(b"built by int8_static")
    assert set(int8.seconds) == {"build", "validate"}


def test_what_was_built_before_is_found(tmp_path: Path) -> None:
    bench = Bench(tmp_path, INT8)
    bench.run()
    bench.board.add([Outcome(INT8)])

    def not_again(*_: Any) -> Built:
        raise AssertionError

    (found,) = bench.run(build=not_again)
    assert found.notes == ("found in the store",)
    assert found.state is State.MEASURING


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        pytest.param(Unavailable("no nncf"), State.SKIPPED, "no nncf", id="a library is missing"),
        pytest.param(PassError("no MatMul"), State.FAILED, "no MatMul", id="cannot be applied"),
        pytest.param(StageFailed("died\nlast words"), State.FAILED, "died", id="died"),
    ],
)
def test_how_a_build_may_end(error: Exception, state: State, reason: str, tmp_path: Path) -> None:
    def fail(*_: Any) -> Built:
        raise error

    int8, plain = Bench(tmp_path, INT8, PLAIN).run(build=fail)
    assert (int8.state, int8.reason) == (state, reason)
    assert plain.state is State.MEASURING


def test_the_last_words_of_a_stage_are_noted(tmp_path: Path) -> None:
    def fail(*_: Any) -> Built:
        raise StageFailed("died\nlast words")

    assert Bench(tmp_path, INT8).run(build=fail)[0].notes == ("last words",)


def test_a_pass_that_changed_nothing_makes_no_candidate(tmp_path: Path) -> None:
    (int8,) = Bench(tmp_path, INT8).run(build=lambda *_: Built("model.onnx", False, ()))
    assert (int8.state, int8.reason) == (
        State.SKIPPED,
        "there is nothing to change in this model",
    )


def test_a_refused_one_is_tried_without_what_breaks_it(tmp_path: Path) -> None:
    def check(case: Case, artifact: Artifact, *_: Any) -> Verdict:
        return ACCEPTED if artifact.techniques == ("mixed_precision",) else REFUSED

    int8, again = Bench(tmp_path, INT8).run(check)
    assert (int8.state, int8.reason) == (State.REFUSED, REFUSED.reason)
    assert again.state is State.MEASURING
    assert again.candidate.steps[-1].settings["base"] == "int8_static"


def test_it_is_not_where_something_else_gains_as_much(tmp_path: Path) -> None:
    def check(case: Case, artifact: Artifact, *_: Any) -> Verdict:
        return ACCEPTED if artifact.techniques == ("bf16",) else REFUSED

    assert len(Bench(tmp_path, INT8, BF16).run(check)) == 2


def test_what_breaks_even_so_is_not_tried_again(tmp_path: Path) -> None:
    outcomes = Bench(tmp_path, INT8).run(refuse)
    assert [outcome.state for outcome in outcomes] == [State.REFUSED, State.REFUSED]


def test_when_time_is_up_the_rest_is_left(tmp_path: Path) -> None:
    bench = Bench(tmp_path, PLAIN, INT8)
    stages = StandIn(bench.goal, bench.board, check=accept, build=build)

    def check(*_: Any) -> Verdict:
        stages.left_s = 10.0
        return ACCEPTED

    stages._answers["check"] = check
    trials = Trials(bench.case, stages, bench.board, bench.store, ORIGINAL)
    trials.run(bench.case.source.path, 20.0, (20.0, 65.0))
    plain, int8 = bench.board.outcomes
    assert plain.state is State.MEASURING
    assert int8.state is State.CANCELLED
    assert "time limit of 30 min" in int8.reason


def test_a_cancelled_job_leaves_its_candidate_cancelled(tmp_path: Path) -> None:
    def cancel(*_: Any) -> Verdict:
        raise Cancelled("cancelled")

    bench = Bench(tmp_path, PLAIN)
    with pytest.raises(Cancelled):
        bench.run(cancel)
    assert bench.board["plain"].state is State.CANCELLED
