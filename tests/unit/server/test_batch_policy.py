"""When a batch leaves: the situation in, the decision out."""

import math

import pytest

from server.batch_policy import BatchSettings, Hold, Waiting, decide, predicted_wait_s
from server.request import ReleaseReason

NOW = 100.0
NO_WINDOW = BatchSettings(max_batch=8)
WINDOW = BatchSettings(max_batch=8, window_s=0.010)


@pytest.mark.parametrize(
    ("settings", "waiting", "expected"),
    [
        pytest.param(
            NO_WINDOW,
            Waiting(1, NOW, math.inf),
            ReleaseReason.IDLE_INSTANCE,
            id="without a window one row leaves at once",
        ),
        pytest.param(
            NO_WINDOW,
            Waiting(8, NOW, math.inf),
            ReleaseReason.FULL,
            id="a full batch says so",
        ),
        pytest.param(
            WINDOW,
            Waiting(9, NOW, math.inf),
            ReleaseReason.FULL,
            id="the window does not hold a full batch",
        ),
        pytest.param(
            WINDOW,
            Waiting(1, NOW - 0.004, math.inf),
            Hold(NOW - 0.004 + 0.010),
            id="the window counts from the oldest entry",
        ),
        pytest.param(
            WINDOW,
            Waiting(1, NOW - 0.010, math.inf),
            ReleaseReason.WINDOW,
            id="the window has passed",
        ),
        pytest.param(
            WINDOW,
            Waiting(1, NOW, NOW + 0.008),
            Hold(NOW + 0.008 - 0.003),
            id="a deadline shortens the window by the run it needs",
        ),
        pytest.param(
            WINDOW,
            Waiting(1, NOW, NOW + 0.002),
            ReleaseReason.DEADLINE,
            id="holding longer would miss the deadline",
        ),
    ],
)
def test_decision(
    settings: BatchSettings, waiting: Waiting, expected: ReleaseReason | Hold
) -> None:
    assert decide(waiting, settings, run_s=0.003, now=NOW) == expected


@pytest.mark.parametrize(
    ("waiting_rows", "running", "expected_runs"),
    [
        pytest.param(0, 0, 0.0, id="idle and empty: no wait"),
        pytest.param(0, 2, 0.5, id="all busy: half a run is left on average"),
        pytest.param(32, 2, 2.5, id="four batches before it on two instances"),
    ],
)
def test_predicted_wait(waiting_rows: int, running: int, expected_runs: float) -> None:
    wait = predicted_wait_s(waiting_rows, running, instances=2, max_batch=8, run_s=0.1)
    assert wait == pytest.approx(expected_runs * 0.1)
