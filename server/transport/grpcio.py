"""Carries calls over grpc.aio: bytes and metadata in, bytes out. Knows no service and no message.

The only server module that imports grpc.
"""

import asyncio
import logging
import math
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import grpc
import grpc.aio

from server.rpc.call import Metadata, Method, Service, StatusError, Stream, Unary, status_of
from server.settings import SettingsError

logger = logging.getLogger(__name__)

_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
_ANY_NUMBER = 2**31 - 1
_QUIET_S = 0.2  # no call for so long: none is under way to us
_LONGEST_REFUSAL_S = 5.0
_Context = grpc.aio.ServicerContext[bytes, bytes]


class _Call:
    """A grpc.aio call in the services' terms; made for every call, so it computes on demand."""

    __slots__ = ("_context",)

    def __init__(self, context: _Context) -> None:
        self._context = context

    @property
    def deadline(self) -> float | None:
        remaining = self._context.time_remaining()
        return None if remaining is None else time.monotonic() + remaining

    @property
    def metadata(self) -> Mapping[str, str | bytes]:
        return dict(self._context.invocation_metadata() or ())

    @property
    def peer(self) -> str:
        return str(self._context.peer())


class GrpcioTransport:
    """A gRPC listener.

    Call `bind`, then `start`; `stop` refuses new calls, waits for running ones, and cancels those
    that outlast the grace period.
    """

    def __init__(self, services: Sequence[Service], max_message_bytes: int) -> None:
        self._server = grpc.aio.server(
            options=(
                ("grpc.max_receive_message_length", max_message_bytes),
                ("grpc.max_send_message_length", -1),
                # Two servers on one port would share its connections at random.
                ("grpc.so_reuseport", 0),
                # Clients that ping an idle connection are not a flood.
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
                ("grpc.keepalive_permit_without_calls", 1),
                # Beyond these gRPC's core cancels calls at random that wait to be handed over.
                # Overload is answered by the batcher's queues, which say how long to wait.
                ("grpc.server.max_pending_requests", _ANY_NUMBER),
                ("grpc.server.max_pending_requests_hard_limit", _ANY_NUMBER),
            )
        )
        self._handlers = _Handlers(services)
        self._server.add_generic_rpc_handlers([self._handlers])

    def bind(self, host: str, port: int) -> int:
        """Opens the port (0: a free one) and returns its number.

        Raises:
            SettingsError: the address cannot be listened on.
        """
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            _check_free(host, port)
            return self._server.add_insecure_port(address)
        except (OSError, RuntimeError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise SettingsError(
                f"cannot listen on {address} for gRPC: {reason} (--grpc-port, --host)"
            ) from None

    async def start(self) -> None:
        await self._server.start()

    async def stop(self, grace_s: float) -> None:
        """Refuses new calls at once; running ones have `grace_s` seconds to end.

        gRPC's core cancels the calls that it has received but not handed over when it stops, and
        it hands over one at a time: of a burst, most would end as CANCELLED, which no client
        retries. So calls are refused here first, until none has come for a moment.
        """
        self._handlers.is_refusing = True
        await self._quiet(min(grace_s, _LONGEST_REFUSAL_S))
        await self._server.stop(grace_s)

    async def _quiet(self, longest_s: float) -> None:
        """Returns when no call has come for `_QUIET_S`; after `longest_s` at the latest."""
        ends = time.monotonic() + longest_s
        left = self._left(ends)
        while left > 0:
            await asyncio.sleep(left)
            left = self._left(ends)

    def _left(self, ends: float) -> float:
        return min(ends, self._handlers.last_call + _QUIET_S) - time.monotonic()


def _check_free(host: str, port: int) -> None:
    """Binds a socket for a moment: gRPC tells its log, and not us, why an address is refused.

    Raises:
        OSError: no address of the host can be bound; with the system's reason.
    """
    problem = None
    for family, kind, protocol, _, address in socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM
    ):
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
                return
        except OSError as error:
            problem = error
    if problem is not None:
        raise problem


class _Handlers(grpc.GenericRpcHandler):
    """Finds a method's handler by its path."""

    def __init__(self, services: Sequence[Service]) -> None:
        self._handlers = {m.path: _handler(m) for service in services for m in service.methods()}
        self.is_refusing = False
        self.last_call = -math.inf  # instant

    def service(self, handler_call_details: Any) -> "grpc.RpcMethodHandler[Any, Any] | None":
        self.last_call = time.monotonic()
        return _REFUSAL if self.is_refusing else self._handlers.get(handler_call_details.method)


async def _refuse(_messages: AsyncIterator[bytes], context: _Context) -> None:
    await context.abort(grpc.StatusCode.UNAVAILABLE, "the server is shutting down")


_REFUSAL: "grpc.RpcMethodHandler[Any, Any]" = grpc.stream_stream_rpc_method_handler(_refuse)


def _handler(method: Method) -> "grpc.RpcMethodHandler[Any, Any]":
    if isinstance(method, Unary):
        return grpc.unary_unary_rpc_method_handler(_unary(method))
    return grpc.stream_stream_rpc_method_handler(_stream(method))


def _unary(method: Unary) -> Callable[[bytes, _Context], Awaitable[bytes]]:
    handler, path = method.handler, method.path

    async def handle(message: bytes, context: _Context) -> bytes:
        try:
            return await handler(_Call(context), message)
        except Exception as error:
            await _abort(context, status_of(error, path))
            raise

    return handle


def _stream(method: Stream) -> Callable[[AsyncIterator[bytes], _Context], Awaitable[None]]:
    handler, path = method.handler, method.path

    async def handle(messages: AsyncIterator[bytes], context: _Context) -> None:
        try:
            await handler(_Call(context), messages, context.write)
        except Exception as error:
            await _abort(context, status_of(error, path))
            raise

    return handle


async def _abort(context: _Context, status: StatusError) -> None:
    """Ends the call with a status; as cancelled where the caller has gone and none can be sent."""
    remaining = context.time_remaining()
    if context.cancelled() or (remaining is not None and remaining <= 0.0):
        raise asyncio.CancelledError
    trailers: Metadata = status.trailers
    try:
        await context.abort(_CODES[status.code], status.details, tuple(trailers))
    except grpc.aio.InternalError:  # gRPC's word for "could not be sent": the caller has just gone
        raise asyncio.CancelledError from None
