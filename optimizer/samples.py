"""Rows of input, with the right answers where they are known: for calibration and validation."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from optimizer.errors import DataError
from protos.tensors import Array

_LABELS = "__labels__"


@dataclass(frozen=True, slots=True)
class Samples:
    """Inputs by name, all with the same number of rows in dimension 0.

    BYTES are object arrays of bytes. Generated rows are good for finding crashes and wrong
    arithmetic, not for accuracy.
    """

    inputs: Mapping[str, Array]
    labels: Array | None = None  # [rows]
    is_real: bool = True  # False: made up from the signature
    origin: str = ""  # for reports: "calibration.npz, 1,257 rows"

    @property
    def rows(self) -> int:
        return len(next(iter(self.inputs.values()))) if self.inputs else 0

    def take(self, rows: Array) -> "Samples":
        """The rows of these indices (int64[n]), in their order."""
        inputs = {name: array[rows] for name, array in self.inputs.items()}
        labels = None if self.labels is None else self.labels[rows]
        return replace(self, inputs=inputs, labels=labels)

    def batch(self, rows: int, start: int = 0) -> dict[str, Array]:
        """`rows` rows as inputs of one request, from `start` on, repeated where there are fewer."""
        indices = np.arange(start, start + rows) % self.rows
        return {name: array[indices] for name, array in self.inputs.items()}

    def save(self, path: Path) -> None:
        """Writes an .npz that `load` reads; strings are kept as fixed-width bytes."""
        arrays = {f"x:{name}": _storable(array) for name, array in self.inputs.items()}
        if self.labels is not None:
            arrays[_LABELS] = _storable(self.labels)
        meta = np.array([str(self.is_real), self.origin])
        with path.open("wb") as file:
            np.savez(file, __meta__=meta, **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path) -> "Samples":
        """Raises DataError where `path` was not written by `save`."""
        try:
            with np.load(path, allow_pickle=False) as file:
                is_real, origin = (str(text) for text in file["__meta__"])
                inputs = {k[2:]: _restored(file[k]) for k in file.files if k.startswith("x:")}
                labels = _restored(file[_LABELS]) if _LABELS in file.files else None
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"'{path}' holds no samples: {error}") from None
        return cls(inputs, labels, is_real == "True", origin)


def _storable(array: Array) -> Array:
    if array.dtype.kind != "O":
        return array
    texts = [item if isinstance(item, bytes) else str(item).encode() for item in array.ravel()]
    # A zero byte at the end would be lost: every text ends in a mark.
    return np.array([text + b"\x01" for text in texts], dtype="S").reshape(array.shape)


def _restored(array: Array) -> Array:
    if array.dtype.kind != "S":
        return array
    texts = np.empty(array.size, dtype=object)
    texts[:] = [bytes(item)[:-1] for item in array.ravel()]
    return texts.reshape(array.shape)
