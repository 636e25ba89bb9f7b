"""What a reader hands on: arrays by name as they are in the file, not yet checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from optimizer.errors import DataError
from protos.signature import Signature
from protos.tensors import Array

LABEL_NAMES = ("label", "labels", "y", "target")
"""Names of right answers, where nothing else is said and no input is called so."""


@dataclass(frozen=True, slots=True)
class Found:
    """Arrays by name, or columns of a table (each one-dimensional) in their order."""

    arrays: Mapping[str, Array]
    is_table: bool = False
    notes: tuple[str, ...] = ()


def label_name(
    names: Sequence[str], signature: Signature, asked: str | None, where: str
) -> str | None:
    """Which of the names holds the labels; None where none does.

    Raises:
        DataError: there is none of the name that was asked for.
    """
    if asked is not None:
        if asked not in names:
            raise DataError(f"{where}: no labels '{asked}', there are {listed(names)}")
        return asked
    inputs = {spec.name for spec in signature.inputs}
    usual = (name for name in LABEL_NAMES if name in names and name not in inputs)
    return next(usual, None)


def text_columns(signature: Signature, labels: str | None) -> set[str]:
    """Columns to be read as they are written: "007" is a text, not 7."""
    names = {spec.name for spec in signature.inputs if spec.datatype == "BYTES"}
    if any(spec.datatype == "BYTES" for spec in signature.outputs):
        names |= {labels} if labels else set(LABEL_NAMES)
    return names


def stacked(items: Sequence[Any], where: str, spec_shape: Sequence[int | str]) -> tuple[Array, int]:
    """Nested lists, one a row, as one array; and how many were shorter than the longest.

    Shorter ones are filled with zeros at the end where the signature leaves the length open (equal
    lengths elsewhere are checked later).

    Raises:
        DataError: lengths differ where they are fixed, or depths do.
    """
    arrays = [_array(item, f"{where}, row {row}") for row, item in enumerate(items)]
    first = arrays[0].shape
    odd = next((row for row, array in enumerate(arrays) if array.ndim != len(first)), None)
    if odd is not None:
        got = list(arrays[odd].shape)
        raise DataError(
            f"{where}, row {odd}: expected as many axes as row 0 {list(first)}, got {got}"
        )
    longest = tuple(max(array.shape[axis] for array in arrays) for axis in range(len(first)))
    short = [row for row, array in enumerate(arrays) if array.shape != longest]
    if not short:
        return np.stack(arrays), 0
    _check_open(arrays, spec_shape, where)
    return _padded(arrays, longest, f"{where}, row {short[0]}"), len(short)


def listed(names: Sequence[str], most: int = 20) -> str:
    """Names for a message, not too many of them."""
    shown = ", ".join(f"'{name}'" for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "") or "none"


def _array(item: Any, where: str) -> Array:
    try:
        array = np.array(item)
    except ValueError:
        raise DataError(f"{where}: lists of different lengths within one row") from None
    if array.dtype.kind == "O" and array.ndim == 0 and item is not None:
        raise DataError(f"{where}: expected numbers, texts or lists, got {type(item).__name__}")
    if array.dtype.kind in "US":
        array = np.array(item, dtype=object)
    return array


def _check_open(arrays: Sequence[Array], spec_shape: Sequence[int | str], where: str) -> None:
    if len(spec_shape) != arrays[0].ndim + 1:
        return  # the depth is wrong: said with the whole shape when it is fitted
    for axis, size in enumerate(spec_shape[1:]):
        for row, array in enumerate(arrays):
            if isinstance(size, int) and array.shape[axis] != size:
                raise DataError(
                    f"{where}, row {row}: expected {size} values in axis {axis + 1},"
                    f" got {array.shape[axis]}"
                )


def _padded(arrays: Sequence[Array], shape: tuple[int, ...], where: str) -> Array:
    # An empty list is of floats: it says nothing about the others.
    dtype = np.result_type(*(array.dtype for array in arrays if array.size))
    if dtype.kind not in "biuf":
        raise DataError(f"{where}: texts of different lengths cannot be filled up")
    result = np.zeros((len(arrays), *shape), dtype)
    for row, array in enumerate(arrays):
        place: tuple[int | slice, ...] = (row, *(slice(size) for size in array.shape))
        result[place] = array
    return result
