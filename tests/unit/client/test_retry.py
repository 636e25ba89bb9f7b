import grpc
import pytest

from client.errors import InferenceError
from client.retry import Attempts, RetryPolicy

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


def error(code: grpc.StatusCode, retry_after_s: float | None = None) -> InferenceError:
    return InferenceError(code, "no", retry_after_s)


def attempts(
    policy: RetryPolicy | None = None,
    timeout_s: float | None = None,
    now: list[float] | None = None,
) -> Attempts:
    """Without jitter, on a clock that a test moves."""
    clock = now if now is not None else [100.0]
    return Attempts(policy or RetryPolicy(), timeout_s, lambda: clock[0], lambda low, high: 1.0)


@pytest.mark.parametrize(
    ("failure", "delay"),
    [
        pytest.param(error(UNAVAILABLE), 0.05, id="unavailable backs off"),
        pytest.param(error(UNAVAILABLE, 0.7), 0.7, id="push-back is honoured exactly"),
        pytest.param(error(EXHAUSTED, 0.7), 0.7, id="full queue waits as told"),
        pytest.param(error(EXHAUSTED), None, id="message too large is not retried"),
        pytest.param(error(UNAVAILABLE, -0.001), None, id="negative push-back forbids"),
        pytest.param(error(grpc.StatusCode.INVALID_ARGUMENT), None, id="bad request"),
        pytest.param(error(grpc.StatusCode.INTERNAL, 0.7), None, id="other codes even if pushed"),
        pytest.param(error(grpc.StatusCode.DEADLINE_EXCEEDED), None, id="deadline"),
    ],
)
def test_first_failure(failure: InferenceError, delay: float | None) -> None:
    assert attempts().delay_after(failure) == delay


def test_backoff_grows_to_its_limit_and_attempts_end() -> None:
    policy = RetryPolicy(
        max_attempts=6, initial_backoff_s=0.1, backoff_multiplier=3.0, max_backoff_s=1.0
    )
    made = attempts(policy)
    delays = [made.delay_after(error(UNAVAILABLE)) for _ in range(6)]
    assert delays == pytest.approx([0.1, 0.3, 0.9, 1.0, 1.0, None])


def test_push_back_starts_the_backoff_anew() -> None:
    made = attempts()
    delays = [
        made.delay_after(error(UNAVAILABLE, push_back)) for push_back in (None, None, 0.5, None)
    ]
    assert delays == pytest.approx([0.05, 0.1, 0.5, 0.05])


def test_jitter_varies_the_backoff_by_its_share() -> None:
    asked: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        asked.append((low, high))
        return high

    made = Attempts(RetryPolicy(jitter=0.5, initial_backoff_s=0.1), None, lambda: 0.0, uniform)
    assert made.delay_after(error(UNAVAILABLE)) == pytest.approx(0.15)
    assert asked == [(0.5, 1.5)]


def test_a_wait_that_reaches_the_deadline_is_not_begun() -> None:
    now = [100.0]
    made = attempts(timeout_s=1.0, now=now)
    assert made.delay_after(error(EXHAUSTED, 0.9)) == 0.9
    now[0] = 100.9
    assert made.remaining_s == pytest.approx(0.1)
    assert made.delay_after(error(EXHAUSTED, 0.1 + 1e-6)) is None


def test_no_time_is_left_after_the_deadline() -> None:
    now = [100.0]
    made = attempts(timeout_s=1.0, now=now)
    now[0] = 105.0
    assert made.remaining_s == 0.0


@pytest.mark.parametrize("wrong", [{"max_attempts": 0}, {"jitter": -0.1}, {"jitter": 1.5}])
def test_wrong_policy_names_the_field(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RetryPolicy(**wrong)  # type: ignore[arg-type]
