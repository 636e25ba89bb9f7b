"""Serializes the native protocol's messages with their tensors, at the price of one copy.

Set as a field, a tensor's bytes would be copied three times: into a bytes object, into the
message, out of the message. Here large ones are joined to the serialized rest instead, which
protobuf allows, since fields may come in any order.
"""

from collections.abc import Mapping

from google.protobuf.internal.containers import RepeatedCompositeFieldContainer
from google.protobuf.message import Message

from protos import predict_pb2 as pb
from protos.tensors import Array, Buffer, datatype_of, encode, wire_bytes
from protos.wire import varint

_LARGE_BYTES = 8192  # below, setting the field is faster
_TENSORS_TAG = b"\x22"  # PredictRequest.inputs and PredictResponse.outputs: 4, length-delimited
_RAW_TAG = b"\x22"  # Tensor.raw: 4, length-delimited


def serialize(
    message: Message,
    field: RepeatedCompositeFieldContainer[pb.Tensor],
    tensors: Mapping[str, Array],
) -> bytes:
    """The bytes of `message` with `tensors` in `field`, its empty `inputs` or `outputs`.

    Raises:
        ValueError: a tensor's dtype has no name in the protocol.
    """
    for array in tensors.values():
        if array.nbytes > _LARGE_BYTES:
            return _joined(message, tensors)
    for name, array in tensors.items():
        field.add(name=name, datatype=datatype_of(array), shape=array.shape, raw=encode(array))
    return message.SerializeToString()


def _joined(message: Message, tensors: Mapping[str, Array]) -> bytes:
    parts: list[Buffer] = [message.SerializeToString()]
    for name, array in tensors.items():
        parts += _parts(name, array)
    return b"".join(parts)


def _parts(name: str, array: Array) -> list[Buffer]:
    """One tensor as a field of its message."""
    tensor = pb.Tensor(name=name, datatype=datatype_of(array), shape=array.shape)
    head, data = tensor.SerializeToString(), wire_bytes(array)
    n_bytes = memoryview(data).nbytes
    raw = _RAW_TAG + varint(n_bytes)
    return [_TENSORS_TAG, varint(len(head) + len(raw) + n_bytes), head, raw, data]
