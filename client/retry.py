"""When to try a failed call again: a decision on values; the clients wait and call.

Source: gRPC proposal A6, "Client Retries".
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import grpc

from client.errors import InferenceError


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how fast failed calls are tried again. `RetryPolicy(max_attempts=1)`: never.

    Retried are UNAVAILABLE (the server is away, starting or stopping) and RESOURCE_EXHAUSTED that
    carries a push-back (its queue is full). RESOURCE_EXHAUSTED without one is gRPC's own "message
    too large", which no retry mends.
    """

    max_attempts: int = 5  # the first one included
    initial_backoff_s: float = 0.05  # before the first retry
    backoff_multiplier: float = 2.0  # from one retry to the next
    max_backoff_s: float = 2.0
    jitter: float = 0.2  # each backoff is varied by up to this share, either way

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ValueError(f"max_attempts: expected at least 1, got {self.max_attempts}")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter: expected a share between 0 and 1, got {self.jitter}")


class Attempts:
    """The attempts of one call: counts them, and keeps all of them before one deadline."""

    def __init__(
        self,
        policy: RetryPolicy,
        timeout_s: float | None,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._policy, self._clock, self._uniform = policy, clock, uniform
        self._deadline = None if timeout_s is None else clock() + timeout_s
        self._made = 0
        self._backoffs = 0

    @property
    def remaining_s(self) -> float | None:
        """What is left for the next attempt; None without a deadline."""
        return None if self._deadline is None else max(0.0, self._deadline - self._clock())

    def delay_after(self, error: InferenceError) -> float | None:
        """Seconds to wait before trying again; None: give up and raise `error`."""
        self._made += 1
        if self._made >= self._policy.max_attempts or not _may_retry(error):
            return None
        delay = self._delay(error.retry_after_s)
        remaining = self.remaining_s
        return delay if remaining is None or delay < remaining else None

    def _delay(self, push_back_s: float | None) -> float:
        """The server's word exactly; else exponential backoff, which a push-back starts anew."""
        if push_back_s is not None:
            self._backoffs = 0
            return push_back_s
        policy = self._policy
        backoff = policy.initial_backoff_s * policy.backoff_multiplier**self._backoffs
        self._backoffs += 1
        vary = self._uniform(1 - policy.jitter, 1 + policy.jitter)
        return min(backoff, policy.max_backoff_s) * vary


def _may_retry(error: InferenceError) -> bool:
    if error.retry_after_s is not None and error.retry_after_s < 0:
        return False
    if error.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return error.retry_after_s is not None
    return error.code is grpc.StatusCode.UNAVAILABLE
