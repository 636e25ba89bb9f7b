"""Columns of a pandas table as numpy arrays."""

from types import ModuleType
from typing import Any

import numpy as np

from optimizer.data.found import Found
from optimizer.errors import DataError, Unavailable


def pandas(path: object) -> ModuleType:
    """The library.

    Raises:
        Unavailable: it is not installed.
    """
    try:
        import pandas as module  # noqa: PLC0415 - an extra
    except ImportError:
        needs = "pandas and pyarrow: install inflight[tables]"
        raise Unavailable(f"reading '{path}' needs {needs}") from None
    return module  # type: ignore[no-any-return]


def columns_of(frame: Any, where: str) -> Found:
    """All columns, without the row numbers that `to_csv` and `to_parquet` write by default."""
    names = [str(name) for name in frame.columns]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{where}: column '{twice}' is there twice")
    columns = {name: _values(frame.iloc[:, i]) for i, name in enumerate(names)}
    numbered = columns.pop("Unnamed: 0", None)
    return Found(columns, True, ("ignored row numbers",) if numbered is not None else ())


def _values(column: Any) -> Any:
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "biuf":
        return column.to_numpy()
    values = np.empty(len(column), dtype=object)
    missing = column.isna().to_numpy()
    values[:] = [None if gone else item for item, gone in zip(column, missing, strict=True)]
    return values
