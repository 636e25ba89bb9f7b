"""Inputs out of a table's columns.

In this order: every input has a column of its name; one column is left for one input; one input of
numbers takes all columns of numbers in their order; the inputs' values are numbered columns
("x_0", "x_1", ...).
"""

import json
import numbers
import re
from collections.abc import Mapping
from decimal import Decimal
from math import prod

import numpy as np

from optimizer.data.found import Found, label_name, listed, stacked
from optimizer.errors import DataError
from protos.signature import Signature, TensorSpec
from protos.tensors import Array


def inputs_of_table(table: Found, signature: Signature, labels: str | None, where: str) -> Found:
    """Arrays by the inputs' names, and the labels under the name they had.

    Raises:
        DataError: the columns do not make the inputs; names them.
    """
    columns = {name: _tidy(column) for name, column in table.arrays.items()}
    if not any(len(column) for column in columns.values()):
        raise DataError(f"{where}: no rows")
    label = label_name(list(columns), signature, labels, where)
    answers = {} if label is None else {label: columns.pop(label)}
    required = [spec for spec in signature.inputs if not spec.optional]
    notes = list(table.notes)
    inputs = _inputs(columns, required, where, notes)
    for spec in signature.inputs:
        if spec.optional and spec.name in columns:
            inputs[spec.name] = _column(columns[spec.name], spec, where, notes)
    return Found(inputs | answers, notes=tuple(notes))


def _inputs(
    columns: Mapping[str, Array], required: list[TensorSpec], where: str, notes: list[str]
) -> dict[str, Array]:
    if all(spec.name in columns for spec in required):
        return {s.name: _column(columns[s.name], s, where, notes) for s in required}
    if len(required) == 1:
        spec = required[0]
        if len(columns) == 1:
            return {spec.name: _column(next(iter(columns.values())), spec, where, notes)}
        if spec.datatype != "BYTES":
            return {spec.name: _all_numbers(columns, spec, where, notes)}
    numbered = {spec.name: _numbered(columns, spec.name) for spec in required}
    missing = [name for name, members in numbered.items() if not members]
    if missing:
        raise DataError(
            f"{where}: no column for {listed(missing)}, there are {listed(list(columns))}"
        )
    return {s.name: _matrix(columns, numbered[s.name], s, where) for s in required}


def _all_numbers(
    columns: Mapping[str, Array], spec: TensorSpec, where: str, notes: list[str]
) -> Array:
    members = [name for name, column in columns.items() if column.dtype.kind in "biuf"]
    others = [name for name in columns if name not in members]
    width = _width(spec)
    if width is not None and len(members) != width:
        own = _numbered(columns, spec.name)
        if len(own) != width:
            raise DataError(
                f"{where}: input '{spec.name}' takes {width} numbers, there are {len(members)}"
                f" columns of numbers ({listed(members)}) and of other kinds {listed(others)};"
                " is one of them the label?"
            )
        members = own
    if others:
        notes.append(f"ignored columns {listed(others)}")
    return _matrix(columns, members, spec, where)


def _matrix(
    columns: Mapping[str, Array], members: list[str], spec: TensorSpec, where: str
) -> Array:
    """Columns side by side, in the shape of the input where that has more axes and is fixed."""
    matrix = np.stack([columns[name] for name in members], axis=1)
    sizes = spec.shape[1:]
    if len(sizes) < 2 or not all(isinstance(size, int) for size in sizes):
        return matrix
    if prod(int(size) for size in sizes) != len(members):
        shape = list(spec.shape)
        raise DataError(f"{where}: {len(members)} columns do not make '{spec.name}' {shape}")
    return matrix.reshape(len(matrix), *(int(size) for size in sizes))


def _width(spec: TensorSpec) -> int | None:
    """How many numbers a row is; None where that is open."""
    sizes = spec.shape[1:]
    if not all(isinstance(size, int) for size in sizes):
        return None
    return prod(int(size) for size in sizes)


def _numbered(columns: Mapping[str, Array], name: str) -> list[str]:
    """Columns "name_0", "name1", "name[2]", by their number."""
    pattern = re.compile(re.escape(name) + r"[_.\[ ]?(\d+)\]?")
    found = [(int(match[1]), column) for column in columns if (match := pattern.fullmatch(column))]
    return [column for _, column in sorted(found)]


def _column(column: Array, spec: TensorSpec, where: str, notes: list[str]) -> Array:
    """A column that is an input by itself; its cells may be lists, or lists as JSON."""
    where = f"{where}, column '{spec.name}'"
    if column.dtype.kind != "O":
        return column
    first = next((item for item in column if item is not None), None)
    if isinstance(first, str) and first.lstrip().startswith("[") and spec.datatype != "BYTES":
        column = _parsed(column, where)
        first = column[0]
    if not isinstance(first, list | tuple | np.ndarray):
        return column
    array, n_short = stacked(list(column), where, spec.shape)
    if n_short:
        notes.append(f"'{spec.name}' filled up with zeros in {n_short:,} rows")
    return array


def _parsed(column: Array, where: str) -> Array:
    values = np.empty(len(column), dtype=object)
    for row, text in enumerate(column):
        try:
            values[row] = json.loads(text)
        except (TypeError, ValueError):
            raise DataError(f"{where}, row {row}: expected a list as JSON, got {text!r}") from None
    return values


def _tidy(column: Array) -> Array:
    """A column of numbers and missing values as numbers; others as they are."""
    if column.dtype.kind != "O":
        return column
    kinds = {type(item) for item in column if item is not None}
    if not all(issubclass(kind, numbers.Real | Decimal | np.bool_) for kind in kinds):
        return column
    is_whole = all(issubclass(kind, numbers.Integral | np.bool_) for kind in kinds)
    if is_whole and all(item is not None for item in column):
        try:
            return column.astype(np.int64)
        except OverflowError:
            return column.astype(np.float64)
    return np.array([np.nan if item is None else float(item) for item in column], np.float64)
