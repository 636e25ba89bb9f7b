"""How far a candidate's numbers are from the original's, on the scale of the original's output.

An absolute difference says nothing (outputs of 1e-7 and of 1e6 exist), and neither does a cosine
(0.47 was measured between two right answers near zero). So differences are divided by the range
that the original's output takes, told from its values so that a few extreme rows do not hide the
others: a row is measured by the range of nearly all rows, or by its own size where that is larger.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from optimizer.answers import Answer
from protos.tensors import Array

CONSTANT = 1e-6  # of the largest value: outputs that vary less over the rows are constant
NEAR_ZERO = 1e-6  # outputs that are nowhere larger hold nothing but rounding
_USUAL = (5, 95)  # per cent of rows whose values make the range
_SPREAD = 75  # per cent of rows that are no farther from the middle than the spread
_BLOCK = 1 << 22  # values worked on at once
_ROUNDING = {"float16": 2.0**-10, "bfloat16": 2.0**-7}  # of a value, by dtype
_FP32_ROUNDING = 2.0**-22  # of others: FP64 outputs may be computed in FP32


@dataclass(frozen=True, slots=True)
class Difference:
    """Of one output."""

    name: str
    worst: float  # largest difference relative to the range
    worst_row: int
    mean: float  # mean over rows of the root mean square difference relative to the spread
    largest: float  # absolute, the original's
    largest_difference: float  # absolute
    is_constant: bool  # the original says the same in every row
    is_near_zero: bool

    @property
    def is_telling(self) -> bool:
        """Whether a candidate that computed nonsense would be noticed."""
        return not (self.is_constant or self.is_near_zero)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Figures of each answer."""

    low: Array
    high: Array
    size: Array  # root mean square of the distance from the middle
    reach: Array  # largest distance from the middle
    off: Array  # largest difference
    off_size: Array  # root mean square difference


def difference(answer: Answer) -> Difference:
    """Compares where the original is finite; elsewhere `same_kind` has the say."""
    middle = _middle(answer.reference)
    rows = _rows(answer, middle)
    span = float(np.percentile(rows.high, _USUAL[1]) - np.percentile(rows.low, _USUAL[0]))
    largest = float(np.maximum(np.abs(rows.low), np.abs(rows.high)).max(initial=0))
    is_constant = _is_constant(answer.reference, largest)
    # An output without a range is measured by its size, one without a size by what is near zero.
    size = max(largest, NEAR_ZERO)
    least = size if is_constant or largest < NEAR_ZERO else 0.0
    relative = _divide(rows.off, np.maximum(np.maximum(span, rows.reach), least), size)
    spread = np.maximum(np.percentile(rows.size, _SPREAD), rows.size)
    mean = float(np.mean(_divide(rows.off_size, np.maximum(spread, least), size)))
    worst = int(relative.argmax())
    return Difference(
        answer.name,
        float(relative[worst]),
        int(answer.row_of[worst]),
        mean,
        largest,
        float(rows.off.max(initial=0)),
        is_constant,
        largest < NEAR_ZERO,
    )


def columns(answer: Answer) -> list[Answer]:
    """Each value as an output of its own: targets of a regressor have scales of their own."""
    width = answer.reference.shape[1]
    if width == 1 or width > 64:
        return [answer]
    return [
        Answer(
            f"{answer.name}[{index}]",
            answer.kind,
            answer.reference[:, index : index + 1],
            answer.candidate[:, index : index + 1],
            answer.row_of,
        )
        for index in range(width)
    ]


def strange_number(answer: Answer) -> str:
    """The first NaN or infinity that the original does not have; empty where there is none."""
    for start, first, second in _blocks(answer):
        strange = ~np.isfinite(second) & np.isfinite(first)
        if strange.any():
            place = int(np.flatnonzero(strange.any(axis=1))[0])
            value = second[place][strange[place]][0]
            row = int(answer.row_of[start + place])
            return (
                f"output '{answer.name}' has {value} in row {row}, where the original has"
                f" {first[place][strange[place]][0]:.6g}"
            )
    return ""


def lost_number(answer: Answer) -> str:
    """The first row where the original has NaN or infinity and the candidate something else."""
    for start, first, second in _blocks(answer):
        differs = ~np.isfinite(first) & ~((first == second) | (np.isnan(first) & np.isnan(second)))
        if differs.any():
            row = int(answer.row_of[start + int(np.flatnonzero(differs.any(axis=1))[0])])
            return f"output '{answer.name}' is not {first[differs][0]} in row {row} as the original"
    return ""


def finite_answers(answer: Answer) -> Array:
    """Which answers of the original are finite throughout: bool[answers]."""
    parts = [np.isfinite(first).all(axis=1) for _, first, _ in _blocks(answer)]
    return np.concatenate(parts) if parts else np.zeros(0, bool)


def _rows(answer: Answer, middle: float) -> _Rows:
    rounding = _ROUNDING.get(answer.reference.dtype.name, _FP32_ROUNDING)
    parts = [_row_figures(first, second, middle, rounding) for _, first, second in _blocks(answer)]
    return _Rows(*(np.concatenate(figures) for figures in zip(*parts, strict=True)))


def _row_figures(first: Array, second: Array, middle: float, rounding: float) -> tuple[Array, ...]:
    is_usable = np.isfinite(first)
    first = np.where(is_usable, first, middle)
    off = np.abs(np.where(is_usable, second, middle) - first)
    # What the type itself cannot tell apart is no difference: 1e6 and 1e6 + 0.1 in FP32.
    off = np.maximum(off - rounding * np.abs(first), 0)
    distance = np.abs(first - middle)
    return (
        first.min(axis=1),
        first.max(axis=1),
        np.sqrt(np.mean(distance**2, axis=1)),
        distance.max(axis=1),
        off.max(axis=1),
        np.sqrt(np.mean(off**2, axis=1)),
    )


def _middle(reference: Array) -> float:
    values = reference.reshape(-1)
    sample = values[:: max(1, values.size // 100_000)].astype(np.float64)
    finite = sample[np.isfinite(sample)]
    return float(np.median(finite)) if finite.size else 0.0


def _is_constant(reference: Array, largest: float) -> bool:
    """Whether every row is the same; of one row nothing can be said."""
    low = high = None
    for start in range(0, len(reference), _block_rows(reference)):
        part = reference[start : start + _block_rows(reference)].astype(np.float64)
        part = np.where(np.isfinite(part), part, 0.0)
        low = part.min(axis=0) if low is None else np.minimum(low, part.min(axis=0))
        high = part.max(axis=0) if high is None else np.maximum(high, part.max(axis=0))
    if low is None or high is None or len(reference) < 2:
        return False
    return float((high - low).max()) <= CONSTANT * largest


def _divide(off: Array, scale: Array, instead: float) -> Array:
    return np.asarray(off / np.where(scale > 0, scale, instead))


def _blocks(answer: Answer) -> Iterator[tuple[int, Array, Array]]:
    """Parts of both as float64, with the index of their first answer."""
    step = _block_rows(answer.reference)
    for start in range(0, len(answer.reference), step):
        rows = slice(start, start + step)
        yield (
            start,
            answer.reference[rows].astype(np.float64),
            answer.candidate[rows].astype(np.float64),
        )


def _block_rows(reference: Array) -> int:
    return max(1, _BLOCK // max(1, int(reference.shape[1])))
