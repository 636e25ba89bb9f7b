"""Changes of batching settings: values in, values or a named error out."""

from typing import Any

import pytest

from protos import models_pb2 as pb
from server.batch_policy import BatchSettings, QueuePolicy, TimeoutAction
from server.errors import InvalidRequest
from server.rpc.batching_settings import changed, to_message

BEFORE = BatchSettings(
    window_s=0.002,
    max_batch=8,
    priority_levels=3,
    default_priority=2,
    queue=QueuePolicy(queue_limit=100, timeout_s=0.5, allow_timeout_override=False),
    priority_queues=((3, QueuePolicy(queue_limit=7)),),
    slo_p99_s=0.025,
    preserve_ordering=True,
)


def change(**fields: Any) -> pb.BatchingSettings:
    return pb.BatchingSettings(**fields)


def test_an_empty_change_changes_nothing() -> None:
    assert changed(BEFORE, change(), 64) == BEFORE


def test_what_is_shown_can_be_sent_back() -> None:
    assert changed(BatchSettings(), to_message(BEFORE), 64) == BatchSettings(
        window_s=0.002,
        max_batch=8,
        priority_levels=3,
        default_priority=2,
        queue=QueuePolicy(queue_limit=100, timeout_s=0.5),
        priority_queues=((3, QueuePolicy(queue_limit=7)),),
        slo_p99_s=0.025,
        preserve_ordering=True,
    )


@pytest.mark.parametrize(
    ("fields", "attribute", "value"),
    [
        pytest.param({"window_ms": 0.0}, "window_s", 0.0, id="window off"),
        pytest.param({"window_ms": 1.5}, "window_s", 0.0015, id="window in seconds"),
        pytest.param({"max_batch": 64}, "max_batch", 64, id="max batch"),
        pytest.param({"default_priority": 3}, "default_priority", 3, id="default priority"),
        pytest.param({"slo_p99_ms": 0.0}, "slo_p99_s", None, id="no target"),
        pytest.param({"preserve_ordering": False}, "preserve_ordering", False, id="any order"),
    ],
)
def test_one_field_changes_alone(fields: dict[str, Any], attribute: str, value: Any) -> None:
    after = changed(BEFORE, change(**fields), 64)
    assert getattr(after, attribute) == value
    assert changed(after, to_message(BEFORE), 64) == BEFORE


def test_queue_fields_keep_the_rest_of_the_policy() -> None:
    after = changed(BEFORE, change(queue_timeout_ms=0, timeout_action="delay"), 64)
    assert after.queue == QueuePolicy(
        queue_limit=100,
        timeout_s=None,
        timeout_action=TimeoutAction.DELAY,
        allow_timeout_override=False,
    )


def test_a_level_of_its_own_starts_from_the_common_limits() -> None:
    after = changed(BEFORE, change(priority_queues={1: pb.QueueSettings(queue_limit=3)}), 64)
    assert dict(after.priority_queues) == {
        1: QueuePolicy(queue_limit=3, timeout_s=0.5, allow_timeout_override=False),
        3: QueuePolicy(queue_limit=7),
    }


def test_fewer_levels_drop_what_was_beyond() -> None:
    after = changed(BEFORE, change(priority_levels=1), 64)
    assert (after.priority_levels, after.default_priority, after.priority_queues) == (1, 1, ())


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"window_ms": -1.0}, "window_ms: expected 0 to 60000 milliseconds, got -1"),
        ({"window_ms": float("nan")}, "window_ms: expected .* got nan"),
        ({"window_ms": 1e9}, "window_ms: expected 0 to 60000 milliseconds, got 1e"),
        ({"max_batch": 0}, "max_batch: expected 1 to 64 rows, got 0"),
        ({"max_batch": 65}, "max_batch: expected 1 to 64 rows, got 65"),
        ({"queue_timeout_ms": -5.0}, "queue_timeout_ms: expected"),
        ({"slo_p99_ms": float("inf")}, "slo_p99_ms: expected .* got inf"),
        ({"priority_levels": 0}, "priority_levels: expected 1 to 1000 levels, got 0"),
        ({"default_priority": 4}, r"default_priority: expected 1 to 3 \(priority_levels\), got 4"),
        ({"default_priority": 0}, "default_priority: expected 1 to .* got 0"),
        ({"timeout_action": "wait"}, 'timeout_action: expected "reject" or "delay", got \'wait\''),
        ({"priority_queues": {4: pb.QueueSettings()}}, "priority_queues: expected 1 to 3 .* got 4"),
        (
            {"priority_queues": {1: pb.QueueSettings(queue_timeout_ms=-1)}},
            r"priority_queues\[1\]\.queue_timeout_ms: expected",
        ),
    ],
)
def test_what_cannot_be_set_is_named(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidRequest, match=text):
        changed(BEFORE, change(**fields), 64)


def test_a_model_that_does_not_batch_says_so() -> None:
    with pytest.raises(InvalidRequest, match=r"max_batch: expected 1 since .* one by one, got 2"):
        changed(BatchSettings(), change(max_batch=2), 1)
