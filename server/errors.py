"""Every failure that may reach a client, each with its canonical gRPC code.

A front door turns a `ServeError` into a status in one place (`rpc/call.py`), HTTP derives its
own code from the same table (`HTTP_STATUS`, as published with google.rpc.Code). Any other
exception is a bug: it is logged with its traceback and answered INTERNAL "internal error".
"""

from enum import IntEnum
from typing import ClassVar


class Code(IntEnum):
    """The canonical status codes of gRPC (google.rpc.Code), by number."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


HTTP_STATUS: dict[Code, int] = {
    Code.OK: 200,
    Code.CANCELLED: 499,
    Code.UNKNOWN: 500,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.DATA_LOSS: 500,
    Code.UNAUTHENTICATED: 401,
}


class ServeError(Exception):
    """A failure the client is told about: its code, and its message as the status text."""

    code: ClassVar[Code] = Code.INTERNAL

    @property
    def retry_after_s(self) -> float | None:
        """Seconds after which a retry may succeed; None where the server cannot tell."""
        return None


class InvalidRequest(ServeError):
    """The request itself is wrong: unknown input, datatype, shape, priority."""

    code = Code.INVALID_ARGUMENT


class ModelNotFound(ServeError):
    """No model, or no version of it, has that name."""

    code = Code.NOT_FOUND


class JobNotFound(ServeError):
    """No optimization job has that id."""

    code = Code.NOT_FOUND


class ModelNotReady(ServeError):
    """The model exists but cannot answer now (loading, failed, draining): try again."""

    code = Code.UNAVAILABLE


class QueueFull(ServeError):
    """The server works, there is too much to do. Carries the predicted wait."""

    code = Code.RESOURCE_EXHAUSTED

    def __init__(self, message: str, predicted_wait_s: float) -> None:
        super().__init__(message)
        self.predicted_wait_s = predicted_wait_s

    @property
    def retry_after_s(self) -> float | None:
        return self.predicted_wait_s


class DeadlineExceeded(ServeError):
    """The deadline passed while the request was queued or running."""

    code = Code.DEADLINE_EXCEEDED


class WrongState(ServeError):
    """The thing exists but its state forbids the call: do not retry until that is mended."""

    code = Code.FAILED_PRECONDITION


class AlreadyExists(ServeError):
    """A thing of that name is there already (a shared-memory region)."""

    code = Code.ALREADY_EXISTS


class Unimplemented(ServeError):
    """The protocol has this call, this server does not."""

    code = Code.UNIMPLEMENTED


class BackendError(ServeError):
    """The framework failed on this request. The message is fit for the client; detail is logged."""

    code = Code.INTERNAL


class BackendLost(BackendError):
    """The process that ran the model died during the run: whose request it was is not known.

    A batch is not taken apart to find out, for the culprit would end the next process too.
    """


class LoadFailed(ServeError):
    """A version could not be opened. The message is the reason, for an operator to act on."""

    code = Code.INTERNAL
