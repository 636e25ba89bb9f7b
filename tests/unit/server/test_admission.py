"""What a request must satisfy before it may queue."""

import pytest

from server.admission import policy_of, priority_of, queue_timeout_s
from server.batch_policy import BatchSettings, QueuePolicy
from server.errors import InvalidRequest
from server.request import InferRequest

LEVELS = BatchSettings(priority_levels=3, default_priority=2)


@pytest.mark.parametrize(("asked", "level"), [(0, 2), (1, 1), (3, 3)])
def test_priority(asked: int, level: int) -> None:
    assert priority_of(asked, LEVELS, "m") == level


@pytest.mark.parametrize("asked", [-1, 4])
def test_an_unknown_priority_is_refused(asked: int) -> None:
    with pytest.raises(
        InvalidRequest, match=rf"priority {asked} for model 'm', expected 1 .* to 3"
    ):
        priority_of(asked, LEVELS, "m")


def test_a_model_of_one_level_says_so() -> None:
    with pytest.raises(InvalidRequest, match="expected 1, the only level, or 0 for the default"):
        priority_of(2, BatchSettings(), "m")


def test_a_level_may_have_limits_of_its_own() -> None:
    own = QueuePolicy(queue_limit=3)
    settings = BatchSettings(priority_levels=2, priority_queues=((2, own),))
    assert policy_of(2, settings) is own
    assert policy_of(1, settings) is settings.queue


@pytest.mark.parametrize(
    ("own", "asked", "may_override", "expected"),
    [
        pytest.param(None, None, True, None, id="nobody set one"),
        pytest.param(1.0, None, True, 1.0, id="the queue's"),
        pytest.param(1.0, 0.5, True, 0.5, id="a shorter one was asked for"),
        pytest.param(1.0, 2.0, True, 1.0, id="a longer one is not granted"),
        pytest.param(None, 2.0, True, 2.0, id="any is shorter than none"),
        pytest.param(1.0, 0.5, False, 1.0, id="requests may not say"),
    ],
)
def test_queue_timeout(
    own: float | None, asked: float | None, may_override: bool, expected: float | None
) -> None:
    policy = QueuePolicy(timeout_s=own, allow_timeout_override=may_override)
    request = InferRequest("m", {}, queue_timeout_s=asked)
    assert queue_timeout_s(policy, request) == expected
