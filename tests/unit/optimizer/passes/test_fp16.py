from pathlib import Path

import numpy as np
from onnx import helper

from optimizer.passes.graph_facts import facts
from tests import models
from tests.unit.optimizer.passes import graphs
from tests.unit.optimizer.passes.bench import bench


def test_halves_the_file_and_keeps_the_types_outside(tmp_path: Path) -> None:
    place = bench(tmp_path, graphs.encoder())
    made = place.apply("fp16").file
    found = facts(made)
    assert found.inputs == {"ids": "INT64"}
    assert found.outputs == {"embedding": "FLOAT"}
    assert made.stat().st_size < 0.6 * place.model.stat().st_size


def test_integers_are_copied_as_they_are(tmp_path: Path) -> None:
    place = bench(tmp_path, models.identity("INT64"))
    result = place.apply("fp16")
    assert not result.modified
    assert result.file.read_bytes() == place.model.read_bytes()


def test_casts_inside_stay_valid(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["mask"], ["m"], to=1),
        helper.make_node("Mul", ["m", "w"], ["y"]),
    ]
    mask, y = models.tensor("mask", "INT64", ["n", 4]), models.tensor("y", "FP32", ["n", 4])
    place = bench(tmp_path, models.build(nodes, [mask], [y], {"w": np.ones(4, np.float32)}))
    assert place.apply("fp16").modified
