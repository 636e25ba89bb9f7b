"""`.jsonl`: one JSON object a line, input name -> number, text or nested list."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from optimizer.data.found import Found, label_name, listed, stacked
from optimizer.errors import DataError
from protos.signature import Signature
from protos.tensors import Array


def read(path: Path, signature: Signature, labels: str | None) -> Found:
    """Reads all rows; sequences of different lengths are filled with zeros at the end.

    Masks among the inputs are filled with zeros as well, so what was added is masked.

    Raises:
        DataError: no JSON, a row lacks an input, or lengths differ where they are fixed; names
            the line.
    """
    rows = _rows(path)
    names = list(rows[0]) if rows else []
    known = {spec.name: spec.shape for spec in signature.inputs}
    label = label_name(names, signature, labels, f"'{path}'")
    arrays: dict[str, Array] = {}
    notes = []
    for name in names:
        if name != label and name not in known:
            continue
        items = [_item(row, name, path, number) for number, row in enumerate(rows)]
        where = f"'{path}', '{name}'"
        if name == label:
            arrays[name] = _plain(items)
            continue
        arrays[name], n_short = stacked(items, where, known[name])
        if n_short:
            notes.append(f"'{name}' filled up with zeros in {n_short:,} rows")
    if rows and not any(name in known for name in arrays):
        raise DataError(f"'{path}': expected inputs {listed(list(known))}, got {listed(names)}")
    return Found(arrays, notes=tuple(notes))


def _rows(path: Path) -> list[Mapping[str, Any]]:
    rows = []
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    rows.append(_object(line, f"'{path}', line {number}"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"'{path}': cannot be read: {error}") from None
    return rows


def _object(line: str, where: str) -> Mapping[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where}: no JSON: {error}") from None
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected an object of inputs, got {type(value).__name__}")
    return value


def _item(row: Mapping[str, Any], name: str, path: Path, number: int) -> Any:
    if name not in row:
        raise DataError(f"'{path}', row {number}: '{name}' is missing, row 0 has it")
    return row[name]


def _plain(items: list[Any]) -> Array:
    values = np.empty(len(items), dtype=object)
    values[:] = items
    return values
