from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from optimizer.errors import PassError
from optimizer.passes.graph_facts import GraphFacts, facts
from tests import models
from tests.unit.optimizer.passes import graphs


def look(model: bytes, tmp_path: Path) -> GraphFacts:
    file = tmp_path / "model.onnx"
    file.write_bytes(model)
    return facts(file)


def test_convolutions_carry_most_of_a_cnns_arithmetic(tmp_path: Path) -> None:
    found = look(graphs.cnn(opset=11), tmp_path)
    assert found.opset == 11
    assert found.ops["Conv"] == 2
    assert found.multiply_adds == {"Conv": 64 * 9 * 16 + 64 * 9 * 16 * 32, "Gemm": 5120}
    assert found.convolution_share > 0.98
    assert found.weights == {"Conv": 9 * 16 + 9 * 16 * 32, "Gemm": 5120}
    assert found.quantizable == sum(found.weights.values())
    assert found.parameters == found.quantizable + 16 + 32 + 10
    assert found.inputs == {"image": "FLOAT"}
    assert not found.has_attention


def test_sees_attention_in_products_of_two_activations(tmp_path: Path) -> None:
    found = look(graphs.encoder(), tmp_path)
    assert found.has_attention
    assert found.product_share == 1
    assert found.inputs == {"ids": "INT64"}
    assert found.weights == {"MatMul": 3 * 32 * 32 + 2 * 32 * 128}


def test_counts_the_weights_of_recurrent_cells_for_every_step(tmp_path: Path) -> None:
    found = look(graphs.recurrent(), tmp_path)
    assert found.weights == {"LSTM": 128 * (16 + 32)}
    assert found.multiply_adds == {"LSTM": 8 * 128 * (16 + 32)}


def test_names_operators_of_other_domains_with_their_domain(tmp_path: Path) -> None:
    found = look(graphs.scaler(), tmp_path)
    assert found.ops == {"ai.onnx.ml.Scaler": 1}
    assert found.domains == {"ai.onnx.ml": 3}
    assert found.is_classical
    assert found.quantizable == 0


def test_counts_nodes_of_branches(tmp_path: Path) -> None:
    y = helper.make_tensor_value_info("z", TensorProto.FLOAT, [None])
    body = helper.make_graph([helper.make_node("Neg", ["x"], ["z"])], "body", [], [y])
    node = helper.make_node("If", ["flag"], ["y"], then_branch=body, else_branch=body)
    inputs = [models.tensor("flag", "BOOL", []), models.tensor("x", "FP32", ["n"])]
    model = models.build([node], inputs, [models.tensor("y", "FP32", ["n"])])
    assert look(model, tmp_path).ops == {"If": 1, "Neg": 2}


def test_knows_weights_that_are_constants_or_transposed(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Constant", [], ["c"], value_floats=[1.0] * 8),
        helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "t"], ["y"]),
    ]
    x, y = models.tensor("x", "FP32", ["n", 8]), models.tensor("y", "FP32", ["n", 4])
    found = look(models.build(nodes, [x], [y], {"w": graphs.weight(4, 8)}), tmp_path)
    assert found.weights == {"MatMul": 32}


def test_is_not_led_astray_by_stale_shapes(tmp_path: Path) -> None:
    model = onnx.load_from_string(graphs.cnn())
    model.graph.value_info.append(models.tensor("a", "FP32", [1, 2, 3, 4]))
    assert look(model.SerializeToString(), tmp_path).convolution_share > 0.98


def test_unknown_operators_are_only_counted(tmp_path: Path) -> None:
    assert look(models.unknown_operator(), tmp_path).ops == {"Frobnicate": 1}


def test_does_not_read_external_data(tmp_path: Path) -> None:
    file = models.with_external_data(tmp_path)
    for data in set(tmp_path.iterdir()) - {file}:
        data.unlink()
    found = facts(file)
    assert found.has_external_data
    assert found.quantizable > 0


def test_what_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(PassError, match=r"model\.onnx' cannot be read as an ONNX model"):
        look(b"not a model", tmp_path)
