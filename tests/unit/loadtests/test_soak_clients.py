import grpc
import numpy as np
import pytest

from client import InferenceError
from loadtests import models
from loadtests.soak_clients import Deed, Tally, examples, is_refusal

Status = grpc.StatusCode


def test_examples_carry_the_right_answer_of_each_variant() -> None:
    found = examples({"tiny": [models.tiny(), models.tiny(seed=1)]})
    for example in found:
        first, second = example.answers
        assert first.shape == second.shape == (len(example.inputs["x"]), 4)
        assert not np.allclose(first, second)


def test_tally_keeps_what_is_right_apart_from_findings() -> None:
    tally = Tally()
    tally.expect(Deed.ASK, "right", is_right=True)
    tally.expect(Deed.ASK, "WRONG ANSWER", is_right=False)
    assert dict(tally.outcomes) == {"ask: right": 1}
    assert dict(tally.findings) == {"ask: WRONG ANSWER": 1}
    assert tally.turns == 2


@pytest.mark.parametrize(
    ("code", "message", "expected"),
    [
        pytest.param(Status.UNAVAILABLE, "server is shutting down", True, id="told"),
        pytest.param(Status.UNAVAILABLE, "failed to connect to all addresses", True, id="gone"),
        pytest.param(Status.UNAVAILABLE, "Socket closed", False, id="accepted-then-dropped"),
        pytest.param(Status.UNAVAILABLE, "recvmsg: Connection reset by peer", False, id="reset"),
        pytest.param(Status.INTERNAL, "internal error", False, id="broken"),
    ],
)
def test_a_refusal_is_not_an_accepted_request_that_was_dropped(
    code: grpc.StatusCode, message: str, expected: bool
) -> None:
    assert is_refusal(InferenceError(code, message)) is expected
