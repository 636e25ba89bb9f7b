"""Do the rows of a batch influence each other? Tried on the model itself, before it serves.

Rows are run together and alone, at several batch sizes, with different contents and in another
order; equal up to rounding means that requests may share a batch. Kernels differ with the batch
size, so results agree to about 1e-3 of the output's range, not bit by bit.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from optimizer.runner import Run
from protos.signature import Signature, TensorSpec
from protos.tensors import DTYPES, Array

SIZES = (2, 3)  # tried before the latency curve; the largest batch is tried after it
_ABSOLUTE = 1e-6  # differences below this are rounding, however small the output's range
_ALONE_LIMIT = 4  # rows of one batch that are run alone

_INFLUENCE = "rows of a batch influence each other"

Arrays = Mapping[str, Array]
MakeInputs = Callable[[int, int], Arrays]
"""Inputs of so many different rows, from a seed."""


class Finding(NamedTuple):
    """Something that speaks against batching."""

    text: str
    is_exact: bool = False  # about values that must be equal


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Largest difference taken for rounding, relative to the output's range."""

    single: float = 1e-3  # FP32 and FP64 outputs
    half: float = 2e-2  # FP16 and BF16 outputs

    def of(self, array: Array) -> float:
        return self.half if array.dtype.itemsize == 2 else self.single


CPU = Tolerance()
ACCELERATOR = Tolerance(single=1e-2)  # TF32 and other reduced precision inside
# The scale comes from the whole batch: 1.3 % was seen on an INT8 MiniLM, mixing rows gives 30 % up.
DYNAMIC_QUANTIZATION = Tolerance(single=0.1, half=0.1)
# A last bit that differs between kernels becomes a step of INT8, or of BF16, in the next layer.
LOW_PRECISION = Tolerance(single=0.05, half=0.05)


def shape_reason(signature: Signature) -> str:
    """Why the shapes alone rule batching out; empty when dimension 0 may be the batch."""
    if not signature.inputs:
        return "the model has no inputs"
    for kind, specs in (("input", signature.inputs), ("output", signature.outputs)):
        for spec in specs:
            if not spec.shape or isinstance(spec.shape[0], int):
                return f"{kind} '{spec.name}' {_why_no_batch(spec)}"
    batch = {spec.shape[0] for spec in signature.inputs}
    for spec in signature.inputs:
        for axis, size in enumerate(spec.shape):
            if axis and size in batch:
                return f"dimension '{size}' is also dimension {axis} of input '{spec.name}'"
    return ""


def _why_no_batch(spec: TensorSpec) -> str:
    text = f"{spec.datatype}[{', '.join(map(str, spec.shape))}] has no variable dimension 0"
    if spec.optional:
        text += " (it is optional; a config.pbtxt that does not list it hides it)"
    return text


def is_repeatable(run: Run, inputs: Arrays) -> bool:
    """Whether two runs of the same inputs give the same outputs."""
    first, second = run(inputs), run(inputs)
    return all(difference(first[name], second[name]) <= CPU.of(first[name]) for name in first)


def mixing_reason(run: Run, make: MakeInputs, rows: int, tolerance: Tolerance) -> str:
    """Why batches of so many rows are not safe; empty when they are.

    Whole numbers, booleans and texts must be equal. Where they are not, other inputs are tried
    once: the largest of two nearly equal numbers may be either of them.
    """
    finding = _try_rows(run, make(rows, 0), rows, tolerance)
    if finding is not None and finding.is_exact:
        finding = _try_rows(run, make(rows, 1), rows, tolerance)
    return "" if finding is None else finding.text


def _try_rows(run: Run, inputs: Arrays, rows: int, tolerance: Tolerance) -> Finding | None:
    try:
        together = run(inputs)
    except Exception as error:
        return Finding(f"a batch of {rows} rows fails where one row runs: {error}")
    for name, array in together.items():
        if array.ndim == 0 or len(array) != rows:
            return Finding(f"output '{name}' has shape {list(array.shape)} for {rows} rows")
    try:
        alone = _run_alone(run, inputs, together, tolerance)
        return alone or _run_in_another_order(run, inputs, together, tolerance)
    except Exception as error:
        return Finding(f"rows that run together fail alone or in another order: {error}")


def _run_alone(run: Run, inputs: Arrays, together: Arrays, tolerance: Tolerance) -> Finding | None:
    rows = len(next(iter(together.values())))
    for row in _sample(rows):
        alone = run({name: array[row : row + 1] for name, array in inputs.items()})
        expected = {name: array[row : row + 1] for name, array in together.items()}
        finding = compare(alone, expected, together, tolerance)
        if finding is not None:
            what = f"row {row} of {rows} gives {finding.text} when it is run alone"
            return Finding(f"{_INFLUENCE}: {what}", finding.is_exact)
    return None


def _run_in_another_order(
    run: Run, inputs: Arrays, together: Arrays, tolerance: Tolerance
) -> Finding | None:
    order = np.roll(np.arange(len(next(iter(together.values())))), 1)
    moved = run({name: array[order] for name, array in inputs.items()})
    expected = {name: array[order] for name, array in together.items()}
    finding = compare(moved, expected, together, tolerance)
    if finding is None:
        return None
    return Finding(f"{_INFLUENCE}: {finding.text} in another order", finding.is_exact)


def _sample(rows: int) -> list[int]:
    """The rows that are run alone: first, last and some between."""
    count = min(rows, _ALONE_LIMIT)
    return sorted({round(index * (rows - 1) / max(1, count - 1)) for index in range(count)})


def compare(
    actual: Arrays, expected: Arrays, whole: Arrays, tolerance: Tolerance
) -> Finding | None:
    """What differs beyond rounding, relative to the range of `whole`; None when nothing does."""
    for name, array in expected.items():
        other = actual[name]
        if other.shape != array.shape:
            sizes = f"{list(other.shape)} instead of {list(array.shape)}"
            return Finding(f"output '{name}' of shape {sizes}")
        gap = difference(other, array, whole[name])
        if gap > tolerance.of(array):
            if not is_float(array):
                return Finding(f"another '{name}' (whole numbers and texts must be equal)", True)
            return Finding(f"another '{name}' (by {gap:.2g} of its range)")
    return None


def is_float(array: Array) -> bool:
    """Whether values are compared up to rounding."""
    return array.dtype.kind == "f" or array.dtype == DTYPES["BF16"]


def difference(first: Array, second: Array, whole: Array | None = None) -> float:
    """The largest difference, relative to the range of `whole`; infinite where NaN or inf differ.

    1 for values that must be equal and are not.
    """
    if first.shape != second.shape:
        return np.inf
    if not is_float(first):
        return 0.0 if bool((first == second).all()) else 1.0
    a, b = first.astype(np.float64), second.astype(np.float64)
    finite = np.isfinite(a)
    if (
        not np.array_equal(a[~finite], b[~finite], equal_nan=True)
        or not np.isfinite(b[finite]).all()
    ):
        return np.inf
    gap = float(np.abs(a[finite] - b[finite]).max(initial=0.0))
    scope = b if whole is None else whole.astype(np.float64)
    scale = float(np.abs(scope[np.isfinite(scope)]).max(initial=0.0))
    return 0.0 if gap <= _ABSOLUTE else gap / max(scale, _ABSOLUTE)
