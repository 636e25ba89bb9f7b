"""A calibration set as quantizers want it: checked, and in batches of one size."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from optimizer.errors import CalibrationError
from optimizer.passes.contract import PassInput
from optimizer.passes.onnx_files import input_types, load_graph
from optimizer.samples import Samples
from protos.tensors import Array


def checked(given: PassInput) -> Samples:
    """The calibration set of a pass.

    Raises:
        CalibrationError: there is none, or ranges taken from it would be wrong: an input is
            missing, ragged, not finite or the same everywhere; names the input and the row.
    """
    samples = given.calibration
    if samples is None or not samples.rows:
        raise CalibrationError("a calibration set is needed: give rows the model was made for")
    names = list(input_types(load_graph(given.model)))
    missing = [name for name in names if name not in samples.inputs]
    if missing:
        raise CalibrationError(f"the calibration set has no input '{missing[0]}'")
    for name in names:
        _check(name, samples.inputs[name])
    return Samples({name: samples.inputs[name] for name in names}, samples.labels, samples.is_real)


def batches(samples: Samples, model: Path, wanted: int) -> Iterator[dict[str, Array]]:
    """The rows in batches of `wanted`, or of the one size that the model takes.

    The last batch is smaller; where the model's size is fixed, rows left over are not used.
    """
    fixed = fixed_batch(model)
    size = fixed or wanted
    if samples.rows < (fixed or 1):
        raise CalibrationError(
            f"the model takes batches of {fixed} rows, the calibration set has {samples.rows}"
        )
    last = samples.rows - samples.rows % size if fixed else samples.rows
    for start in range(0, last, size):
        yield samples.batch(min(size, last - start), start)


def fixed_batch(model: Path) -> int:
    """The only batch size that a model takes; 0 where it takes any."""
    graph = load_graph(model).graph
    initialized = {tensor.name for tensor in graph.initializer}
    for value in graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name not in initialized and dims and dims[0].dim_value > 0:
            return dims[0].dim_value
    return 0


def _check(name: str, array: Array) -> None:
    if array.dtype.kind == "O":
        _check_objects(name, array)
        return
    if array.dtype.kind != "f":
        return
    flat = array.reshape(len(array), -1)
    strange = np.flatnonzero(~np.isfinite(flat).all(axis=1))
    if len(strange):
        raise CalibrationError(
            f"calibration input '{name}': row {strange[0]} is not finite"
            f" ({len(strange)} of {len(array)} rows have NaN or infinity)"
        )
    if flat.shape[1] > 1 and flat.min() == flat.max():
        raise CalibrationError(
            f"calibration input '{name}': every value of row 0 to row {len(array) - 1} is"
            f" {flat.flat[0]:g}, no range can be taken from that"
        )


def _check_objects(name: str, array: Array) -> None:
    for row, item in enumerate(array.ravel()):
        if not isinstance(item, (bytes, str)):
            raise CalibrationError(
                f"calibration input '{name}': row {row} is {type(item).__name__} of its own"
                " length; pad all rows to one length"
            )
