"""Divides rows into those that passes may learn from and those that prove them right.

The two have no row in common, and no copy of a row either: a candidate must not be judged by what
its scales were fitted to.
"""

import hashlib
from dataclasses import replace

import numpy as np

from optimizer.samples import Samples
from protos.tensors import Array, encode

CALIBRATION_ROWS = 512
"""At most; ranges of activations do not change any more with more rows."""
VALIDATION_ROWS = 2048
"""At most; a difference of 0.1 % in accuracy is then two rows."""


def split(
    samples: Samples,
    seed: int,
    calibration_rows: int = CALIBRATION_ROWS,
    validation_rows: int = VALIDATION_ROWS,
) -> tuple[Samples, Samples]:
    """Rows for calibration and rows for validation, at random but the same for the same seed.

    Validation gets at least half of the different rows, and the only one where there is only one:
    calibration may be empty. Where the labels are classes, both sides have all of them in the same
    shares. Calibration holds no row twice; validation keeps repeated rows, they count.
    """
    groups = groups_of(samples)
    order = _order(groups, samples.labels, seed)
    n_calibration = min(calibration_rows, len(order) // 2)
    first_of_group = np.unique(groups, return_index=True)[1]
    calibration = first_of_group[order[:n_calibration]]
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    rest = np.flatnonzero(place[groups] >= n_calibration)
    validation = rest[np.argsort(place[groups[rest]], kind="stable")][:validation_rows]
    return _side(samples, calibration, "calibration"), _side(samples, validation, "validation")


def groups_of(samples: Samples) -> Array:
    """The number of the group of identical rows that each row belongs to: int64[rows]."""
    digests = [_digest(samples, row) for row in range(samples.rows)]
    return np.unique(np.array(digests, dtype="S16"), return_inverse=True)[1]


def _digest(samples: Samples, row: int) -> bytes:
    digest = hashlib.blake2b(digest_size=8)
    for array in samples.inputs.values():
        digest.update(encode(array[row : row + 1]))
    # A fixed-width text loses zero bytes at its end: none of these has any.
    return digest.hexdigest().encode()


def _order(groups: Array, labels: Array | None, seed: int) -> Array:
    """All groups, shuffled so that every stretch has the classes in their shares."""
    random = np.random.default_rng(seed)
    count = int(groups.max()) + 1 if len(groups) else 0
    shuffled = random.permutation(count)
    if labels is None or not _are_classes(labels):
        return shuffled
    first_of_group = np.unique(groups, return_index=True)[1]
    codes = np.unique(labels.astype(str), return_inverse=True)[1][first_of_group]
    position = np.empty(count)
    for code in np.unique(codes):
        members = shuffled[codes[shuffled] == code]
        position[members] = (np.arange(len(members)) + random.random()) / len(members)
    return np.argsort(position, kind="stable")


def _are_classes(labels: Array) -> bool:
    """Texts, whole numbers or booleans that repeat; not amounts."""
    if labels.ndim != 1 or (labels.dtype.kind == "f" and (labels % 1 != 0).any()):
        return False
    return len(np.unique(labels.astype(str))) <= max(2, len(labels) // 4)


def _side(samples: Samples, rows: Array, name: str) -> Samples:
    taken = samples.take(rows)
    return replace(taken, origin=f"{samples.origin}: {len(rows):,} rows for {name}")
