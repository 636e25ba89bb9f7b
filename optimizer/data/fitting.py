"""Arrays against a signature: names, datatypes, shapes, numbers. What does not fit is refused.

Missing values stay NaN in floats and are counted; an infinity is refused, as it would make every
range of a calibration infinite.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from optimizer.data.found import Found, label_name, listed
from optimizer.errors import DataError
from optimizer.samples import Samples
from protos.signature import Signature, TensorSpec
from protos.tensors import DTYPES, Array

_FLOATS = ("FP16", "BF16", "FP32", "FP64")


def fit(found: Found, signature: Signature, labels: str | None, where: str, origin: str) -> Samples:
    """The rows as inputs of a model with this signature.

    `where` is for messages, `origin` for reports.

    Raises:
        DataError: they are not; names input, row, what was expected and what was found.
    """
    arrays = dict(found.arrays)
    label = label_name(list(arrays), signature, labels, where)
    answers = None if label is None else arrays.pop(label)
    _check_names(arrays, signature, where)
    notes = list(found.notes)
    inputs = {}
    for spec in signature.inputs:
        if spec.name in arrays:
            place = f"{where}, input '{spec.name}'"
            shaped = _shaped(arrays[spec.name], spec, place)
            inputs[spec.name] = as_datatype(shaped, spec.datatype, place)
            notes += _missing(spec, inputs[spec.name], shaped)
    rows = _rows(inputs, where)
    _check_symbols(inputs, signature, where)
    kept = _labels(answers, rows, f"{where}, labels '{label}'", is_asked=labels is not None)
    if answers is not None and kept is None:
        notes.append(f"'{label}' has {list(answers.shape)} values and is not used as labels")
    return Samples(inputs, kept, True, "; ".join([f"{origin}, {rows:,} rows", *notes]))


def as_datatype(array: Array, datatype: str, where: str) -> Array:
    """Converts where no value changes its meaning.

    Raises:
        DataError: a text for a number, a fraction for a whole number, a number out of range, an
            infinity; names the row.
    """
    if datatype == "BYTES":
        return _as_texts(array)
    if array.dtype.kind in "OSUT":
        array = _as_numbers(array, where)
    if array.dtype.kind not in "biuf" and array.dtype != DTYPES["BF16"]:
        raise DataError(f"{where}: expected {datatype}, got {array.dtype}")
    if datatype in _FLOATS:
        return _as_floats(array, datatype, where)
    return _as_whole(array, datatype, where)


def _check_names(arrays: Mapping[str, Array], signature: Signature, where: str) -> None:
    missing = [s.name for s in signature.inputs if not s.optional and s.name not in arrays]
    if missing:
        given = listed(list(arrays))
        raise DataError(f"{where}: input {listed(missing)} is missing, there are {given}")


def _shaped(array: Array, spec: TensorSpec, where: str) -> Array:
    """In the rank of the signature: one column is [rows] or [rows, 1], as the model has it."""
    if array.ndim + 1 == len(spec.shape) and spec.shape[-1] == 1 and array.ndim:
        array = array[..., np.newaxis]
    elif array.ndim == len(spec.shape) + 1 and array.shape[-1] == 1 and len(spec.shape):
        array = array[..., 0]
    fits = array.ndim == len(spec.shape) and array.ndim > 0
    pairs = zip(array.shape[1:], spec.shape[1:], strict=fits)
    if not fits or any(isinstance(size, int) and size != given for given, size in pairs):
        expected = ", ".join(["rows", *(str(size) for size in spec.shape[1:])])
        got = ", ".join(str(size) for size in array.shape)
        raise DataError(f"{where}: expected {spec.datatype}[{expected}], got {array.dtype}[{got}]")
    return array


def _rows(inputs: Mapping[str, Array], where: str) -> int:
    counts = {name: len(array) for name, array in inputs.items()}
    if len(set(counts.values())) > 1:
        shown = ", ".join(f"'{name}' {count}" for name, count in counts.items())
        raise DataError(f"{where}: inputs have different numbers of rows: {shown}")
    rows = next(iter(counts.values()), 0)
    if rows == 0:
        raise DataError(f"{where}: no rows")
    return rows


def _check_symbols(inputs: Mapping[str, Array], signature: Signature, where: str) -> None:
    """Dimensions of one name have one length."""
    seen: dict[str, tuple[str, int]] = {}
    for spec in signature.inputs:
        shape = inputs[spec.name].shape[1:] if spec.name in inputs else ()
        for symbol, size in zip(spec.shape[1:], shape, strict=False):
            if isinstance(symbol, int):
                continue
            other, length = seen.setdefault(symbol, (spec.name, size))
            if length != size:
                raise DataError(
                    f"{where}: dimension '{symbol}' is {length} in input '{other}' and {size} in"
                    f" input '{spec.name}'"
                )


def _labels(answers: Array | None, rows: int, where: str, is_asked: bool) -> Array | None:
    if answers is None:
        return None
    if answers.ndim == 2 and answers.shape[1] == 1:
        answers = answers[:, 0]
    if answers.shape != (rows,):
        if not is_asked:
            return None
        raise DataError(f"{where}: expected one for each of {rows} rows, got {answers.shape}")
    if answers.dtype.kind in "OSUT":
        answers = _tidy_labels(answers)
    missing = _missing_rows(answers)
    if len(missing):
        raise DataError(f"{where}: row {missing[0]} has none ({len(missing)} rows in all)")
    return np.asarray(answers)


def _tidy_labels(answers: Array) -> Array:
    """Texts as bytes, as a model's outputs are; numbers as numbers."""
    items = answers.tolist()
    if any(isinstance(item, str | bytes) for item in items):
        texts = _as_texts(answers)
        texts[[item is None for item in items]] = None
        return texts
    return np.array([math.nan if item is None else item for item in items])


def _missing_rows(answers: Array) -> Array:
    if answers.dtype.kind == "f":
        return np.flatnonzero(~np.isfinite(answers))
    if answers.dtype.kind == "O":
        return np.array([row for row, item in enumerate(answers) if item is None], np.int64)
    return np.zeros(0, np.int64)


def _missing(spec: TensorSpec, array: Array, before: Array) -> list[str]:
    count = 0
    if spec.datatype in _FLOATS:
        count = int(np.isnan(array.astype(np.float64)).sum())
    elif before.dtype.kind == "O":
        count = sum(1 for item in before.ravel() if _is_missing(item))
    return [f"{count:,} missing values in '{spec.name}'"] if count else []


def _as_texts(array: Array) -> Array:
    texts = np.empty(array.size, dtype=object)
    texts[:] = [_as_bytes(item) for item in array.ravel().tolist()]
    return texts.reshape(array.shape)


def _as_bytes(item: Any) -> bytes:
    if _is_missing(item):
        return b""
    return item if isinstance(item, bytes) else str(item).encode()


def _as_numbers(array: Array, where: str) -> Array:
    """Texts and objects as whole numbers where all are, else as floats."""
    values: list[Any] = []
    for place, item in enumerate(array.ravel().tolist()):
        try:
            values.append(_as_number(item))
        except (TypeError, ValueError):
            row = place // max(1, array.size // len(array))
            raise DataError(f"{where}, row {row}: expected a number, got {item!r}") from None
    is_whole = all(isinstance(value, int) and abs(value) < 2**63 for value in values)
    return np.array(values, np.int64 if is_whole else np.float64).reshape(array.shape)


def _as_number(item: Any) -> int | float:
    if _is_missing(item):
        return math.nan
    if isinstance(item, str | bytes):
        text = item.decode() if isinstance(item, bytes) else item
        return int(text) if text.strip().lstrip("+-").isdecimal() else float(text)
    return int(item) if isinstance(item, bool | int | np.integer) else float(item)


def _as_floats(array: Array, datatype: str, where: str) -> Array:
    with np.errstate(over="ignore"):
        result = array.astype(DTYPES[datatype])
    infinite = np.isinf(result.astype(np.float32) if datatype != "FP64" else result)
    if infinite.any():
        row = int(np.argwhere(infinite)[0][0])
        value = array[infinite][0]
        raise DataError(f"{where}, row {row}: expected a finite {datatype}, got {value}")
    return result


def _as_whole(array: Array, datatype: str, where: str) -> Array:
    dtype = DTYPES[datatype]
    low, high = (0, 1) if datatype == "BOOL" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    fits = np.ones(array.shape, bool)
    if array.dtype.kind not in "biu":
        array = array.astype(np.float64)
        fits = np.isfinite(array) & (array == np.floor(array))
    if array.dtype.kind != "b":
        fits = fits & (array >= low) & (array <= high)
    if not fits.all():
        row = int(np.argwhere(~fits)[0][0])
        value = array[~fits][0]
        raise DataError(f"{where}, row {row}: expected {_range_of(datatype)}, got {value}")
    return array.astype(dtype)


def _range_of(datatype: str) -> str:
    return "0 or 1 (BOOL)" if datatype == "BOOL" else f"a whole number ({datatype})"


def _is_missing(item: Any) -> bool:
    return item is None or (isinstance(item, float) and math.isnan(item))
