from pathlib import Path

from onnx import helper

from optimizer.graph_levels import distinct_levels
from tests.models import build, convolution, tensor


def test_levels_that_change_a_graph_are_told(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(convolution())
    found = distinct_levels(model)
    assert found[-1] == "all"
    assert 1 < len(found) <= 4


def test_levels_that_change_nothing_are_left_out(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    nodes = [helper.make_node("Erf", ["x"], ["y"])]
    model.write_bytes(
        build(nodes, [tensor("x", "FP32", ["n", 4])], [tensor("y", "FP32", ["n", 4])])
    )
    assert distinct_levels(model) == ("all",)
