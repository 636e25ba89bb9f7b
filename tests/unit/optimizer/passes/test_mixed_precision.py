from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from optimizer.errors import PassError
from tests import models
from tests.unit.optimizer.passes import graphs
from tests.unit.optimizer.passes.bench import bench


def fragile() -> bytes:
    """x FP32[n, 64] -> y FP32[n, 8]; "second" has one input a thousand times larger than the rest.

    Its 8 bits are spent on that one, whose weight is small.
    """
    first, second = graphs.weight(64, 64), graphs.weight(64, 64, seed=1)
    first[:, 0] *= 1000
    second[0] /= 1000
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"], "first"),
        helper.make_node("MatMul", ["a", "w2"], ["b"], "second"),
        helper.make_node("Relu", ["b"], ["c"], "relu"),
        helper.make_node("MatMul", ["c", "w3"], ["y"], "third"),
    ]
    weights = {"w1": first, "w2": second, "w3": graphs.weight(64, 8, seed=2)}
    x, y = models.tensor("x", "FP32", ["n", 64]), models.tensor("y", "FP32", ["n", 8])
    return models.build(nodes, [x], [y], weights)


@pytest.mark.parametrize("base", ["int8_dynamic", "int8_static"])
def test_leaves_out_the_layer_that_breaks_accuracy(base: str, tmp_path: Path) -> None:
    place = bench(tmp_path, fragile())
    settings = {"base": base, "metric": "relative_error", "threshold": 0.95}
    result = place.apply("mixed_precision", settings, graphs.table())
    # Statically the result of "first" is cut off too, so both have to go.
    left = {"int8_dynamic": "1 of 3", "int8_static": "2 of 4"}[base]
    assert result.notes[0].startswith(f"{left} layers stay in float (second")
    alone = place.apply_in("alone", base, graphs.table())
    held_out = graphs.table(seed=9)
    assert place.error(result.file, held_out) < 0.3 * place.error(alone.file, held_out)


def test_quantizes_everything_where_that_will_do(tmp_path: Path) -> None:
    place = bench(tmp_path, graphs.dense())
    settings = {"base": "int8_dynamic", "metric": "relative_error", "threshold": 0.9}
    result = place.apply("mixed_precision", settings, graphs.table())
    assert "all 2 layers are quantized" in result.notes[0]


def test_takes_neighbours_together_where_trials_are_few(tmp_path: Path) -> None:
    place = bench(tmp_path, fragile())
    settings = {"base": "int8_dynamic", "metric": "relative_error", "threshold": 0.95, "trials": 12}
    result = place.apply("mixed_precision", settings, graphs.table())
    assert "second" in result.notes[0]


def test_gives_up_with_the_figure(tmp_path: Path) -> None:
    place = bench(tmp_path, fragile())
    settings = {"base": "int8_dynamic", "metric": "relative_error", "threshold": 1.0}
    with pytest.raises(PassError, match="not even with 2 of 3 layers in float: relative_error"):
        place.apply("mixed_precision", settings, graphs.table())


def test_rows_that_prove_nothing_are_said_to(tmp_path: Path) -> None:
    place = bench(tmp_path, fragile())
    with pytest.raises(PassError, match="at least 32 are needed"):
        place.apply("mixed_precision", {"base": "int8_dynamic"}, graphs.table(rows=4))


def test_is_the_same_every_time(tmp_path: Path) -> None:
    place = bench(tmp_path, fragile())
    settings = {"base": "int8_dynamic", "metric": "relative_error", "threshold": 0.95}
    made = [
        place.apply_in(name, "mixed_precision", graphs.table(), settings).file.read_bytes()
        for name in ("once", "again")
    ]
    assert made[0] == made[1]
    assert np.all(graphs.table().inputs["x"] == graphs.table().inputs["x"])
