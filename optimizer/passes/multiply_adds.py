"""Estimates where a graph's arithmetic is: multiplications by node, for one row of input.

Good for shares, not for absolute figures: lengths that the graph leaves open are assumed.
"""

from collections.abc import Iterator, Mapping
from math import prod

import onnx

from optimizer.passes.onnx_files import all_graphs, all_nodes, n_elements, operator

CONVOLUTIONS = ("Conv", "ConvTranspose")
PRODUCTS = ("MatMul", "Gemm")
RECURRENT = ("LSTM", "GRU", "RNN")
_REARRANGING = ("Transpose", "Identity", "Cast", "Reshape")

_SEQUENCE = 32  # open dimensions of inputs
_IMAGE = 224  # ... of inputs with four dimensions, which are pictures

Shape = tuple[int, ...]


def multiply_adds(model: onnx.ModelProto) -> list[tuple[onnx.NodeProto, int]]:
    """Every node that multiplies by a matrix or a kernel, with how often it does for one row.

    Changes `model`: dimensions of inputs are fixed and shapes written down.
    """
    shapes = shapes_of(model)
    found = ((node, _of_node(node, shapes)) for node in all_nodes(model))
    return [(node, count) for node, count in found if count]


def weights_of(node: onnx.NodeProto, constants: Mapping[str, int]) -> Iterator[str]:
    """Names of the inputs that are a node's weights: constant, and multiplied by."""
    kind = operator(node)
    places = {**dict.fromkeys(CONVOLUTIONS + PRODUCTS, (0, 1)), **dict.fromkeys(RECURRENT, (1, 2))}
    for place in places.get(kind, ()):
        if place < len(node.input) and node.input[place] in constants:
            yield node.input[place]


def constants_of(model: onnx.ModelProto) -> dict[str, int]:
    """Number of elements of everything that does not depend on the input, by name."""
    sizes = {
        tensor.name: n_elements(tensor)
        for graph in all_graphs(model)
        for tensor in graph.initializer
    }
    for node in all_nodes(model):
        if node.op_type == "Constant":
            values = (n_elements(item.t) for item in node.attribute if item.HasField("t"))
            sizes[node.output[0]] = next(values, 1)
        elif node.op_type in _REARRANGING and node.input[0] in sizes:
            sizes[node.output[0]] = sizes[node.input[0]]
    return sizes


def shapes_of(model: onnx.ModelProto) -> dict[str, Shape]:
    """Shapes by name for one row, open lengths assumed; without those that cannot be inferred."""
    _fix_inputs(model)
    for graph in all_graphs(model):
        graph.ClearField("value_info")  # exporters leave stale ones
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        inferred = model
    shapes: dict[str, Shape] = {}
    for graph in all_graphs(inferred):
        shapes |= {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
        for value in (*graph.input, *graph.value_info, *graph.output):
            shape = _known(value)
            if shape is not None:
                shapes[value.name] = shape
    return shapes


def _of_node(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> int:
    kind = operator(node)
    if kind in CONVOLUTIONS:
        return _convolution(node, shapes)
    if kind in PRODUCTS:
        return _product(node, shapes)
    if kind in RECURRENT:
        return _recurrence(node, shapes)
    return 0


def _convolution(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> int:
    # A kernel is applied at every place of the output, a transposed one at those of the input.
    at = node.output[0] if node.op_type == "Conv" else node.input[0]
    places = prod(shapes.get(at, ())[2:])
    return prod(shapes.get(node.input[1], ())) * places


def _product(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> int:
    left, right = (shapes.get(name, ()) for name in node.input[:2])
    result = shapes.get(node.output[0], ())
    if not result and len(right) >= 2:
        return prod(right)
    is_turned = any(item.name == "transA" and item.i for item in node.attribute)
    inner = (left[0] if is_turned else left[-1]) if left else 1
    return prod(result) * inner


def _recurrence(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> int:
    weights = sum(prod(shapes.get(name, (0,))) for name in node.input[1:3])
    return weights * (shapes.get(node.input[0]) or (1,))[0]


def _fix_inputs(model: onnx.ModelProto) -> None:
    initialized = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        for axis, dim in enumerate(dims):
            if dim.HasField("dim_value") or value.name in initialized:
                continue
            assumed = _IMAGE if len(dims) == 4 else _SEQUENCE
            dim.dim_value = 1 if axis == 0 else assumed


def _known(value: onnx.ValueInfoProto) -> Shape | None:
    shape = value.type.tensor_type
    if not shape.HasField("shape"):
        return None
    dims = shape.shape.dim
    if not all(dim.HasField("dim_value") for dim in dims):
        return None
    return tuple(dim.dim_value for dim in dims)
