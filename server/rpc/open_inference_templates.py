"""A shortcut for what repeats: requests that differ from earlier ones in id and values only.

Clients send the same request over and over with other numbers in it. Parsing each with protobuf
takes longer than a small model's run; here a request is recognised by the bytes that do not
change.

A template is learned from a message that was parsed and answered the long way, and only if it is
as plain as most are: every tensor raw and of fixed width, no parameters, no fields but the
known ones in their usual order. Whatever does not match goes the long way.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from protos.inference import grpc_service_pb2 as pb
from protos.tensors import DTYPES, Array
from server.request import InferRequest

_NAME, _VERSION, _ID, _INPUTS, _OUTPUTS, _RAW = 0x0A, 0x12, 0x1A, 0x2A, 0x32, 0x3A
"""First bytes of ModelInferRequest's fields 1, 2, 3, 5, 6 and 7, all length-delimited."""
_MOST = 1024  # templates kept; more kinds of requests than that hardly repeat
_LONGEST = 16 * 1024  # bytes of a template: a client must not fill the memory with them
_ONE_BYTE = 0x80  # lengths below take one byte


@dataclass(frozen=True, slots=True)
class _RawTensor:
    """Where one tensor's values are: `offset` counts from the end of the id."""

    name: str
    dtype: np.dtype[Any]
    count: int
    shape: tuple[int, ...]
    offset: int


@dataclass(frozen=True, slots=True)
class _RequestTemplate:
    """What does not change: bytes at their offsets from the end of the id, and what they mean."""

    constant: tuple[tuple[int, bytes], ...]
    tensors: tuple[_RawTensor, ...]
    model: str
    version: int | None
    output_names: tuple[str, ...]


class RequestTemplates:
    """Decodes requests that repeat earlier ones."""

    def __init__(self) -> None:
        self._templates: dict[tuple[bytes, int], _RequestTemplate] = {}

    def decode(self, data: bytes, deadline: float | None) -> InferRequest | None:
        """The request that `data` is, if it repeats one that was learned.

        Its inputs are views on `data`, or copies where they would not be aligned.
        """
        try:
            head, after_id, identity = _split(data)
            template = self._templates[head, len(data) - after_id]
            request_id = identity.decode()
        except (KeyError, IndexError, ValueError):
            return None
        for offset, constant in template.constant:
            if not data.startswith(constant, after_id + offset):
                return None
        inputs = {}
        for tensor in template.tensors:
            start = after_id + tensor.offset
            array = np.frombuffer(data, tensor.dtype, tensor.count, start).reshape(tensor.shape)
            inputs[tensor.name] = array if array.flags.aligned else array.copy()
        return InferRequest(
            template.model,
            inputs,
            template.version,
            template.output_names,
            request_id,
            deadline=deadline,
        )

    def learn(self, data: bytes, message: pb.ModelInferRequest, request: InferRequest) -> None:
        """Remembers a message that was decoded the long way, if it is a plain one."""
        if message.parameters or not _is_plain(message):
            return
        try:
            head, after_id, identity = _split(data)
            fields = list(_fields(data, after_id))
        except (IndexError, ValueError):
            return
        raw = [(start, end) for tag, start, end in fields if tag == _RAW]
        tags = [tag for tag, _, _ in fields]
        is_usual = tags == sorted(tags) and set(tags) <= {_INPUTS, _OUTPUTS, _RAW}
        if not is_usual or len(raw) != len(message.inputs) or identity != message.id.encode():
            return
        constant = tuple(_constant(data, after_id, raw))
        if sum(len(piece) for _, piece in constant) > _LONGEST:
            return
        template = _RequestTemplate(
            constant,
            tuple(
                _raw_tensor(tensor.name, request.inputs[tensor.name], start - after_id)
                for tensor, (start, _) in zip(message.inputs, raw, strict=True)
            ),
            request.model,
            request.version,
            request.output_names,
        )
        if len(self._templates) >= _MOST:
            self._templates.clear()
        self._templates[head, len(data) - after_id] = template


def _raw_tensor(name: str, array: Array, offset: int) -> _RawTensor:
    return _RawTensor(name, array.dtype, array.size, array.shape, offset)


def _is_plain(message: pb.ModelInferRequest) -> bool:
    return all(
        not tensor.parameters and tensor.datatype in DTYPES and tensor.datatype != "BYTES"
        for tensor in message.inputs
    ) and not any(output.parameters for output in message.outputs)


def _split(data: bytes) -> tuple[bytes, int, bytes]:
    """Name and version fields as they stand, where what follows the id begins, and the id.

    Raises:
        IndexError, ValueError: the message does not begin as messages usually do.
    """
    end = _end_of(data, 0, _NAME)
    if data[end] == _VERSION:
        end = _end_of(data, end, _VERSION)
    if data[end] != _ID:
        return data[:end], end, b""
    after_id = _end_of(data, end, _ID)
    return data[:end], after_id, data[end + 2 : after_id]


def _end_of(data: bytes, start: int, tag: int) -> int:
    length = data[start + 1]
    if data[start] != tag or length >= _ONE_BYTE:
        raise ValueError
    return start + 2 + length


def _fields(data: bytes, start: int) -> Iterator[tuple[int, int, int]]:
    """First byte of each field from `start` on, with where its value begins and ends.

    Raises:
        IndexError, ValueError: a field is not length-delimited, or cut short.
    """
    while start < len(data):
        tag, length, shift = data[start], 0, 0
        start += 1
        while True:
            byte = data[start]
            start += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < _ONE_BYTE:
                break
        if tag & 0x07 != 2 or start + length > len(data):
            raise ValueError
        yield tag, start, start + length
        start += length


def _constant(
    data: bytes, after_id: int, raw: list[tuple[int, int]]
) -> Iterator[tuple[int, bytes]]:
    """The bytes between the values, with their offsets."""
    start = after_id
    for value_start, value_end in raw:
        yield start - after_id, data[start:value_start]
        start = value_end
    if start < len(data):
        yield start - after_id, data[start:]
