"""ONNX models of well-known shapes, built from random weights: nothing is downloaded.

"n" is the batch dimension, "s" the sequence length. Weights are seeded, so every run of every
load test sees the same model. Random weights cost what trained ones cost.
"""

from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

VOCABULARY = 30_522
HIDDEN = 384
OPSET = 17

Float32s = NDArray[np.float32]


class _Graph:
    """A graph in the making: every call adds a node and returns the name of its output."""

    def __init__(self, seed: int = 0) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.random = np.random.default_rng(seed)

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        name = output or f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def constant(self, value: NDArray[np.generic]) -> str:
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(value, name))
        return name

    def indices(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def normal(self, *shape: int, deviation: float) -> str:
        values = self.random.standard_normal(shape, np.float32) * np.float32(deviation)
        return self.constant(values)

    def dense(self, x: str, inputs: int, outputs: int, output: str = "") -> str:
        product = self.add("MatMul", x, self.normal(inputs, outputs, deviation=inputs**-0.5))
        bias = self.constant(np.zeros(outputs, np.float32))
        return self.add("Add", product, bias, output=output)

    def normalized(self, x: str, size: int) -> str:
        scale, bias = (self.constant(fill(size, dtype=np.float32)) for fill in (np.ones, np.zeros))
        return self.add("LayerNormalization", x, scale, bias, axis=-1, epsilon=1e-12)

    def conv(self, x: str, inputs: int, outputs: int, kernel: int, stride: int = 1) -> str:
        """A convolution with its batch normalization folded in, as exporters leave it."""
        weight = self.normal(
            outputs, inputs, kernel, kernel, deviation=(2 / (inputs * kernel**2)) ** 0.5
        )
        bias = self.constant(np.zeros(outputs, np.float32))
        pads = [kernel // 2] * 4
        return self.add("Conv", x, weight, bias, strides=[stride] * 2, pads=pads)

    def model(
        self, inputs: Iterable[onnx.ValueInfoProto], outputs: Iterable[onnx.ValueInfoProto]
    ) -> bytes:
        graph = helper.make_graph(
            self.nodes, "graph", list(inputs), list(outputs), initializer=self.weights
        )
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def _floats(name: str, *dims: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(dims))


def _ids(name: str, *dims: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.INT64, list(dims))


def tiny(seed: int = 0) -> bytes:
    """x FP32[n, 16] -> y FP32[n, 4]: next to no computation, so all that is left is serving."""
    return _perceptron([16, 16, 4], seed)


def mlp(seed: int = 0) -> bytes:
    """x FP32[n, 256] -> y FP32[n, 10]: 256-512-512-10."""
    return _perceptron([256, 512, 512, 10], seed)


def _perceptron(sizes: list[int], seed: int) -> bytes:
    graph, x = _Graph(seed), "x"
    for inputs, outputs in pairwise(sizes[:-1]):
        x = graph.add("Relu", graph.dense(x, inputs, outputs))
    graph.dense(x, sizes[-2], sizes[-1], output="y")
    return graph.model([_floats("x", "n", sizes[0])], [_floats("y", "n", sizes[-1])])


def embedding(seed: int = 0) -> bytes:
    """ids INT64[n, s] -> y FP32[n, s, 32]: fails on an id outside its 1,000 rows."""
    graph = _Graph(seed)
    graph.add("Gather", graph.normal(1000, 32, deviation=1), "ids", output="y", axis=0)
    return graph.model([_ids("ids", "n", "s")], [_floats("y", "n", "s", 32)])


def minilm(layers: int = 6, heads: int = 12) -> bytes:
    """input_ids, attention_mask INT64[n, s] -> embedding FP32[n, 384].

    The shape of all-MiniLM-L6-v2: 6 layers, 384 wide, 12 heads, feed-forward 1536, mean pooling.
    """
    graph = _Graph()
    mask = graph.add("Cast", "attention_mask", to=TensorProto.FLOAT)
    hidden = graph.normalized(_token_embeddings(graph), HIDDEN)
    bias = _attention_bias(graph, mask)
    for _ in range(layers):
        attended = graph.add("Add", hidden, _attention(graph, hidden, bias, heads))
        hidden = graph.normalized(attended, HIDDEN)
        hidden = graph.normalized(graph.add("Add", hidden, _feed_forward(graph, hidden)), HIDDEN)
    _mean_pooling(graph, hidden, mask)
    return graph.model(
        [_ids("input_ids", "n", "s"), _ids("attention_mask", "n", "s")],
        [_floats("embedding", "n", HIDDEN)],
    )


def _token_embeddings(graph: _Graph) -> str:
    words = graph.add("Gather", graph.normal(VOCABULARY, HIDDEN, deviation=0.05), "input_ids")
    length = graph.add("Gather", graph.add("Shape", "input_ids"), graph.indices(1))
    positions = graph.normal(512, HIDDEN, deviation=0.05)
    used = graph.add("Slice", positions, graph.indices(0), length, graph.indices(0))
    return graph.add("Add", words, used)


def _attention_bias(graph: _Graph, mask: str) -> str:
    """FP32[n, 1, 1, s]: 0 where the mask keeps a position, -10,000 where it does not."""
    one, low = (graph.constant(np.array(value, np.float32)) for value in (1, -10_000))
    hidden = graph.add("Mul", graph.add("Sub", one, mask), low)
    return graph.add("Unsqueeze", hidden, graph.indices(1, 2))


def _attention(graph: _Graph, x: str, bias: str, heads: int) -> str:
    split = graph.indices(0, 0, heads, HIDDEN // heads)

    def head(order: list[int]) -> str:
        projected = graph.add("Reshape", graph.dense(x, HIDDEN, HIDDEN), split)
        return graph.add("Transpose", projected, perm=order)

    query, key, value = head([0, 2, 1, 3]), head([0, 2, 3, 1]), head([0, 2, 1, 3])
    scale = graph.constant(np.array((HIDDEN // heads) ** -0.5, np.float32))
    scores = graph.add("Mul", graph.add("MatMul", query, key), scale)
    weights = graph.add("Softmax", graph.add("Add", scores, bias), axis=-1)
    context = graph.add("Transpose", graph.add("MatMul", weights, value), perm=[0, 2, 1, 3])
    merged = graph.add("Reshape", context, graph.indices(0, 0, HIDDEN))
    return graph.dense(merged, HIDDEN, HIDDEN)


def _feed_forward(graph: _Graph, x: str) -> str:
    wide = graph.dense(x, HIDDEN, 4 * HIDDEN)
    return graph.dense(_gelu(graph, wide), 4 * HIDDEN, HIDDEN)


def _gelu(graph: _Graph, x: str) -> str:
    half, one, root = (graph.constant(np.array(v, np.float32)) for v in (0.5, 1, 2**0.5))
    error = graph.add("Add", graph.add("Erf", graph.add("Div", x, root)), one)
    return graph.add("Mul", graph.add("Mul", x, error), half)


def _mean_pooling(graph: _Graph, hidden: str, mask: str) -> str:
    kept = graph.add("Unsqueeze", mask, graph.indices(-1))
    axis = graph.indices(1)
    total = graph.add("ReduceSum", graph.add("Mul", hidden, kept), axis, keepdims=0)
    count = graph.add("ReduceSum", kept, axis, keepdims=0)
    return graph.add("Div", total, count, output="embedding")


def resnet50() -> bytes:
    """image FP32[n, 3, 224, 224] -> logits FP32[n, 1000]: the shape of ResNet-50."""
    graph = _Graph()
    x = graph.add("Relu", graph.conv("image", 3, 64, kernel=7, stride=2))
    x = graph.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels = 64
    for stage, (blocks, width) in enumerate([(3, 64), (4, 128), (6, 256), (3, 512)]):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            x = _bottleneck(graph, x, channels, width, stride)
            channels = 4 * width
    pooled = graph.add("Flatten", graph.add("GlobalAveragePool", x))
    graph.dense(pooled, channels, 1000, output="logits")
    return graph.model([_floats("image", "n", 3, 224, 224)], [_floats("logits", "n", 1000)])


def _bottleneck(graph: _Graph, x: str, channels: int, width: int, stride: int) -> str:
    """1x1, 3x3, 1x1 and a shortcut; halved, so that random weights stay in range."""
    inner = graph.add("Relu", graph.conv(x, channels, width, kernel=1))
    inner = graph.add("Relu", graph.conv(inner, width, width, kernel=3, stride=stride))
    inner = graph.conv(inner, width, 4 * width, kernel=1)
    if channels != 4 * width:
        x = graph.conv(x, channels, 4 * width, kernel=1, stride=stride)
    half = graph.constant(np.array(0.5, np.float32))
    return graph.add("Relu", graph.add("Mul", graph.add("Add", inner, x), half))


BUILDERS: dict[str, Callable[..., bytes]] = {
    "tiny": tiny,
    "mlp": mlp,
    "embedding": embedding,
    "minilm": minilm,
    "resnet50": resnet50,
}


def write_repository(directory: Path, names: Iterable[str], provider: str = "auto") -> Path:
    """A model repository with version 1 of each of `names`. Returns `directory`.

    With another `provider` than "auto", "cpu" or "cuda", the models run there and nowhere else.
    """
    for name in names:
        version = directory / name / "1"
        version.mkdir(parents=True, exist_ok=True)
        (version / "model.onnx").write_bytes(BUILDERS[name]())
        if provider != "auto":
            config = directory / name / "model.toml"
            config.write_text(f'[execution]\nproviders = ["{provider}"]\n')
    return directory
