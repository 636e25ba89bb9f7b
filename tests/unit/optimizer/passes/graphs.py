"""Small graphs of the kinds that passes treat differently. Weights are seeded."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper

from optimizer.samples import Samples
from tests.models import build, tensor

Floats = NDArray[np.float32]


def weight(*shape: int, seed: int = 0) -> Floats:
    """Normal values that keep the size of what is multiplied by them."""
    scale = np.sqrt(np.prod(shape[1:]) if len(shape) > 2 else shape[0])
    return np.asarray(np.random.default_rng(seed).standard_normal(shape) / scale, np.float32)


def cnn(opset: int = 17, batch: int | str = "n") -> bytes:
    """image FP32[n, 1, 8, 8] -> scores FP32[n, 10]: Conv, Relu, Conv, Relu, MaxPool, Gemm."""
    nodes = [
        helper.make_node("Conv", ["image", "first", "first_bias"], ["a"], pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "second", "second_bias"], ["c"], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("MaxPool", ["d"], ["e"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("Gemm", ["f", "last", "last_bias"], ["scores"], transB=1),
    ]
    weights = {
        "first": weight(16, 1, 3, 3),
        "first_bias": weight(1, 16, seed=1)[0],
        "second": weight(32, 16, 3, 3, seed=2),
        "second_bias": weight(1, 32, seed=3)[0],
        "last": weight(10, 512, seed=4) / 10,
        "last_bias": weight(1, 10, seed=5)[0],
    }
    image = tensor("image", "FP32", [batch, 1, 8, 8])
    return build(nodes, [image], [tensor("scores", "FP32", [batch, 10])], weights, opset=opset)


def encoder(opset: int = 17, width: int = 32) -> bytes:
    """ids INT64[n, s] -> embedding FP32[n, width]: one block of attention and one of products."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["x"], "lookup"),
        helper.make_node("MatMul", ["x", "wq"], ["q"], "query"),
        helper.make_node("MatMul", ["x", "wk"], ["k"], "key"),
        helper.make_node("MatMul", ["x", "wv"], ["v"], "value"),
        helper.make_node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "kt"], ["scores"], "scores"),
        helper.make_node("Softmax", ["scores"], ["shares"], axis=-1),
        helper.make_node("MatMul", ["shares", "v"], ["mixed"], "mix"),
        helper.make_node("Add", ["mixed", "x"], ["sum"]),
        helper.make_node("LayerNormalization", ["sum", "gain", "shift"], ["norm"]),
        helper.make_node("MatMul", ["norm", "up"], ["wide"], "up"),
        helper.make_node("Relu", ["wide"], ["active"]),
        helper.make_node("MatMul", ["active", "down"], ["narrow"], "down"),
        helper.make_node("Add", ["narrow", "norm"], ["tokens"]),
        helper.make_node("ReduceMean", ["tokens"], ["embedding"], axes=[1], keepdims=0),
    ]
    weights = {
        "table": weight(100, width) * 10,
        "wq": weight(width, width, seed=1),
        "wk": weight(width, width, seed=2),
        "wv": weight(width, width, seed=3),
        "gain": np.ones(width, np.float32),
        "shift": np.zeros(width, np.float32),
        "up": weight(width, 4 * width, seed=4),
        "down": weight(4 * width, width, seed=5),
    }
    ids = tensor("ids", "INT64", ["n", "s"])
    output = tensor("embedding", "FP32", ["n", width])
    return build(nodes, [ids], [output], weights, opset=opset)


def recurrent(hidden: int = 32) -> bytes:
    """x FP32[n, 8, 16] -> state FP32[n, hidden]: the last state of an LSTM."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        helper.make_node("LSTM", ["t", "w", "r"], ["", "last"], "cell", hidden_size=hidden),
        helper.make_node("Squeeze", ["last", "axis"], ["state"]),
    ]
    weights: dict[str, NDArray[Any]] = {
        "w": weight(1, 4 * hidden, 16),
        "r": weight(1, 4 * hidden, hidden, seed=1),
        "axis": np.array([0], np.int64),
    }
    x = tensor("x", "FP32", ["n", 8, 16])
    return build(nodes, [x], [tensor("state", "FP32", ["n", hidden])], weights)


def dense(features: int = 64, classes: int = 8) -> bytes:
    """x FP32[n, features] -> y FP32[n, classes]: Gemm, Relu, Gemm."""
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], "first"),
        helper.make_node("Relu", ["h"], ["a"]),
        helper.make_node("Gemm", ["a", "w2", "b2"], ["y"], "second", transB=1),
    ]
    weights = {
        "w1": weight(features, 64),
        "b1": weight(1, 64, seed=1)[0],
        "w2": weight(classes, 64, seed=2),
        "b2": weight(1, classes, seed=3)[0],
    }
    x = tensor("x", "FP32", ["n", features])
    return build(nodes, [x], [tensor("y", "FP32", ["n", classes])], weights)


def scaler() -> bytes:
    """x FP32[n, 4] -> y FP32[n, 4]: an operator of ai.onnx.ml."""
    node = helper.make_node(
        "Scaler", ["x"], ["y"], domain="ai.onnx.ml", offset=[1.0] * 4, scale=[2.0] * 4
    )
    x, y = tensor("x", "FP32", ["n", 4]), tensor("y", "FP32", ["n", 4])
    return build([node], [x], [y], domains={"ai.onnx.ml": 3})


def doubled_identities() -> bytes:
    """x FP32[n, 4] -> y FP32[n, 4]: what has no effect, and the same sum twice."""
    nodes = [
        helper.make_node("Identity", ["x"], ["a"]),
        helper.make_node("Add", ["a", "one"], ["b"]),
        helper.make_node("Add", ["a", "one"], ["c"]),
        helper.make_node("Mul", ["b", "c"], ["d"]),
        helper.make_node("Identity", ["d"], ["y"]),
    ]
    x, y = tensor("x", "FP32", ["n", 4]), tensor("y", "FP32", ["n", 4])
    return build(nodes, [x], [y], {"one": np.ones(4, np.float32)})


def images(rows: int = 48, seed: int = 0) -> Samples:
    """For `cnn`."""
    values = np.random.default_rng(seed).random((rows, 1, 8, 8), np.float32)
    return Samples({"image": values})


def texts(rows: int = 48, seed: int = 0) -> Samples:
    """For `encoder`."""
    return Samples({"ids": np.random.default_rng(seed).integers(0, 100, (rows, 12))})


def table(features: int = 64, rows: int = 48, seed: int = 0) -> Samples:
    """For `dense`."""
    values = np.random.default_rng(seed).standard_normal((rows, features))
    return Samples({"x": values.astype(np.float32)})


def series(rows: int = 48, seed: int = 0) -> Samples:
    """For `recurrent`."""
    values = np.random.default_rng(seed).standard_normal((rows, 8, 16))
    return Samples({"x": values.astype(np.float32)})
