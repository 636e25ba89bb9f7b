"""A tensor's values in JSON: lists of numbers, booleans or strings <-> arrays. Pure functions.

Incoming lists may be flat or nested; only the number of elements must fit the shape. BYTES are
UTF-8 strings. JSON has no NaN and no infinity; as Python's json and JavaScript write them, `NaN`,
`Infinity` and `-Infinity` are read and written as bare words. A client with a strict parser asks
for binary data, which carries every value as it is.
"""

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import numpy as np

from protos.tensors import DTYPES, Array
from server.errors import InvalidRequest

_KINDS = {"b": "b", "i": "iu", "u": "iu", "f": "iuf", "V": "iuf"}  # dtype kind -> accepted kinds
_WORDS = {"b": "booleans", "i": "integers", "u": "integers", "f": "numbers", "V": "numbers"}


def array_of(data: Any, name: str, datatype: str, shape: Sequence[int]) -> Array:
    """The input `name` from its JSON values. Floats are rounded to the datatype's precision.

    Raises:
        InvalidRequest: values of another type, out of range, or not as many as the shape holds.
    """
    if datatype not in DTYPES:
        raise InvalidRequest(
            f"input '{name}': unknown datatype '{datatype}', expected one of {', '.join(DTYPES)}"
        )
    if not isinstance(data, list):
        raise InvalidRequest(f"input '{name}': expected a list as data, got {_shown(data)}")
    array = _strings(data, name) if datatype == "BYTES" else _numbers(data, name, datatype)
    if array.size != prod(shape):
        raise InvalidRequest(
            f"input '{name}': expected {prod(shape)} elements for shape {list(shape)},"
            f" got {array.size}"
        )
    return array.reshape(shape)


def values_of(array: Array, name: str) -> list[Any]:
    """An output's values as one flat list.

    Raises:
        InvalidRequest: BYTES that are no UTF-8 text, which JSON cannot carry.
    """
    if array.dtype.kind in "OSU":
        return [_text(element, name) for element in array.ravel()]
    if array.dtype.kind == "V":  # bfloat16, which every float32 holds exactly
        array = array.astype(np.float32)
    values: list[Any] = array.ravel().tolist()
    return values


def _numbers(data: list[Any], name: str, datatype: str) -> Array:
    dtype = DTYPES[datatype]
    try:
        values = np.asarray(data) if data else np.empty(0, dtype)
    except (ValueError, OverflowError):
        raise InvalidRequest(f"input '{name}': the lists of data differ in length") from None
    if values.size == 0:
        return np.empty(0, dtype)
    if values.dtype.kind not in _KINDS[dtype.kind]:
        values = _unconverted(data, name, datatype)
    if dtype.kind in "iu":
        _check_range(values, name, datatype)
    try:
        with np.errstate(over="ignore"):  # beyond the largest float is infinity
            return values.astype(dtype)
    except (OverflowError, TypeError):  # the latter is BF16's, beyond 64 bits
        raise InvalidRequest(f"input '{name}': an integer is too large for {datatype}") from None


def _check_range(values: Array, name: str, datatype: str) -> None:
    limits = np.iinfo(DTYPES[datatype])
    for value in (int(values.min()), int(values.max())):
        if not limits.min <= value <= limits.max:
            raise InvalidRequest(
                f"input '{name}': {_shown(value)} is out of range for {datatype},"
                f" expected {limits.min} to {limits.max}"
            )


def _unconverted(data: list[Any], name: str, datatype: str) -> Array:
    """The values as Python's own numbers: numpy makes floats of integers of different sizes."""
    kind = DTYPES[datatype].kind
    accepted = {"b": bool, "i": int, "u": int}.get(kind, (int, float))
    leaves = list(_leaves(data))
    for value in leaves:
        if not isinstance(value, accepted) or isinstance(value, bool) != (kind == "b"):
            raise InvalidRequest(
                f"input '{name}': expected {_WORDS[kind]} for {datatype}, got {_shown(value)}"
            )
    return np.array(leaves, object)


def _strings(data: list[Any], name: str) -> Array:
    leaves = list(_leaves(data))
    array = np.empty(len(leaves), object)
    for index, value in enumerate(leaves):
        if not isinstance(value, str):
            raise InvalidRequest(f"input '{name}': expected strings for BYTES, got {_shown(value)}")
        array[index] = value.encode()
    return array


def _leaves(data: list[Any]) -> Iterator[Any]:
    for value in data:
        if isinstance(value, list):
            yield from _leaves(value)
        else:
            yield value


def _text(element: Any, name: str) -> str:
    if not isinstance(element, bytes):
        return str(element)
    try:
        return element.decode()
    except UnicodeDecodeError:
        raise InvalidRequest(
            f"output '{name}' holds bytes that are no UTF-8 text: ask for it as binary data"
        ) from None


def _shown(value: Any) -> str:
    """A JSON value in a message, cut where it would fill the screen."""
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
