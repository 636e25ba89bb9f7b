"""ONNX models built in the test: each a few nodes, named by what it does to its rows.

All return the serialized model. "n" is the batch dimension, "s" the sequence. Weights are seeded.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from protos.tensors import DTYPES

Dims = Sequence[int | str | None]
ELEMENT_TYPES: dict[str, int] = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "BF16": TensorProto.BFLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}


def tensor(name: str, datatype: str, dims: Dims) -> onnx.ValueInfoProto:
    """An input or output: datatype by its Open Inference name, None for an unnamed dimension."""
    return helper.make_tensor_value_info(name, ELEMENT_TYPES[datatype], list(dims))


def build(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: Mapping[str, NDArray[Any]] | None = None,
    *,
    opset: int = 17,
    domains: Mapping[str, int] | None = None,
) -> bytes:
    """A model of these parts; `domains` are further operator sets beside ai.onnx."""
    initializers = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(list(nodes), "graph", list(inputs), list(outputs), initializers)
    imports = [helper.make_opsetid("", opset)]
    imports += [helper.make_opsetid(domain, version) for domain, version in (domains or {}).items()]
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    return model.SerializeToString()


def _random(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    values = np.random.default_rng(seed).standard_normal(shape) / np.sqrt(shape[0])
    return np.asarray(values, np.float32)


def mlp(features: int = 16, classes: int = 4, batch: int | str | None = "n") -> bytes:
    """x FP32[n, features] -> y FP32[n, classes]: the tiny model; rows do not see each other."""
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"]),
        helper.make_node("Tanh", ["h"], ["y"]),
    ]
    weights = {"w": _random(features, classes), "b": np.zeros(classes, np.float32)}
    return build(
        nodes,
        [tensor("x", "FP32", [batch, features])],
        [tensor("y", "FP32", [batch, classes])],
        weights,
    )


def slow(width: int = 1024, layers: int = 8) -> bytes:
    """x FP32[n, width] -> y FP32[n, width]: a chain of square MatMuls, a few milliseconds a row."""
    nodes: list[onnx.NodeProto] = []
    name = "x"
    for layer in range(layers):
        product, activation = f"p{layer}", "y" if layer == layers - 1 else f"h{layer}"
        nodes.append(helper.make_node("MatMul", [name, "w"], [product]))
        nodes.append(helper.make_node("Tanh", [product], [activation]))
        name = activation
    return build(
        nodes,
        [tensor("x", "FP32", ["n", width])],
        [tensor("y", "FP32", ["n", width])],
        {"w": _random(width, width)},
    )


def product(datatype: str, features: int = 64, classes: int = 8) -> bytes:
    """x [n, features] -> y = x w [n, classes], all of one floating-point datatype."""
    return build(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [tensor("x", datatype, ["n", features])],
        [tensor("y", datatype, ["n", classes])],
        {"w": _random(features, classes).astype(DTYPES[datatype])},
    )


def convolution(channels: int = 16, classes: int = 10) -> bytes:
    """image FP32[n, 3, height, width] -> scores FP32[n, classes]: two convolutions and a mean."""
    nodes = [
        helper.make_node("Conv", ["image", "first"], ["a"], pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "second"], ["c"], pads=[1] * 4, strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["e"]),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("MatMul", ["f", "last"], ["scores"]),
    ]
    weights = {
        "first": _random(channels, 3, 3, 3),
        "second": _random(channels, channels, 3, 3, seed=1),
        "last": _random(channels, classes, seed=2),
    }
    image = tensor("image", "FP32", ["n", 3, "height", "width"])
    return build(nodes, [image], [tensor("scores", "FP32", ["n", classes])], weights)


def refusing(width: int = 4) -> bytes:
    """x FP32[n, width], flag INT64[n] -> y = x: fails, on every device, on a flag of 100 or more.

    It expands to `width` + (largest flag / 100) columns, which only fits while that is 0.
    """
    nodes = [
        helper.make_node("ReduceMax", ["flag"], ["largest"], keepdims=1),
        helper.make_node("Div", ["largest", "hundred"], ["excess"]),
        helper.make_node("Add", ["excess", "width"], ["columns"]),
        helper.make_node("Concat", ["rows", "columns"], ["shape"], axis=0),
        helper.make_node("Expand", ["x", "shape"], ["y"]),
    ]
    constants: dict[str, NDArray[Any]] = {
        "hundred": np.array([100], np.int64),
        "width": np.array([width], np.int64),
        "rows": np.array([1], np.int64),
    }
    return build(
        nodes,
        [tensor("x", "FP32", ["n", width]), tensor("flag", "INT64", ["n"])],
        [tensor("y", "FP32", ["n", "columns"])],
        constants,
    )


def embedding(vocabulary: int = 100, width: int = 8) -> bytes:
    """ids INT64[n, s] -> y FP32[n, s, width]: fails on an id outside the vocabulary."""
    return build(
        [helper.make_node("Gather", ["table", "ids"], ["y"], axis=0)],
        [tensor("ids", "INT64", ["n", "s"])],
        [tensor("y", "FP32", ["n", "s", width])],
        {"table": _random(vocabulary, width)},
    )


def masked_mean(vocabulary: int = 100, width: int = 8) -> bytes:
    """ids, attention_mask INT64[n, s] -> tokens FP32[n, s, width], pooled FP32[n, width].

    The mean is over the positions that the mask keeps, so padding on the right changes nothing.
    """
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["tokens"], axis=0),
        helper.make_node("Cast", ["attention_mask"], ["kept"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["kept", "last"], ["weight"]),
        helper.make_node("Mul", ["tokens", "weight"], ["visible"]),
        helper.make_node("ReduceSum", ["visible", "second"], ["total"], keepdims=0),
        helper.make_node("ReduceSum", ["weight", "second"], ["count"], keepdims=0),
        helper.make_node("Div", ["total", "count"], ["pooled"]),
    ]
    weights: dict[str, NDArray[Any]] = {
        "table": _random(vocabulary, width),
        "last": np.array([-1], np.int64),
        "second": np.array([1], np.int64),
    }
    return build(
        nodes,
        [tensor("ids", "INT64", ["n", "s"]), tensor("attention_mask", "INT64", ["n", "s"])],
        [tensor("tokens", "FP32", ["n", "s", width]), tensor("pooled", "FP32", ["n", width])],
        weights,
    )


def unmasked_mean(width: int = 8) -> bytes:
    """x FP32[n, s, width] and a mask nobody reads -> y FP32[n, width]: padding changes the mean."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["y"], axes=[1], keepdims=0),
        helper.make_node("Identity", ["attention_mask"], ["seen"]),
    ]
    return build(
        nodes,
        [tensor("x", "FP32", ["n", "s", width]), tensor("attention_mask", "INT64", ["n", "s"])],
        [tensor("y", "FP32", ["n", width]), tensor("seen", "INT64", ["n", "s"])],
    )


def add_sub(datatype: str = "FP32", size: int = 16, batch: int | str | None = "n") -> bytes:
    """INPUT0, INPUT1 [n, size] -> OUTPUT0 their sum, OUTPUT1 their difference."""
    nodes = [
        helper.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]),
        helper.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"]),
    ]
    return build(
        nodes,
        [tensor(name, datatype, [batch, size]) for name in ("INPUT0", "INPUT1")],
        [tensor(name, datatype, [batch, size]) for name in ("OUTPUT0", "OUTPUT1")],
    )


def identity(datatype: str = "FP32", dims: Dims = ("n", 4)) -> bytes:
    """x -> y, the same tensor; "BYTES" for strings."""
    return build(
        [helper.make_node("Identity", ["x"], ["y"])],
        [tensor("x", datatype, dims)],
        [tensor("y", datatype, dims)],
    )


def argmax(features: int = 16) -> bytes:
    """x FP32[n, features] -> label INT64[n]."""
    return build(
        [helper.make_node("ArgMax", ["x"], ["label"], axis=1, keepdims=0)],
        [tensor("x", "FP32", ["n", features])],
        [tensor("label", "INT64", ["n"])],
    )


def optional_bias(features: int = 4) -> bytes:
    """x FP32[n, features] (+ bias FP32[features], 1 where it is not sent) -> y."""
    return build(
        [helper.make_node("Add", ["x", "bias"], ["y"])],
        [tensor("x", "FP32", ["n", features]), tensor("bias", "FP32", [features])],
        [tensor("y", "FP32", ["n", features])],
        {"bias": np.ones(features, np.float32)},
    )


def one_node(
    operator: str, inputs: Sequence[str] = ("x",), dims: Dims = ("n", 4), **attributes: Any
) -> bytes:
    """x FP32 `dims` -> y through one operator; further inputs come from `_CONSTANTS`."""
    return build(
        [helper.make_node(operator, list(inputs), ["y"], **attributes)],
        [tensor("x", "FP32", dims)],
        [tensor("y", "FP32", dims)],
        {name: _CONSTANTS[name] for name in inputs if name != "x"},
    )


_CONSTANTS: dict[str, NDArray[Any]] = {
    "axis0": np.array(0, np.int64),
    "first": np.array([-1], np.int64),
    "before_first": np.array([np.iinfo(np.int64).min], np.int64),
    "axes0": np.array([0], np.int64),
    "back": np.array([-1], np.int64),
}


def softmax_over_batch() -> bytes:
    return one_node("Softmax", axis=0)


def cumulative_over_batch() -> bytes:
    return one_node("CumSum", ["x", "axis0"])


def reversed_batch() -> bytes:
    return one_node("Slice", ["x", "first", "before_first", "axes0", "back"])


def minus_batch_mean() -> bytes:
    """x FP32[n, 4] -> y = x - mean over the batch."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["y"]),
    ]
    return build(nodes, [tensor("x", "FP32", ["n", 4])], [tensor("y", "FP32", ["n", 4])])


def batch_norm_training(features: int = 4) -> bytes:
    """x FP32[n, features] -> y: BatchNormalization written out as training does it.

    ONNX Runtime's CPU kernel refuses training_mode=1, exporters then write the same arithmetic.
    """
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "centred"], ["squared"]),
        helper.make_node("ReduceMean", ["squared"], ["variance"], axes=[0], keepdims=1),
        helper.make_node("Add", ["variance", "epsilon"], ["positive"]),
        helper.make_node("Sqrt", ["positive"], ["deviation"]),
        helper.make_node("Div", ["centred", "deviation"], ["y"]),
    ]
    return build(
        nodes,
        [tensor("x", "FP32", ["n", features])],
        [tensor("y", "FP32", ["n", features])],
        {"epsilon": np.array([1e-5], np.float32)},
    )


def random_noise(features: int = 4) -> bytes:
    """x FP32[n, features] -> y = x + noise: no two runs agree."""
    nodes = [
        helper.make_node("RandomNormalLike", ["x"], ["noise"]),
        helper.make_node("Add", ["x", "noise"], ["y"]),
    ]
    return build(
        nodes,
        [tensor("x", "FP32", ["n", features])],
        [tensor("y", "FP32", ["n", features])],
    )


def rows_lost() -> bytes:
    """x FP32[n, 4] -> y FP32[m, 4]: only its first row, whatever came."""
    return build(
        [helper.make_node("Slice", ["x", "zero", "one"], ["y"])],
        [tensor("x", "FP32", ["n", 4])],
        [tensor("y", "FP32", ["m", 4])],
        {"zero": np.array([0], np.int64), "one": np.array([1], np.int64)},
    )


def zipmap() -> bytes:
    """x FP32[n, 2] -> probabilities as a sequence of maps, as skl2onnx writes by default."""
    output = helper.make_value_info(
        "probabilities",
        helper.make_sequence_type_proto(
            helper.make_map_type_proto(
                TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, None)
            )
        ),
    )
    node = helper.make_node(
        "ZipMap", ["x"], ["probabilities"], domain="ai.onnx.ml", classlabels_int64s=[0, 1]
    )
    return build([node], [tensor("x", "FP32", ["n", 2])], [output], domains={"ai.onnx.ml": 3})


def unknown_operator(operator: str = "Frobnicate", domain: str = "") -> bytes:
    """x FP32[n, 4] -> y through an operator that no library has."""
    return build(
        [helper.make_node(operator, ["x"], ["y"], domain=domain)],
        [tensor("x", "FP32", ["n", 4])],
        [tensor("y", "FP32", ["n", 4])],
        domains={domain: 1} if domain else None,
    )


def with_external_data(directory: Path, features: int = 64) -> Path:
    """Writes an MLP as `model.onnx` with its weights in `weights.bin` beside it."""
    model = onnx.load_from_string(mlp(features, features))
    path = directory / "model.onnx"
    onnx.save_model(
        model, path, save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    return path
