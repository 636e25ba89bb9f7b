"""The grpc.aio transport under a service of a few lines, over a real connection."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import grpc.aio
import pytest

from server.errors import BackendError, Code, InvalidRequest, QueueFull
from server.rpc.call import Call, Method, Send, StatusError, Stream, Unary
from server.settings import SettingsError
from server.transport.grpcio import GrpcioTransport

FAILURES: dict[bytes, Exception] = {
    b"invalid": InvalidRequest("input 'x': expected FP32"),
    b"full": QueueFull("too much", 0.0421),
    b"backend": BackendError("model 'm' failed"),
    b"bug": ZeroDivisionError("secret"),
    b"status": StatusError(Code.ABORTED, "as it is", (("k", "v"),)),
}


class EchoService:
    """Echoes; fails on demand; waits on demand, and notes who left."""

    def __init__(self) -> None:
        self.cancelled = asyncio.Event()
        self.entered = asyncio.Event()
        self.calls: list[Call] = []

    def methods(self) -> Sequence[Method]:
        return (
            Unary("/test.Echo/Echo", self.echo),
            Unary("/test.Echo/Wait", self.wait),
            Stream("/test.Echo/Stream", self.stream),
        )

    async def echo(self, call: Call, data: bytes) -> bytes:
        if data in FAILURES:
            raise FAILURES[data]
        if data == b"deadline":
            assert call.deadline is not None
            return str(call.deadline - time.monotonic()).encode()
        if data == b"no deadline":
            return str(call.deadline).encode()
        if data == b"metadata":
            return str(call.metadata["key"]).encode() + b" " + call.peer.encode()
        return data

    async def wait(self, call: Call, data: bytes) -> bytes:
        self.entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return b""

    async def stream(self, call: Call, messages: AsyncIterator[bytes], send: Send) -> None:
        async for message in messages:
            if message in FAILURES:
                raise FAILURES[message]
            await send(message)
            await send(message.upper())


@pytest.fixture
async def service() -> EchoService:
    return EchoService()


@pytest.fixture
async def channel(service: EchoService) -> AsyncIterator[Any]:
    transport = GrpcioTransport([service], max_message_bytes=1000)
    port = transport.bind("127.0.0.1", 0)
    await transport.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await transport.stop(0)


def unary(
    channel: grpc.aio.Channel, method: str
) -> "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]":
    return channel.unary_unary(f"/test.Echo/{method}", bytes, bytes)


def stream_of(channel: grpc.aio.Channel) -> "grpc.aio.StreamStreamMultiCallable[bytes, bytes]":
    return channel.stream_stream("/test.Echo/Stream", bytes, bytes)


async def test_bytes_go_through(channel: Any) -> None:
    assert await unary(channel, "Echo")(b"\x00hello") == b"\x00hello"


@pytest.mark.parametrize(
    ("data", "code", "details"),
    [
        (b"invalid", grpc.StatusCode.INVALID_ARGUMENT, "input 'x': expected FP32"),
        (b"full", grpc.StatusCode.RESOURCE_EXHAUSTED, "too much"),
        (b"backend", grpc.StatusCode.INTERNAL, "model 'm' failed"),
        (b"bug", grpc.StatusCode.INTERNAL, "internal error"),
        (b"status", grpc.StatusCode.ABORTED, "as it is"),
    ],
)
async def test_a_failure_becomes_its_status(
    channel: Any, data: bytes, code: grpc.StatusCode, details: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await unary(channel, "Echo")(data)
    assert (failed.value.code(), failed.value.details()) == (code, details)
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        async for _ in stream_of(channel)(iter([data])):
            pass
    assert (failed.value.code(), failed.value.details()) == (code, details)


async def test_push_back_is_whole_milliseconds_rounded_up(channel: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await unary(channel, "Echo")(b"full")
    assert dict(failed.value.trailing_metadata() or ())["grpc-retry-pushback-ms"] == "43"


async def test_the_call_knows_deadline_metadata_and_peer(channel: Any) -> None:
    echo = unary(channel, "Echo")
    assert 5 < float(await echo(b"deadline", timeout=10)) < 15
    assert await echo(b"no deadline") == b"None"
    key, peer = (await echo(b"metadata", metadata=(("key", "value"),))).split()
    assert key == b"value"
    assert peer.startswith(b"ipv4:127.0.0.1:")


async def test_a_caller_that_leaves_cancels_its_handler(channel: Any, service: EchoService) -> None:
    call = unary(channel, "Wait")(b"")
    await service.entered.wait()
    call.cancel()
    await asyncio.wait_for(service.cancelled.wait(), 10)


async def test_a_deadline_cancels_its_handler(channel: Any, service: EchoService) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await unary(channel, "Wait")(b"", timeout=0.05)
    assert failed.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(service.cancelled.wait(), 10)


async def test_a_stream_answers_while_it_listens(channel: Any) -> None:
    stream = stream_of(channel)()
    for word in (b"a", b"b"):
        await stream.write(word)
        assert (await stream.read(), await stream.read()) == (word, word.upper())
    await stream.done_writing()
    assert await stream.read() == grpc.aio.EOF


async def test_an_unknown_method_is_unimplemented(channel: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await unary(channel, "Nothing")(b"")
    assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_message_over_the_limit_is_refused(channel: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await unary(channel, "Echo")(bytes(1001))
    assert failed.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max (1001 vs. 1000)" in str(failed.value.details())


async def test_a_port_in_use_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        reason = "for gRPC: Address already in use"
        with pytest.raises(SettingsError, match=rf"cannot listen on 127.0.0.1:{port} {reason}"):
            GrpcioTransport([], 1000).bind("127.0.0.1", port)
    assert capfd.readouterr().err == ""  # gRPC's core adds no line of its own


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host", "a" * 64 + ".example"])
async def test_an_address_that_is_not_ours_is_named(host: str) -> None:
    with pytest.raises(SettingsError, match=rf"cannot listen on {host}:0 for gRPC: .*--host"):
        GrpcioTransport([], 1000).bind(host, 0)
