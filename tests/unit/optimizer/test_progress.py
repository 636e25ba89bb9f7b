from optimizer.candidate import Candidate, Outcome, State
from optimizer.progress import Board, Progress


def board() -> tuple[Board, list[Progress]]:
    seen: list[Progress] = []
    made = Board(seen.append)
    made.add([Outcome(Candidate(name, (), "onnxruntime")) for name in ("a", "b")])
    return made, seen


def test_every_change_is_told_with_all_outcomes() -> None:
    made, seen = board()
    made.change("b", state=State.BUILDING)
    assert [outcome.state for outcome in seen[-1].outcomes] == [State.WAITING, State.BUILDING]
    assert seen[-1].line == ""


def test_an_end_goes_to_the_log_with_its_reason() -> None:
    made, seen = board()
    made.change("a", state=State.REFUSED, reason="too far off")
    assert seen[-1].line == "a: refused: too far off"


def test_percents_never_go_back() -> None:
    made, seen = board()
    made.begin("measuring", 65)
    made.tell("late", 20)
    assert seen[-1].percent == 65
    assert seen[-1].phase == "measuring"


def test_time_spent_is_added_up() -> None:
    made, _ = board()
    made.spent("a", "build", 1.0)
    made.spent("a", "build", 0.5)
    assert made["a"].seconds == {"build": 1.5}
    assert made.in_state(State.WAITING) == list(made.outcomes)
