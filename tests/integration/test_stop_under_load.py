"""Many calls at once, and stopping while clients send: no call is dropped without an answer."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio

from server.rpc.call import Call, Method, Unary
from server.transport.grpcio import GrpcioTransport

PATH = "/test.Echo/Echo"


class Echo:
    """Answers each call with its own bytes after the loop has turned once."""

    def methods(self) -> Sequence[Method]:
        async def echo(_call: Call, message: bytes) -> bytes:
            await asyncio.sleep(0)
            return message

        return [Unary(PATH, echo)]


async def call_until_refused(address: str, seen: Counter[str], answered: asyncio.Event) -> None:
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(address, options) as channel:
        echo: Any = channel.unary_unary(PATH)
        while True:
            try:
                await echo(b"x", timeout=60)
            except grpc.aio.AioRpcError as error:
                seen[f"{error.code().name}: {error.details()}"] += 1
                return
            seen["OK"] += 1
            answered.set()


async def test_a_stop_under_load_refuses_calls_and_cancels_none() -> None:
    transport = GrpcioTransport([Echo()], max_message_bytes=1 << 20)
    address = f"127.0.0.1:{transport.bind('127.0.0.1', 0)}"
    await transport.start()
    seen: Counter[str] = Counter()
    answered = asyncio.Event()
    clients = [asyncio.create_task(call_until_refused(address, seen, answered)) for _ in range(64)]
    await answered.wait()
    await transport.stop(grace_s=30)
    await asyncio.gather(*clients)
    assert seen.pop("OK") > 0
    assert {reason.partition(":")[0] for reason in seen} == {"UNAVAILABLE"}, seen


async def test_a_burst_is_answered_call_by_call_however_many_wait() -> None:
    transport = GrpcioTransport([Echo()], max_message_bytes=1 << 20)
    address = f"127.0.0.1:{transport.bind('127.0.0.1', 0)}"
    await transport.start()
    async with grpc.aio.insecure_channel(address) as channel:
        echo: Any = channel.unary_unary(PATH)
        calls = [echo(b"x", timeout=60) for _ in range(4000)]
        ended = await asyncio.gather(*calls, return_exceptions=True)
    await transport.stop(grace_s=30)
    assert set(ended) == {b"x"}, Counter(map(repr, ended)).most_common(3)
