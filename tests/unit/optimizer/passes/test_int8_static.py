from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from optimizer.errors import CalibrationError, PassError
from optimizer.passes import int8_static
from optimizer.passes.graph_facts import facts
from optimizer.samples import Samples
from tests import models
from tests.unit.optimizer.passes import graphs
from tests.unit.optimizer.passes.bench import bench


def zero_points(file: Path, operator: str) -> list[onnx.TensorProto]:
    graph = onnx.load(file).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    return [tensors[node.input[2]] for node in graph.node if node.op_type == operator]


def test_activations_are_unsigned_and_weights_signed_per_channel(tmp_path: Path) -> None:
    result = bench(tmp_path, graphs.cnn()).apply("int8_static", rows=graphs.images())
    activations = zero_points(result.file, "QuantizeLinear")
    assert {tensor.data_type for tensor in activations} == {TensorProto.UINT8}
    weights = [z for z in zero_points(result.file, "DequantizeLinear") if list(z.dims) == [32]]
    assert {z.data_type for z in weights} >= {TensorProto.INT8}


def test_the_file_shrinks_to_about_a_quarter(tmp_path: Path) -> None:
    place = bench(tmp_path, graphs.encoder(width=128))
    settings = {"op_types": ["MatMul", "Gather"]}
    made = place.apply("int8_static", settings, graphs.texts()).file
    assert made.stat().st_size < 0.32 * place.model.stat().st_size


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
def test_a_smaller_last_batch_does_not_trip_the_calibrator(method: str, tmp_path: Path) -> None:
    rows = graphs.images(rows=13)
    place = bench(tmp_path, graphs.cnn())
    assert place.apply("int8_static", {"method": method}, rows).modified


def test_a_fixed_batch_is_kept_to(tmp_path: Path) -> None:
    place = bench(tmp_path, graphs.cnn(batch=4))
    result = place.apply("int8_static", rows=graphs.images(rows=12))
    assert place.error(result.file, graphs.images(rows=4, seed=1)) < 0.1


def test_old_opsets_are_upgraded(tmp_path: Path) -> None:
    place = bench(tmp_path, graphs.cnn(opset=11))
    assert facts(place.apply("int8_static", rows=graphs.images()).file).opset >= 13


def test_nodes_named_stay_in_float(tmp_path: Path) -> None:
    place = bench(tmp_path, graphs.dense())
    made = place.apply("int8_static", {"exclude": ["first"]}, graphs.table()).file
    assert facts(made).weights == {"Gemm": 64 * 64}


def test_of_transformers_only_products_are_quantized(tmp_path: Path) -> None:
    made = bench(tmp_path, graphs.encoder()).apply("int8_static", rows=graphs.texts()).file
    graph = onnx.load(made).graph
    table = next(tensor for tensor in graph.initializer if tensor.name == "table")
    assert table.data_type == TensorProto.FLOAT


@pytest.mark.parametrize("shape", [(1, 8), (1,), (1, 1)])
def test_biases_of_any_shape_do_not_trip_the_quantizer(
    shape: tuple[int, ...], tmp_path: Path
) -> None:
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"])
    x, y = models.tensor("x", "FP32", ["n", 64]), models.tensor("y", "FP32", ["n", 8])
    weights = {"w": graphs.weight(64, 8), "b": np.full(shape, 0.5, np.float32)}
    place = bench(tmp_path, models.build([node], [x], [y], weights))
    result = place.apply("int8_static", rows=graphs.table())
    assert result.notes == ()  # scales are per channel
    assert place.error(result.file, graphs.table()) < 0.05


def test_falls_back_to_scales_per_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quantizer = QDQQuantizer

    def trips(model: onnx.ModelProto, per_channel: bool, *rest: Any) -> Any:
        if per_channel:
            raise ValueError("The truth value of an array with more than one element is ambiguous.")
        return quantizer(model, per_channel, *rest)

    monkeypatch.setattr(int8_static, "QDQQuantizer", trips)
    place = bench(tmp_path, graphs.dense())
    result = place.apply("int8_static", rows=graphs.table())
    assert "per tensor" in result.notes[0]
    assert place.error(result.file, graphs.table()) < 0.1


def test_other_failures_of_the_quantizer_end_the_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> Any:
        raise KeyError("scale")

    monkeypatch.setattr(int8_static, "QDQQuantizer", fails)
    with pytest.raises(PassError, match="ONNX Runtime cannot quantize it: 'scale'"):
        bench(tmp_path, graphs.dense()).apply("int8_static", rows=graphs.table())


def logarithm() -> bytes:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Log", ["h"], ["y"]),
    ]
    x, y = models.tensor("x", "FP32", ["n", 4]), models.tensor("y", "FP32", ["n", 4])
    return models.build(nodes, [x], [y], {"w": np.eye(4, dtype=np.float32)})


def test_rows_that_the_model_has_no_finite_answer_for_are_named(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((12, 4), np.float32) + 1
    values[5] = -1
    with pytest.raises(CalibrationError, match="row 5: the model answers with an output 'y'"):
        bench(tmp_path, logarithm()).apply("int8_static", rows=Samples({"x": values}))


def test_rows_that_the_model_does_not_take_are_named(tmp_path: Path) -> None:
    wrong = Samples({"x": np.random.default_rng(0).random((12, 5), np.float32)})
    with pytest.raises(CalibrationError, match="does not take calibration rows 0 to 11"):
        bench(tmp_path, logarithm()).apply("int8_static", rows=wrong)


def test_activations_that_are_always_the_same_are_refused(tmp_path: Path) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    x, y = models.tensor("x", "FP32", ["n", 1]), models.tensor("y", "FP32", ["n", 1])
    model = models.build([node], [x], [y], {"w": np.ones((1, 1), np.float32)})
    rows = Samples({"x": np.ones((12, 1), np.float32)})
    with pytest.raises(CalibrationError, match="all 2 activations are the same for every row"):
        bench(tmp_path, model).apply("int8_static", rows=rows)


def test_weights_keep_their_values_up_to_a_step(tmp_path: Path) -> None:
    place = bench(tmp_path, graphs.dense())
    made = onnx.load(place.apply("int8_static", rows=graphs.table()).file).graph
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in made.initializer}
    original = graphs.weight(64, 64)
    found = tensors["w1_quantized"].astype(np.float32) * tensors["w1_scale"]
    assert np.abs(found - original).max() <= np.abs(original).max() / 127


def scaled() -> bytes:
    """What scikit-learn's pipelines become: of a Scaler's answer ONNX infers no type."""
    nodes = [
        helper.make_node(
            "Scaler", ["x"], ["scaled"], domain="ai.onnx.ml", offset=[0.5] * 64, scale=[2.0] * 64
        ),
        helper.make_node("MatMul", ["scaled", "w1"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w2"], ["y"]),
    ]
    x, y = models.tensor("x", "FP32", ["n", 64]), models.tensor("y", "FP32", ["n", 8])
    weights = {"w1": graphs.weight(64, 32), "w2": graphs.weight(32, 8)}
    return models.build(nodes, [x], [y], weights, domains={"ai.onnx.ml": 3})


@pytest.mark.parametrize("method", int8_static.METHODS)
def test_what_comes_after_a_scaler_is_quantized(method: str, tmp_path: Path) -> None:
    place = bench(tmp_path, scaled())
    result = place.apply("int8_static", {"method": method}, graphs.table())
    assert facts(result.file).weights == {}
    assert place.error(result.file, graphs.table()) < 0.25  # entropy clips


@pytest.mark.parametrize("method", int8_static.METHODS)
def test_a_graph_without_operators_to_quantize_is_refused(method: str, tmp_path: Path) -> None:
    settings = {"method": method, "op_types": ["Conv"]}
    with pytest.raises(PassError, match=r"^nothing in it can be quantized: no operator with an"):
        bench(tmp_path, graphs.dense()).apply("int8_static", settings, graphs.table())


def test_a_graph_whose_every_layer_is_left_out_is_refused(tmp_path: Path) -> None:
    place = bench(tmp_path, graphs.dense())
    names = [node.name for node in onnx.load(place.model).graph.node]
    with pytest.raises(PassError, match=r"^nothing in it can be quantized: .* all of it in float$"):
        place.apply("int8_static", {"exclude": names}, graphs.table())
