"""A protobuf message as JSON values, the way the REST protocol writes it.

protobuf's own JSON form writes 64-bit integers as strings and names in camelCase; the Open
Inference REST protocol has numbers, and the names of the .proto file.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.message import Message


def message_json(message: Message) -> dict[str, Any]:
    """All fields, defaults too; sub-messages and oneof members only where they are set."""
    return {
        field.name: _value(field, getattr(message, field.name))
        for field in message.DESCRIPTOR.fields
        if not field.has_presence or message.HasField(field.name)
    }


def _value(field: Any, value: Any) -> Any:
    if isinstance(value, Message):
        return message_json(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        of_value = field.message_type.fields_by_name["value"]
        return {str(key): _value(of_value, value[key]) for key in value}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_value(field, element) for element in value]
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return value
