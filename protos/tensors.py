"""How a tensor travels: datatype names, and bytes <-> numpy. Used by server and client alike.

Wire form (Open Inference Protocol, "Tensor Data"): row-major, little-endian, no padding.
BOOL is one byte per element. BYTES elements are each a 4-byte little-endian unsigned length
followed by that many bytes; in memory they are numpy object arrays of `bytes`.
BF16 is `ml_dtypes.bfloat16` in memory.
"""

import struct
from collections.abc import Sequence
from math import prod
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Buffer: TypeAlias = bytes | bytearray | memoryview

DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype(object),
}
_NAMES: dict[np.dtype[Any], str] = {dtype: name for name, dtype in DTYPES.items()}
_LENGTH = struct.Struct("<I")


def datatype_of(array: Array) -> str:
    """The protocol's name of an array's dtype; any string dtype is BYTES.

    Raises:
        ValueError: the protocol has no name for this dtype.
    """
    return datatype_of_dtype(array.dtype)


def datatype_of_dtype(dtype: np.dtype[Any]) -> str:
    """As `datatype_of`, for the dtype alone."""
    name = _NAMES.get(dtype)
    if name is not None:
        return name
    if dtype.kind in "SUT":
        return "BYTES"
    name = _NAMES.get(dtype.newbyteorder("<"))
    if name is None:
        raise ValueError(f"dtype {dtype} has no datatype in the Open Inference Protocol")
    return name


def decode(data: Buffer, datatype: str, shape: Sequence[int]) -> Array:
    """A tensor's bytes as an array; a read-only view of `data` except for BYTES.

    Raises:
        ValueError: unknown datatype, negative dimension, or a byte size that does not fit
            the shape; the message says what was expected and what came.
    """
    dtype = DTYPES.get(datatype)
    if dtype is None:
        raise ValueError(f"unknown datatype '{datatype}', expected one of {', '.join(DTYPES)}")
    if shape and min(shape) < 0:
        raise ValueError(f"negative dimension in shape {list(shape)}")
    if datatype == "BYTES":
        return _decode_bytes(data, shape)
    expected = prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise ValueError(
            f"expected {expected} bytes for {datatype}{list(shape)}, got {len(data)} bytes"
        )
    return np.frombuffer(data, dtype).reshape(shape)


def encode(array: Array) -> bytes:
    """An array as a tensor's bytes. Strings are sent as UTF-8."""
    if array.dtype.kind in "OSUT":
        return _encode_bytes(array)
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    return array.tobytes()


def wire_bytes(array: Array) -> Buffer:
    """As `encode`, without a copy where the array's own memory is in wire form already."""
    if array.dtype.kind in "fiub" and array.flags.c_contiguous and array.dtype.isnative:
        return array.data
    return encode(array)


def _decode_bytes(data: Buffer, shape: Sequence[int]) -> Array:
    view, count, offset = memoryview(data), prod(shape), 0
    if count > len(view):  # room is not made for what a shape only claims
        raise ValueError(
            f"BYTES tensor of {count} elements takes at least {count * _LENGTH.size} bytes,"
            f" got {len(view)} bytes"
        )
    array = np.empty(count, dtype=object)
    for index in range(count):
        start = offset + 4
        if start > len(view):
            raise ValueError(f"BYTES tensor of {count} elements ends within element {index}")
        offset = start + _LENGTH.unpack_from(view, offset)[0]
        if offset > len(view):
            raise ValueError(f"BYTES tensor of {count} elements ends within element {index}")
        array[index] = bytes(view[start:offset])
    if offset != len(view):
        raise ValueError(
            f"BYTES tensor of {count} elements takes {offset} bytes, got {len(view)} bytes"
        )
    return array.reshape(shape)


def _encode_bytes(array: Array) -> bytes:
    parts: list[bytes] = []
    for element in array.ravel():
        raw = element if isinstance(element, bytes) else str(element).encode()
        parts += (_LENGTH.pack(len(raw)), raw)
    return b"".join(parts)
