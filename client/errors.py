"""What the client raises when the server, or the way to it, fails."""

from collections.abc import Iterable
from typing import Any

import grpc

PUSH_BACK_KEY = "grpc-retry-pushback-ms"


class InferenceError(Exception):
    """A call that failed, after all the retries it was allowed.

    Attributes:
        code: the gRPC status, for example `grpc.StatusCode.NOT_FOUND`.
        message: what was wrong, in the server's words.
        retry_after_s: the wait the server predicted, in seconds; negative where it asked not to
            retry at all; None where it said nothing.
    """

    def __init__(
        self, code: grpc.StatusCode, message: str, retry_after_s: float | None = None
    ) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code, self.message, self.retry_after_s = code, message, retry_after_s

    @classmethod
    def of_call(cls, error: Any) -> "InferenceError":
        """From a `grpc.RpcError`, which is also the call it ended (sync and aio alike)."""
        return cls(error.code(), error.details() or "", _push_back_s(error.trailing_metadata()))

    @classmethod
    def of_status(cls, code: int, message: str, retry_after_s: float | None) -> "InferenceError":
        """From the numeric code inside a stream's response."""
        return cls(_CODES.get(code, grpc.StatusCode.UNKNOWN), message, retry_after_s)


_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def _push_back_s(trailers: Iterable[tuple[str, str | bytes]] | None) -> float | None:
    """The server's push-back in seconds; what cannot be read means "do not retry" (gRPC A6)."""
    for key, value in trailers or ():
        if key == PUSH_BACK_KEY:
            try:
                return int(value) / 1e3
            except ValueError:
                return -1.0
    return None
