"""One method of `inference.GRPCInferenceService` that is not hot: message in, message out."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from google.protobuf.message import Message

from server.rpc.call import Call, Unary
from server.rpc.messages import parse

SERVICE = "inference.GRPCInferenceService"

RequestT = TypeVar("RequestT", bound=Message)


def method(
    name: str, request_type: type[RequestT], answer: Callable[[RequestT], Awaitable[Message]]
) -> Unary:
    """The method `name`, answered by a coroutine function of the parsed request."""

    async def handle(_: Call, data: bytes) -> bytes:
        response = await answer(parse(request_type, data))
        return response.SerializeToString()

    return Unary(f"/{SERVICE}/{name}", handle)
