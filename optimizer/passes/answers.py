"""Runs models over a calibration set, through what serves."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from optimizer.artifact import Artifact
from optimizer.errors import CalibrationError, OptimizationError, PassError
from optimizer.passes.calibration_rows import fixed_batch
from optimizer.passes.contract import PassInput
from optimizer.passes.promises import first_line
from optimizer.runner import Runner, run_all
from optimizer.samples import Samples
from protos.signature import Signature
from protos.tensors import Array

_ROWS = 16  # of one run


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model says to a calibration set."""

    signature: Signature
    outputs: dict[str, Array]  # dimension 0 in the order of the rows


def answers(given: PassInput, model: Path, samples: Samples) -> Answers:
    """What an ONNX model says to these rows.

    Raises:
        CalibrationError: it does not take them.
        PassError: it cannot be opened.
    """
    artifact = Artifact(model.parent, model.name, "onnxruntime", f"pass-{model.stem}")
    try:
        runner = given.opener(artifact, given.threads)
    except OptimizationError:
        raise
    except Exception as error:  # the server's or the framework's own
        raise PassError(f"'{model.name}' cannot be opened: {first_line(error)}") from error
    size = fixed_batch(model) or _ROWS
    try:
        parts = [_run(runner, samples, start, size) for start in range(0, samples.rows, size)]
    finally:
        runner.close()
    outputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Answers(runner.signature, outputs)


def finite_answers(given: PassInput, model: Path, samples: Samples) -> Answers:
    """The same of the original.

    Raises:
        CalibrationError: also where an answer is not finite; names the row.
    """
    found = answers(given, model, samples)
    for name, array in found.outputs.items():
        if array.dtype.kind != "f":
            continue
        fine = np.isfinite(array.reshape(len(array), -1)).all(axis=1)
        if not fine.all():
            raise CalibrationError(
                f"calibration row {np.flatnonzero(~fine)[0]}: the model answers with an output"
                f" '{name}' that is not finite ({(~fine).sum()} of {len(array)} rows)"
            )
    return found


def _run(runner: Runner, samples: Samples, start: int, size: int) -> dict[str, Array]:
    rows = min(size, samples.rows - start)
    padded = size if _is_fixed(runner) else rows
    try:
        outputs = run_all(runner, samples.batch(padded, start))
    except Exception as error:  # the framework's own
        raise CalibrationError(
            f"the model does not take calibration rows {start} to {start + rows - 1}:"
            f" {first_line(error)}"
        ) from error
    for name, array in outputs.items():
        if array.shape[:1] != (padded,):
            raise CalibrationError(
                f"output '{name}' has shape {array.shape} for {padded} rows: not one answer a row"
            )
    return {name: array[:rows] for name, array in outputs.items()}


def _is_fixed(runner: Runner) -> bool:
    return any(spec.shape and isinstance(spec.shape[0], int) for spec in runner.signature.inputs)
