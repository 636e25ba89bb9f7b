from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from optimizer.errors import CalibrationError
from optimizer.passes.calibration_rows import batches, checked, fixed_batch
from optimizer.samples import Samples
from protos.tensors import Array
from tests import models
from tests.unit.optimizer.passes import graphs
from tests.unit.optimizer.passes.bench import bench


def poisoned(change: Callable[[Array], object]) -> Samples:
    rows = graphs.images()
    change(rows.inputs["image"])
    return rows


def put(value: float) -> Callable[[Array], object]:
    def change(array: Array) -> None:
        array[7, 0, 3, 3] = value

    return change


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (None, "a calibration set is needed"),
        (Samples({}), "a calibration set is needed"),
        (Samples({"picture": np.ones((4, 1, 8, 8), np.float32)}), "has no input 'image'"),
        (poisoned(put(np.nan)), r"input 'image': row 7 is not finite \(1 of 48 rows"),
        (poisoned(put(np.inf)), "input 'image': row 7 is not finite"),
        (poisoned(lambda a: a.fill(3)), "every value of row 0 to row 47 is 3"),
    ],
)
@pytest.mark.parametrize("name", ["int8_static", "int8_smoothquant", "mixed_precision"])
def test_sets_that_would_give_wrong_ranges_are_refused(
    name: str, rows: Samples | None, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(CalibrationError, match=reason):
        bench(tmp_path, graphs.cnn()).apply(name, rows=rows)


def test_ragged_rows_are_refused(tmp_path: Path) -> None:
    ragged = np.empty(3, dtype=object)
    ragged[:] = [np.arange(length) for length in (3, 4, 5)]
    given = bench(tmp_path, graphs.encoder()).given(Samples({"ids": ragged}))
    with pytest.raises(CalibrationError, match="input 'ids': row 0 is ndarray of its own length"):
        checked(given)


def test_inputs_that_the_model_does_not_have_are_left_out(tmp_path: Path) -> None:
    rows = Samples({**graphs.images().inputs, "extra": np.zeros(48)})
    assert list(checked(bench(tmp_path, graphs.cnn()).given(rows)).inputs) == ["image"]


def test_models_whose_answers_are_not_by_row_are_refused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("ReduceMean", ["h"], ["y"], axes=[0]),
    ]
    x, y = models.tensor("x", "FP32", ["n", 64]), models.tensor("y", "FP32", [1, 8])
    model = models.build(nodes, [x], [y], {"w": graphs.weight(64, 8)})
    with pytest.raises(CalibrationError, match=r"shape \(1, 8\) for 16 rows: not one answer a row"):
        bench(tmp_path, model).apply("int8_static", rows=graphs.table())


@pytest.mark.parametrize(("batch", "sizes"), [("n", [20, 20, 8]), (1, [1] * 48), (32, [32])])
def test_batches_are_of_the_size_that_the_model_takes(
    batch: int | str, sizes: list[int], tmp_path: Path
) -> None:
    model = bench(tmp_path, graphs.cnn(batch=batch)).model
    made = list(batches(graphs.images(), model, 20))
    assert [len(part["image"]) for part in made] == sizes
    assert fixed_batch(model) == (batch if isinstance(batch, int) else 0)


def test_too_few_rows_for_a_fixed_batch_are_refused(tmp_path: Path) -> None:
    model = bench(tmp_path, graphs.cnn(batch=64)).model
    with pytest.raises(CalibrationError, match="batches of 64 rows, the calibration set has 48"):
        list(batches(graphs.images(), model, 8))
