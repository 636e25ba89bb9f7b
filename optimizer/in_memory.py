"""Rows that are given as Python objects: arrays, arrays by name, tables."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from optimizer.errors import DataError
from optimizer.samples import Samples
from protos.signature import Signature
from protos.tensors import Array

if TYPE_CHECKING:
    from optimizer.data import DataSpec

_DATA, _LABELS = "data", "labels of the rows"  # names in files made of arrays
_ORIGIN = "rows given in Python"


def first_rows(data: Any) -> Any:
    """Two rows as an example: one could be taken for a dimension that is always 1."""
    if data is None or isinstance(data, str | Path):
        return None
    inputs = _inputs_and_labels(data)[0]
    if isinstance(inputs, Mapping):
        return {name: np.asarray(array)[:2] for name, array in inputs.items()}
    return inputs[:2]


def written(data: Any, labels: str | None, folder: Path) -> "DataSpec | None":
    """Where the rows are: those in memory are written to a file first.

    `data`: None, a path, X or (X, y); X is an array, arrays by input name, or a table.

    Raises:
        DataError: it is something else.
    """
    from optimizer.data import DataSpec  # noqa: PLC0415

    if data is None or isinstance(data, DataSpec):
        return data
    if isinstance(data, str | Path):
        return DataSpec("file", path=Path(data).expanduser().absolute(), labels=labels)
    inputs, answers = _inputs_and_labels(data)
    name = None if answers is None else _LABELS
    if hasattr(inputs, "to_csv"):
        path = folder / "rows.csv"
        table = inputs if answers is None else inputs.assign(**{_LABELS: np.asarray(answers)})
        table.to_csv(path, index=False)
        return DataSpec("file", path=path, labels=name, origin=_ORIGIN)
    arrays = inputs if isinstance(inputs, Mapping) else {_DATA: inputs}
    named = {key: _plain(array) for key, array in arrays.items()}
    if answers is not None:
        named[_LABELS] = _plain(answers)
    path = folder / "rows.npz"
    np.savez(path, **named)  # type: ignore[arg-type]
    return DataSpec("file", path=path, labels=name, origin=_ORIGIN)


def _inputs_and_labels(data: Any) -> tuple[Any, Any]:
    if isinstance(data, tuple):
        if len(data) != 2:
            raise DataError(f"data: expected (X, y), got {len(data)} values")
        return data
    return data, None


def _plain(values: Any) -> Array:
    """Without Python objects, which are not read back."""
    array: Array = np.asarray(values)
    if array.dtype.kind != "O":
        return array
    texts = ["" if item is None else _text(item) for item in array.ravel()]
    return np.array(texts).reshape(array.shape)


def _text(item: object) -> str:
    return item.decode() if isinstance(item, bytes) else str(item)


def fitted(x: Any, signature: Signature) -> Samples:
    """Rows as a model of this signature takes them.

    Raises:
        DataError: they do not fit; names input, expected and given.
    """
    from optimizer.data.columns import inputs_of_table  # noqa: PLC0415
    from optimizer.data.fitting import fit  # noqa: PLC0415
    from optimizer.data.found import Found  # noqa: PLC0415

    if hasattr(x, "to_csv"):
        columns = {str(name): x[name].to_numpy() for name in x.columns}
        found = inputs_of_table(Found(columns, is_table=True), signature, None, "x")
    elif isinstance(x, Mapping):
        found = Found({name: np.asarray(array) for name, array in x.items()})
    else:
        name = next(spec.name for spec in signature.inputs if not spec.optional)
        found = Found({name: np.asarray(x)})
    return fit(found, signature, None, "x", "x")
