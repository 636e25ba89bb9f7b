"""Whether a converted model is the same model: by its worst row, never by its labels alone.

Labels hide wrong arithmetic: a conversion can agree in every label and be wrong by 0.4 in a
probability. So numbers are compared row by row, relative to the range of their output, and a label
may differ only where the original itself is undecided.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from optimizer.artifact import Artifact
from optimizer.batches import run_in_batches
from optimizer.benchmark import fixed_rows
from optimizer.errors import ConversionError, OptimizationError
from optimizer.frameworks.contract import NativeModel
from optimizer.runner import Opener, Runner, run_all
from optimizer.samples import Samples
from protos.signature import Signature
from protos.tensors import Array

TOLERANCE = 1e-4  # of an output's range; conversions that are right stay below 1e-5
TYPICAL_ROWS = 512
_REAL_ROWS = 2048
_BLOCK = 256  # rows of one run
_SINGLE = 4  # rows also run one by one: runtimes have other code for a single row
_ROUNDING = 4 * float(np.finfo(np.float32).eps)  # relative; no difference for FP32


@dataclass(frozen=True, slots=True)
class OutputParity:
    """One output's worst row."""

    name: str
    worst: float  # largest difference relative to the output's range; of labels: 0
    row: int  # where; -1: nowhere
    expected: str = ""  # the original's value there
    got: str = ""
    agreement: float = 1.0  # of labels: share of rows with the same label
    wrong_labels: int = 0  # labels that differ where the original is not undecided


@dataclass(frozen=True, slots=True)
class Parity:
    """How far a converted model is from its original."""

    outputs: tuple[OutputParity, ...]
    rows: int
    reason: str = ""  # why it is another model, with the figure

    @property
    def is_same(self) -> bool:
        return not self.reason

    @property
    def worst(self) -> float:
        return max((output.worst for output in self.outputs), default=0.0)


def check(native: NativeModel, converted: Runner, rows: Samples) -> Parity:
    """Runs both on the rows and compares all outputs."""
    reason = _signature_difference(native.signature, converted.signature)
    if reason:
        return Parity((), 0, reason)
    expected = run_in_batches(native.predict, rows, _block(native, rows))
    try:
        run = partial(run_all, converted)
        got = run_in_batches(run, rows, _block(native, rows))
        few = rows.take(np.arange(min(rows.rows, _SINGLE)))
        single = run_in_batches(run, few, fixed_rows(native.signature) or 1)
    except Exception as error:  # whatever the runtime raises: then it is no working model
        return Parity((), rows.rows, f"the converted model fails: {error}")
    first = {name: array[: len(single[name])] for name, array in expected.items()}
    parities = [compare(native, expected, got), compare(native, first, single)]
    return next((parity for parity in parities if not parity.is_same), parities[0])


def compare(native: NativeModel, expected: Mapping[str, Array], got: Mapping[str, Array]) -> Parity:
    """Compares the outputs of both for the same rows."""
    rows = len(next(iter(expected.values())))
    for name, array in expected.items():
        if array.shape != got[name].shape:
            reason = f"output '{name}': expected shape {array.shape}, got {got[name].shape}"
            return Parity((), rows, reason)
    undecided = _undecided(native, expected, rows)
    outputs = tuple(
        _number_parity(name, array, got[name], _scale(native, name, array))
        if array.dtype.kind == "f"
        else _label_parity(name, array, got[name], undecided)
        for name, array in expected.items()
    )
    # A figure says more than a count of labels.
    by_figure = sorted(outputs, key=lambda output: output.wrong_labels > 0)
    return Parity(outputs, rows, next(filter(None, map(_reason, by_figure)), ""))


def ensure_same(
    native: NativeModel, file: Path, opener: Opener, samples: Samples | None, seed: int = 0
) -> Parity:
    """Compares a converted file with its original on made-up rows and, where given, real ones.

    Raises:
        ConversionError: it is another model; with the figure.
    """
    runner = _open(file, opener)
    try:
        parity = check(native, runner, native.typical_rows(TYPICAL_ROWS, seed))
        if parity.is_same and samples is not None and samples.rows:
            parity = check(native, runner, samples.take(np.arange(min(samples.rows, _REAL_ROWS))))
    finally:
        runner.close()
    if not parity.is_same:
        raise ConversionError(f"the converted model is not the same model: {parity.reason}")
    return parity


def _open(file: Path, opener: Opener) -> Runner:
    artifact = Artifact(file.parent, file.name, "onnxruntime", f"parity-{file.stem}")
    try:
        return opener(artifact, 1)
    except OptimizationError:
        raise
    except Exception as error:  # of the runtime's own kind
        raise ConversionError(f"the converted model cannot be opened: {error}") from error


def _reason(output: OutputParity) -> str:
    if output.wrong_labels:
        return (
            f"output '{output.name}' has another label in {output.wrong_labels} rows, in row"
            f" {output.row} '{output.got}' instead of '{output.expected}'"
        )
    if not output.worst <= TOLERANCE:
        return (
            f"output '{output.name}' is off by {output.worst:.2g} of its range in row {output.row}"
            f" ({output.got} instead of {output.expected}), allowed is {TOLERANCE:g}"
        )
    return ""


def _signature_difference(native: Signature, converted: Signature) -> str:
    for kind in ("inputs", "outputs"):
        expected = {spec.name: spec for spec in getattr(native, kind)}
        got = {spec.name: spec for spec in getattr(converted, kind)}
        if list(expected) != list(got):
            return f"{kind}: expected {', '.join(expected)}, got {', '.join(got)}"
        for name, spec in expected.items():
            other = got[name]
            if (spec.datatype, len(spec.shape)) != (other.datatype, len(other.shape)):
                return (
                    f"'{name}': expected {spec.datatype}{list(spec.shape)},"
                    f" got {other.datatype}{list(other.shape)}"
                )
    return ""


def _block(native: NativeModel, rows: Samples) -> int:
    """Rows of one run."""
    return fixed_rows(native.signature) or max(1, min(rows.rows, _BLOCK))


def _scale(native: NativeModel, name: str, expected: Array) -> Array:
    """What 1.0 is: the range of the output; of each target where a regressor has several."""
    if name == "probabilities":
        return np.asarray(1.0)
    per_column = native.task == "regression" and expected.ndim == 2
    values = np.where(np.isfinite(expected), expected, np.nan).astype(np.float64)
    values = values.reshape(len(values), -1) if per_column else values.reshape(-1, 1)
    if not np.isfinite(values).any():
        return np.asarray(1.0)
    span = np.nan_to_num(_nan_safe_max(values) - -_nan_safe_max(-values))
    size = np.nan_to_num(_nan_safe_max(np.abs(values)))
    # An output that is the same in all rows is measured by its size.
    scale = np.where(span > 1e-6 * size, span, np.where(size > 0, size, 1.0))
    return np.asarray(scale if per_column else scale[0])


def _nan_safe_max(values: Array) -> Array:
    return np.asarray(np.fmax.reduce(values, axis=0))


def _number_parity(name: str, expected: Array, got: Array, scale: Array) -> OutputParity:
    rows = len(expected)
    if rows == 0 or expected.size == 0:
        return OutputParity(name, 0.0, -1)
    first, second = expected.astype(np.float64), got.astype(np.float64)
    with np.errstate(invalid="ignore"):
        off = np.abs(first - second) - _ROUNDING * np.abs(first)
    off = np.where(np.isfinite(first), off / scale, np.inf)
    is_equal = (first == second) | (np.isnan(first) & np.isnan(second))
    off = np.where(is_equal, 0.0, np.where(np.isnan(off), np.inf, np.maximum(off, 0.0)))
    place = np.unravel_index(int(off.argmax()), off.shape)
    return OutputParity(
        name, float(off[place]), int(place[0]), f"{first[place]:.6g}", f"{second[place]:.6g}"
    )


def _label_parity(name: str, expected: Array, got: Array, undecided: Array) -> OutputParity:
    rows = len(expected)
    differs = (expected != got).reshape(rows, -1).any(axis=1)
    wrong = np.flatnonzero(differs & ~undecided)
    if not len(wrong):
        return OutputParity(name, 0.0, -1, agreement=1.0 - float(differs.mean()))
    row = int(wrong[0])
    texts = (_text(expected[row]), _text(got[row]))
    return OutputParity(name, 0.0, row, *texts, 1.0 - float(differs.mean()), len(wrong))


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _undecided(native: NativeModel, expected: Mapping[str, Array], rows: int) -> Array:
    """Rows where the original's best two answers are as good as equal: bool[rows]."""
    for name in ("probabilities", "scores"):
        values = expected.get(name)
        if values is not None:
            gap = _gap(values, is_distance=native.task == "clustering" and name == "scores")
            return np.asarray(gap <= 2 * TOLERANCE * _scale(native, name, values))
    return np.zeros(rows, bool)


def _gap(values: Array, *, is_distance: bool) -> Array:
    """How far apart the best two are; how far a single score is from 0, where the label turns."""
    if values.ndim == 1 or values.shape[1] == 1:
        return np.asarray(np.abs(values.reshape(len(values))))
    ordered = np.sort(values.reshape(len(values), -1), axis=1)
    if is_distance:
        return np.asarray(ordered[:, 1] - ordered[:, 0])
    return np.asarray(ordered[:, -1] - ordered[:, -2])
