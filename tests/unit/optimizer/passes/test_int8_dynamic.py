from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from optimizer.passes.graph_facts import facts
from tests import models
from tests.unit.optimizer.passes import graphs
from tests.unit.optimizer.passes.bench import bench


def test_products_tables_and_cells_become_integers(tmp_path: Path) -> None:
    (tmp_path / "encoder").mkdir()
    (tmp_path / "cell").mkdir()
    encoder = facts(bench(tmp_path / "encoder", graphs.encoder()).apply("int8_dynamic").file)
    assert encoder.ops["MatMulInteger"] == 5
    assert encoder.ops["MatMul"] == 2  # products of two activations
    assert encoder.dtypes["INT8"] >= 3 * 32 * 32 + 2 * 32 * 128
    assert encoder.dtypes["UINT8"] >= 100 * 32
    cell = facts(bench(tmp_path / "cell", graphs.recurrent()).apply("int8_dynamic").file)
    assert cell.ops["DynamicQuantizeLSTM"] == 1


def test_scales_are_per_channel(tmp_path: Path) -> None:
    made = onnx.load(bench(tmp_path, graphs.dense()).apply("int8_dynamic").file).graph
    scales = {tensor.name: list(tensor.dims) for tensor in made.initializer}
    assert scales["w1_scale"] == [64]


def test_convolutions_beside_many_products_stay_in_float(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["image", "k"], ["a"]),
        helper.make_node("Flatten", ["a"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    weights = {"k": graphs.weight(1, 1, 3, 3), "w": graphs.weight(36, 512)}
    image = models.tensor("image", "FP32", ["n", 1, 8, 8])
    output = models.tensor("y", "FP32", ["n", 512])
    place = bench(tmp_path, models.build(nodes, [image], [output], weights))
    result = place.apply("int8_dynamic")
    assert result.notes == ("1 convolutions stay in float",)
    found = facts(result.file)
    assert found.ops["Conv"] == 1
    assert "ConvInteger" not in found.ops
    assert place.error(result.file, graphs.images()) < 0.05


def test_the_standards_attention_is_left_alone(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "wq"], ["q"]),
        helper.make_node("Attention", ["q", "x", "x"], ["m"], q_num_heads=2, kv_num_heads=2),
        helper.make_node("ReduceMean", ["m", "axis"], ["y"], keepdims=0),
    ]
    weights: dict[str, NDArray[Any]] = {
        "wq": graphs.weight(16, 16),
        "axis": np.array([1], np.int64),
    }
    x, y = models.tensor("x", "FP32", ["n", 8, 16]), models.tensor("y", "FP32", ["n", 16])
    place = bench(tmp_path, models.build(nodes, [x], [y], weights, opset=23))
    result = place.apply("int8_dynamic")
    assert facts(result.file).ops["Attention"] == 1
    assert place.error(result.file, graphs.series()) < 0.05


def test_stale_shapes_do_not_stop_it(tmp_path: Path) -> None:
    model = onnx.load_from_string(graphs.dense())
    stale = helper.make_tensor_value_info("h", TensorProto.FLOAT, [2048, 3])
    model.graph.value_info.append(stale)
    place = bench(tmp_path, model.SerializeToString())
    assert place.apply("int8_dynamic").modified


def test_nodes_without_a_name_can_be_told_apart(tmp_path: Path) -> None:
    model = onnx.load_from_string(graphs.dense())
    for node in model.graph.node:
        node.name = ""
    place = bench(tmp_path, model.SerializeToString())
    result = place.apply("int8_dynamic", {"exclude": ["Gemm_h"]})
    assert facts(result.file).weights == {"MatMul": 64 * 64}
