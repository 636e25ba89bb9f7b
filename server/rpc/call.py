"""The call as the services see it, and the one place where an error becomes a status.

Services know this interface only; a transport (`server/transport/`) implements `Call` and
`Sender` over its own HTTP/2 and dispatches by `Method.path`. Requests and responses are bytes:
what they mean is the service's affair.

Cancellation: when the caller leaves, the transport cancels the task that runs the handler.
"""

import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from server.errors import Code, ServeError

logger = logging.getLogger(__name__)

Metadata = Sequence[tuple[str, str]]
Send = Callable[[bytes], Awaitable[None]]
"""Sends one response message of a stream; returns when the transport has room for more."""


class Call(Protocol):
    """One call in progress, as its handler sees it."""

    @property
    def deadline(self) -> float | None:
        """`time.monotonic()` instant after which the caller has gone; None without a deadline."""
        ...

    @property
    def metadata(self) -> Mapping[str, str | bytes]:
        """The request's metadata, keys in lower case; read only when needed, it may cost."""
        ...

    @property
    def peer(self) -> str:
        """The caller's address, as the transport writes it."""
        ...


UnaryHandler = Callable[[Call, bytes], Awaitable[bytes]]
StreamHandler = Callable[[Call, AsyncIterator[bytes], Send], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Unary:
    """One request, one response."""

    path: str  # "/package.Service/Method"
    handler: UnaryHandler


@dataclass(frozen=True, slots=True)
class Stream:
    """Any number of requests and responses; a server-streaming method reads exactly one request."""

    path: str
    handler: StreamHandler


Method = Unary | Stream


class Service(Protocol):
    """One gRPC service: a list of its methods. One file per service."""

    def methods(self) -> Sequence[Method]: ...


class StatusError(Exception):
    """Ends a call with a status other than OK. Raised by a handler, sent by the transport."""

    def __init__(self, code: Code, details: str, trailers: Metadata = ()) -> None:
        super().__init__(f"{code.name}: {details}")
        self.code, self.details, self.trailers = code, details, trailers


def status_of(error: Exception, path: str) -> StatusError:
    """The status a failure is answered with. Push-back follows gRPC proposal A6.

    `grpc-retry-pushback-ms` is the predicted wait in whole milliseconds, at least 1.
    """
    if isinstance(error, StatusError):
        return error
    if not isinstance(error, ServeError):
        logger.error("%s failed", path, exc_info=error)
        return StatusError(Code.INTERNAL, "internal error")
    wait = error.retry_after_s
    trailers: Metadata = ()
    if wait is not None:
        trailers = (("grpc-retry-pushback-ms", str(min(max(1, math.ceil(wait * 1e3)), 2**31 - 1))),)
    return StatusError(error.code, str(error), trailers)
