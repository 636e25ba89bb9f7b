"""Reads the data files that people have: numpy, CSV, JSON. What a model wants is not known here."""

import csv
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from protos.tensors import Array
from server.commands.connection import CommandError


@dataclass(frozen=True, slots=True)
class Table:
    """A CSV file: its cells as text, and the names of its columns if its first line has them."""

    path: Path
    columns: tuple[str, ...]  # empty: no header
    cells: Array  # str[rows, columns]


Data: TypeAlias = Mapping[str, Array] | Array | Table


def read_data(path: Path) -> Data:
    """Arrays by name, one array without a name, or a table.

    Raises:
        CommandError: the file cannot be read; says why in one line.
    """
    readers = {
        ".npz": _read_numpy,
        ".npy": _read_numpy,
        ".csv": _read_csv,
        ".json": _read_json,
        ".jsonl": _read_json_lines,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise CommandError(f"--data: expected a file ending in {', '.join(readers)}, got '{path}'")
    try:
        return reader(path)
    except OSError as error:
        raise CommandError(f"--data: cannot read '{path}': {error.strerror or error}") from None
    except (ValueError, zipfile.BadZipFile, csv.Error) as error:
        raise CommandError(f"--data: '{path}' cannot be understood: {error}") from None


def _read_numpy(path: Path) -> Data:
    try:
        loaded = np.load(path, allow_pickle=False)
    except EOFError:
        raise ValueError("the file is empty") from None
    if isinstance(loaded, np.ndarray):
        return loaded
    with loaded:
        return {name: loaded[name] for name in loaded.files}


def _read_csv(path: Path) -> Data:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.reader(file) if row]
    if not rows:
        raise ValueError("the file is empty")
    for number, row in enumerate(rows, 1):
        if len(row) != len(rows[0]):
            raise ValueError(f"row {number} has {len(row)} cells, the first has {len(rows[0])}")
    columns = tuple(cell.strip() for cell in rows[0])
    if any(is_number(cell) for cell in columns):
        columns = ()
    cells = rows[1:] if columns else rows
    return Table(path, columns, np.array(cells, dtype=str).reshape(len(cells), len(rows[0])))


def _read_json(path: Path) -> Data:
    return _of_json(json.loads(path.read_text(encoding="utf-8")))


def _read_json_lines(path: Path) -> Data:
    """One row per line: an object of values by input name, or just the value."""
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines if line.strip()]
    if not rows:
        raise ValueError("the file is empty")
    if not all(isinstance(row, dict) for row in rows):
        return _array("rows", rows)
    for number, row in enumerate(rows, 1):
        if row.keys() != rows[0].keys():
            raise ValueError(f"row {number} has {[*row]}, the first has {[*rows[0]]}")
    return {name: _array(name, [row[name] for row in rows]) for name in rows[0]}


def _of_json(document: Any) -> Data:
    if isinstance(document, dict):
        return {name: _array(name, value) for name, value in document.items()}
    if isinstance(document, list) and document and all(isinstance(r, dict) for r in document):
        return {name: _array(name, [row.get(name) for row in document]) for name in document[0]}
    return _array("the document", document)


def _array(name: str, value: Any) -> Array:
    try:
        array = np.asarray(value)
    except ValueError:
        raise ValueError(
            f"{name}: the rows are not of one length; put those of each length in a file"
        ) from None
    if array.dtype == object:
        raise ValueError(f"{name}: expected numbers or texts in nested lists")
    return array


def is_number(cell: str) -> bool:
    """Whether a cell of a table is a number."""
    try:
        float(cell)
    except ValueError:
        return False
    return True
