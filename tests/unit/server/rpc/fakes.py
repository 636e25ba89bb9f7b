"""A call and a stream for tests of services without a transport."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping

from server.rpc.call import Method, Stream, StreamHandler, Unary, UnaryHandler


class FakeCall:
    """A call with the deadline and metadata a test gives it."""

    peer = "test"

    def __init__(
        self, deadline: float | None = None, metadata: Mapping[str, str | bytes] | None = None
    ) -> None:
        self.deadline = deadline
        self.metadata = metadata or {}


class Requests:
    """The request side of a stream: the test puts messages and ends it."""

    def __init__(self, *messages: bytes) -> None:
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        for message in messages:
            self.put(message)

    def put(self, message: bytes) -> None:
        self._queue.put_nowait(message)

    def end(self) -> None:
        self._queue.put_nowait(None)

    @property
    def waiting(self) -> int:
        return self._queue.qsize()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (message := await self._queue.get()) is not None:
            yield message


class Responses:
    """The response side of a stream, in the order sent."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[bytes] = asyncio.Queue()

    async def send(self, message: bytes) -> None:
        self._queue.put_nowait(message)

    async def next(self) -> bytes:
        return await asyncio.wait_for(self._queue.get(), 30)

    @property
    def waiting(self) -> int:
        return self._queue.qsize()


def unary(methods: Iterable[Method], path: str) -> UnaryHandler:
    found = next(method for method in methods if method.path == path)
    assert isinstance(found, Unary)
    return found.handler


def stream(methods: Iterable[Method], path: str) -> StreamHandler:
    found = next(method for method in methods if method.path == path)
    assert isinstance(found, Stream)
    return found.handler
