"""Rows to calibrate and validate with: from files and databases, checked against a signature.

One file per format, each of which only reads; `columns.py` makes inputs of a table's columns,
`fitting.py` checks arrays against the signature. Runs in child processes.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from optimizer.data import csv_file, jsonl_file, npy_file, npz_file, parquet_file, sql
from optimizer.data.columns import inputs_of_table
from optimizer.data.fitting import fit
from optimizer.data.found import Found
from optimizer.data.generated import generate
from optimizer.data.spec import DataSpec
from optimizer.errors import DataError
from optimizer.samples import Samples
from protos.signature import Signature

__all__ = ["SUFFIXES", "DataSpec", "generate", "read"]

_READERS: Mapping[str, Callable[[Path, Signature, str | None], Found]] = {
    ".npz": npz_file.read,
    ".npy": npy_file.read,
    ".csv": csv_file.read,
    ".parquet": parquet_file.read,
    ".jsonl": jsonl_file.read,
}
SUFFIXES = tuple(_READERS)


def read(spec: DataSpec, signature: Signature, databases: Mapping[str, str]) -> Samples:
    """The rows that `spec` names, as inputs of a model with this signature.

    `databases` are the connections that the operator named: URLs by name. Blocks. Of a file with
    more rows than the limit, rows at random are taken, always the same ones.

    Raises:
        DataError: they cannot be read or do not fit the signature; names file or connection,
            column or input, row, what was expected and what was found.
        Unavailable: a library for this format is not installed; names the extra.
    """
    if spec.source == "sql":
        where = f"database '{spec.database}'"
        found = sql.read(spec, databases)
    else:
        where = f"'{spec.path}'"
        found = _limited(_read_file(spec, signature), spec.row_limit)
    if found.is_table:
        found = inputs_of_table(found, signature, spec.labels, where)
    return fit(found, signature, spec.labels, where, _origin(spec))


def _origin(spec: DataSpec) -> str:
    """For reports, which others may read than those who know the folders."""
    if spec.source == "sql":
        return spec.origin or f"query on '{spec.database}'"
    return spec.origin or str(spec.path and spec.path.name)


def _read_file(spec: DataSpec, signature: Signature) -> Found:
    if spec.path is None:
        raise DataError("data of source 'file': expected a path, got none")
    reader = _READERS.get(spec.path.suffix.lower())
    if reader is None:
        known = ", ".join(_READERS)
        raise DataError(f"'{spec.path}': no known data format, expected one of {known}")
    if not spec.path.is_file():
        raise DataError(f"'{spec.path}': no such file")
    return reader(spec.path, signature, spec.labels)


def _limited(found: Found, limit: int) -> Found:
    rows = min((len(array) for array in found.arrays.values() if array.ndim), default=0)
    if rows <= limit:
        return found
    taken = np.sort(np.random.default_rng(0).choice(rows, limit, replace=False))
    arrays = {
        name: array[taken] if array.ndim and len(array) == rows else array
        for name, array in found.arrays.items()
    }
    return Found(arrays, found.is_table, (*found.notes, f"{limit:,} of {rows:,} rows, at random"))
