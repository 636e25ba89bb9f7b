import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from optimizer.converters.graph_ends import adopt, joined, opset_of, raise_opset, zeros_to_missing
from optimizer.errors import ConversionError
from protos.signature import Signature, TensorSpec
from protos.tensors import Array

X = TensorSpec("X", "FP32", ("batch", 2))


def model(*nodes: onnx.NodeProto, output: str = "y", opset: int = 13) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, 2])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [None, 2])],
    )
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def run(made: onnx.ModelProto, rows: Array) -> list[Array]:
    onnx.checker.check_model(made)
    session = onnxruntime.InferenceSession(made.SerializeToString())
    return list(session.run(None, {"X": rows}))


ROWS = np.array([[1, -2], [0, 4]], np.float32)


def test_outputs_get_their_names_and_shapes() -> None:
    signature = Signature((X,), (TensorSpec("prediction", "FP32", ("batch",)),))
    made = model(helper.make_node("ReduceSum", ["X"], ["y"], keepdims=1))
    axes = onnx.numpy_helper.from_array(np.array([1], np.int64), "axes")
    made.graph.initializer.append(axes)
    made.graph.node[0].input.append("axes")
    adopted = adopt(made, signature)
    assert [output.name for output in adopted.graph.output] == ["prediction"]
    assert run(adopted, ROWS)[0].tolist() == [-1.0, 4.0]


def test_an_input_that_the_model_leaves_out_is_kept() -> None:
    signature = Signature((X, TensorSpec("city", "BYTES", ("batch", 1))), (X_OUT,))
    adopted = adopt(model(helper.make_node("Neg", ["X"], ["y"])), signature)
    assert [value.name for value in adopted.graph.input] == ["X", "city"]


X_OUT = TensorSpec("out", "FP32", ("batch", 2))


def test_an_output_that_is_an_input_too_gets_its_name() -> None:
    adopted = adopt(model(helper.make_node("Identity", ["X"], ["y"])), Signature((X,), (X_OUT,)))
    assert run(adopted, ROWS)[0].tolist() == ROWS.tolist()


def test_missing_output_is_named() -> None:
    signature = Signature((X,), (X_OUT, TensorSpec("scores", "FP32", ("batch", 2))))
    with pytest.raises(ConversionError, match="makes no scores"):
        adopt(model(helper.make_node("Neg", ["X"], ["y"])), signature)


def test_column_with_an_outputs_name_is_refused() -> None:
    signature = Signature((X,), (TensorSpec("X", "FP32", ("batch", 2)),))
    with pytest.raises(ConversionError, match="column 'X' has the name of an output"):
        adopt(model(helper.make_node("Neg", ["X"], ["y"])), signature)


@pytest.mark.parametrize("wanted", [13, 17, 21])
def test_opset_is_raised(wanted: int) -> None:
    made = raise_opset(model(helper.make_node("Neg", ["X"], ["y"])), wanted)
    assert opset_of(made) == wanted
    assert run(made, ROWS)[0].tolist() == (-ROWS).tolist()


def test_operator_whose_form_changed_is_upgraded() -> None:
    # Softmax has meant something else since opset 13.
    made = raise_opset(model(helper.make_node("Softmax", ["X"], ["y"], axis=1), opset=11), 17)
    assert opset_of(made) == 17
    expected = np.exp(ROWS) / np.exp(ROWS).sum(axis=1, keepdims=True)
    assert run(made, ROWS)[0] == pytest.approx(expected)
    assert [value.name for value in made.graph.input] == ["X"]


def test_newer_opset_is_left() -> None:
    assert opset_of(raise_opset(model(helper.make_node("Neg", ["X"], ["y"]), opset=18), 17)) == 18


def test_two_models_become_one() -> None:
    first = raise_opset(model(helper.make_node("Neg", ["X"], ["y"])), 17)
    second = raise_opset(model(helper.make_node("Abs", ["X"], ["y"])), 17)
    assert run(joined(first, second, "FP32"), ROWS)[0].tolist() == np.abs(ROWS).tolist()


def test_two_models_of_different_opsets_do_not_go_together() -> None:
    first, second = (model(helper.make_node("Neg", ["X"], ["y"]), opset=o) for o in (13, 17))
    with pytest.raises(ConversionError, match="do not go together"):
        joined(first, second, "FP32")


def test_zeros_become_missing() -> None:
    made = zeros_to_missing(model(helper.make_node("Identity", ["X"], ["y"])))
    assert np.isnan(run(made, ROWS)[0]).tolist() == [[False, False], [True, False]]
