"""How good predictions are, and how alike two models' answers are: figures only, no limits.

Labels are compared as texts where either side is text: b"cat" equals "cat", 3 equals "3".
"""

import numpy as np

from protos.tensors import Array

CHANCE = 3.0
"""Standard deviations that are no chance."""
_TIE = 1e-6  # of a cosine: closer neighbours are equally near
_BLOCK = 512  # rows whose similarities to all others are held at once


def accuracy(labels: Array, predicted: Array) -> float:
    """The fraction of rows predicted right."""
    return float(np.mean(same(labels, predicted)))


def macro_f1(labels: Array, predicted: Array) -> float:
    """The mean F1 of all classes that occur in either; every class counts the same."""
    labels, predicted = comparable(labels, predicted)
    classes, codes = np.unique(np.concatenate([labels, predicted]), return_inverse=True)
    wanted, given = codes[: len(labels)], codes[len(labels) :]
    hits = np.bincount(wanted[wanted == given], minlength=len(classes))
    both = np.bincount(wanted, minlength=len(classes)) + np.bincount(given, minlength=len(classes))
    return float(np.mean(2 * hits / both))


def beats_chance(labels: Array, predicted: Array) -> bool:
    """Whether predictions have anything to do with labels (Cohen's kappa is not just luck).

    Accuracy alone does not tell: with 99 % of one class, so much of anything is right.
    """
    labels, predicted = comparable(labels, predicted)
    classes, codes = np.unique(np.concatenate([labels, predicted]), return_inverse=True)
    shares = [np.bincount(side, minlength=len(classes)) for side in np.split(codes, 2)]
    by_chance = float(np.sum(shares[0] * shares[1])) / len(labels) ** 2
    deviation = np.sqrt(by_chance * (1 - by_chance) / len(labels))
    return accuracy(labels, predicted) - by_chance > CHANCE * float(deviation)


def rmse(truth: Array, predicted: Array) -> float:
    """Root mean square error."""
    return float(np.sqrt(np.mean((_floats(truth) - _floats(predicted)) ** 2)))


def r2(truth: Array, predicted: Array) -> float:
    """The share of the truth's variance that is explained; not above 1, NaN without variance."""
    truth, predicted = _floats(truth), _floats(predicted)
    total = float(np.sum((truth - truth.mean(axis=0)) ** 2))
    return 1 - float(np.sum((truth - predicted) ** 2)) / total if total else float("nan")


def cosines(first: Array, second: Array) -> Array:
    """The cosine of each row with the same row of the other; 1 where both are zero."""
    first, second = _floats(first), _floats(second)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    dots = np.einsum("ij,ij->i", first, second)
    are_zero = ~first.any(axis=1) & ~second.any(axis=1)
    return np.where(are_zero, 1.0, dots / np.where(lengths > 0, lengths, 1.0))


def neighbour_agreement(first: Array, second: Array) -> float:
    """The fraction of rows whose nearest other row, by cosine, is the same in both (nn1).

    A neighbour that is as near as the nearest one in `first` counts as the same. Takes time by
    the square of the rows.
    """
    first, second = _unit(first), _unit(second)
    agreed = 0
    for start in range(0, len(first), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(first)))
        near, other = first[rows] @ first.T, second[rows] @ second.T
        near[np.arange(len(rows)), rows] = other[np.arange(len(rows)), rows] = -np.inf
        chosen = near[np.arange(len(rows)), other.argmax(axis=1)]
        agreed += int(np.sum(chosen >= near.max(axis=1) - _TIE))
    return agreed / len(first)


def same(first: Array, second: Array) -> Array:
    """Where two arrays of labels are equal: bool, in their shape."""
    first, second = comparable(first, second)
    return np.asarray(first == second)


def comparable(first: Array, second: Array) -> tuple[Array, Array]:
    """Both as numbers, or both as texts where either is text."""
    if _is_text(first) or _is_text(second):
        return _texts(first), _texts(second)
    return first, second


def _is_text(array: Array) -> bool:
    return array.dtype.kind in "OSUT"


def _texts(array: Array) -> Array:
    return np.array([_text(item) for item in array.ravel()], dtype=str).reshape(array.shape)


def _text(item: object) -> str:
    if isinstance(item, bytes):
        return item.decode("utf-8", "replace")
    if isinstance(item, float | np.floating) and float(item).is_integer():
        return str(int(item))
    if isinstance(item, bool | np.bool_):
        return str(int(item))
    return str(item)


def _unit(rows: Array) -> Array:
    rows = _floats(rows)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1.0))


def _floats(array: Array) -> Array:
    return array.astype(np.float64)
