from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from optimizer.converters import convert
from optimizer.converters.contract import ConverterInput
from optimizer.converters.onnx_upgrade import upgraded
from optimizer.errors import ConversionError, SourceError
from optimizer.source import source_of
from protos.tensors import Array
from tests import models


def written(path: Path, opset: int, ir_version: int = 8) -> Path:
    """x [n, 4] @ w -> clipped, summed over its columns: three operators that changed since."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("Clip", ["product"], ["clipped"], min=0.0, max=1.0),
        helper.make_node("ReduceSum", ["clipped"], ["sum"], axes=[1], keepdims=1),
        helper.make_node("Squeeze", ["sum"], ["y"], axes=[1]),
    ]
    weight = np.random.default_rng(0).random((4, 3), np.float32)
    inputs = [models.tensor("w", "FP32", [4, 3]), models.tensor("x", "FP32", ["n", 4])]
    graph = helper.make_graph(
        nodes,
        "graph",
        inputs,
        [models.tensor("y", "FP32", ["n"])],
        [numpy_helper.from_array(weight, "w")],
        value_info=[models.tensor("product", "FP32", [7, 7])],  # stale
    )
    opsets = [helper.make_opsetid("", opset)]
    onnx.save_model(helper.make_model(graph, opset_imports=opsets, ir_version=ir_version), path)
    return path


def run(path: Path, x: Array) -> Array:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    answer: Array = session.run(None, {"x": x})[0]
    return answer


def test_old_model_is_upgraded_and_answers_the_same(tmp_path: Path) -> None:
    new = tmp_path / "new.onnx"
    assert upgraded(written(tmp_path / "old.onnx", opset=9, ir_version=3), new, 17)
    model = onnx.load(new)
    onnx.checker.check_model(model, full_check=True)
    assert [o.version for o in model.opset_import] == [17]
    assert [value.name for value in model.graph.input] == ["x"]
    (product,) = (value for value in model.graph.value_info if value.name == "product")
    assert product.type.tensor_type.shape.dim[1].dim_value == 3
    weight = numpy_helper.to_array(model.graph.initializer[0])
    x = np.random.default_rng(1).random((5, 4), np.float32)
    np.testing.assert_allclose(run(new, x), np.clip(x @ weight, 0, 1).sum(1), rtol=1e-6)


def test_model_of_that_opset_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "old.onnx"
    path.write_bytes(models.mlp())
    assert not upgraded(path, tmp_path / "new.onnx", 13)
    assert not (tmp_path / "new.onnx").exists()


def test_branches_are_upgraded_too(tmp_path: Path) -> None:
    branch = helper.make_graph(
        [
            helper.make_node("Neg", ["x"], ["negative"]),
            helper.make_node("ReduceSum", ["negative"], ["sum"], axes=[1], keepdims=0),
        ],
        "branch",
        [],
        [models.tensor("sum", "FP32", ["m"])],
        value_info=[models.tensor("negative", "FP32", [9])],  # stale
    )
    nodes = [
        helper.make_node("Not", ["n"], ["c"]),
        helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch),
    ]
    inputs = [models.tensor("x", "FP32", ["n", 4]), models.tensor("n", "BOOL", [])]
    graph = helper.make_graph(nodes, "graph", inputs, [models.tensor("y", "FP32", ["n"])])
    opsets = [helper.make_opsetid("", 11)]
    old, new = tmp_path / "old.onnx", tmp_path / "new.onnx"
    onnx.save_model(helper.make_model(graph, opset_imports=opsets, ir_version=6), old)
    assert upgraded(old, new, 17)
    onnx.checker.check_model(onnx.load(new), full_check=True)
    session = ort.InferenceSession(new, providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {"x": np.ones((2, 4), np.float32), "n": np.array(True)})
    np.testing.assert_array_equal(answer, [-4, -4])


def test_models_of_other_domains_keep_them(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Scaler", ["x"], ["a"], domain="ai.onnx.ml", offset=[0.0], scale=[2.0]),
        helper.make_node("FusedMatMul", ["a", "a"], ["b"], domain="com.microsoft", transB=1),
        helper.make_node("Squeeze", ["b"], ["y"], axes=[0]),
    ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "graph", [models.tensor("x", "FP32", [1, 4])], [output])
    opsets = [helper.make_opsetid("", 11), helper.make_opsetid("ai.onnx.ml", 1)]
    opsets.append(helper.make_opsetid("com.microsoft", 1))
    old, new = tmp_path / "old.onnx", tmp_path / "new.onnx"
    onnx.save_model(helper.make_model(graph, opset_imports=opsets, ir_version=6), old)
    assert upgraded(old, new, 17)
    assert run(new, np.ones((1, 4), np.float32)) == [16]


def test_operator_that_cannot_be_upgraded_is_named(tmp_path: Path) -> None:
    old = tmp_path / "old.onnx"
    model = onnx.load_from_string(models.unknown_operator())
    model.opset_import[0].version = 11
    onnx.save_model(model, old)
    with pytest.raises(ConversionError, match=r"old\.onnx' cannot be brought to opset 17: .*Frob"):
        upgraded(old, tmp_path / "new.onnx", 17)


def test_onnx_model_is_its_own_conversion(tmp_path: Path) -> None:
    path = written(tmp_path / "old.onnx", opset=9)
    result = convert(ConverterInput(source_of(path), tmp_path / "new.onnx", 17))
    assert (result.file, result.opset, result.notes) == (path, 9, ())


def test_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "old.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(SourceError, match=r"old\.onnx' is no ONNX model"):
        upgraded(path, tmp_path / "new.onnx", 17)
