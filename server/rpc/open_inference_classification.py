"""The classification extension: an output as its best classes, "value:index[:label]" each."""

import heapq
from collections.abc import Sequence
from math import prod

import numpy as np

from protos.tensors import Array, datatype_of
from server.errors import InvalidRequest

_UNORDERED = {"BOOL", "BYTES", "FP16", "BF16"}  # Triton ranks all other datatypes


def classify(scores: Array, n_classes: int, *, batched: bool, labels: Sequence[str] = ()) -> Array:
    """BYTES[batch, n] (BYTES[n] unbatched): the n highest scores of each row, best first.

    Where a row has fewer than `n_classes` scores, all are returned. Equal scores keep their
    order. `labels` name the classes by index; a missing or empty one is left out.

    Raises:
        InvalidRequest: scores of this datatype are not ranked.
    """
    datatype = datatype_of(scores)
    if datatype in _UNORDERED:
        raise InvalidRequest(
            f"class result not available for output due to unsupported type '{datatype}'"
        )
    rows = scores if batched else scores[np.newaxis]
    rows = rows.reshape(len(rows), prod(rows.shape[1:]))
    n_best = min(n_classes, rows.shape[1])
    best = np.empty((len(rows), n_best), dtype=object)
    for row, values in enumerate(rows.tolist()):
        order = heapq.nlargest(n_best, range(len(values)), key=values.__getitem__)
        best[row] = [_text(values[index], index, labels) for index in order]
    return best if batched else best.reshape(n_best)


def _text(value: float | int, index: int, labels: Sequence[str]) -> bytes:
    number = f"{value:.6f}" if isinstance(value, float) else str(value)
    label = labels[index] if index < len(labels) else ""
    return f"{number}:{index}:{label}".encode() if label else f"{number}:{index}".encode()
