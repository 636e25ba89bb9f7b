"""Received bytes as a protobuf message, with an error the caller can act on."""

from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from server.errors import InvalidRequest

MessageT = TypeVar("MessageT", bound=Message)


def parse(message_type: type[MessageT], data: bytes) -> MessageT:
    """The message that `data` holds.

    Raises:
        InvalidRequest: `data` is not a message of that type.
    """
    try:
        return message_type.FromString(data)
    except DecodeError as error:
        name = message_type.DESCRIPTOR.full_name
        raise InvalidRequest(f"the request is not a valid {name}: {error}") from None
