"""Brings matrix products into the forms that more kernels and quantizers know."""

import numpy as np
import onnx
from onnx import helper, numpy_helper


def as_products(model: onnx.ModelProto) -> None:
    """Replaces every Gemm whose second operand is a weight and that only multiplies and adds."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        plain = _is_plain(node) and node.input[1] in weights
        nodes.extend(_split(node, model.graph, weights) if plain else [node])
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    _forget_unused(model)


def flatten_biases(model: onnx.ModelProto) -> None:
    """Gives every bias of a Gemm one dimension, with a value for each column.

    The quantizer's scales per channel trip over all others that the standard allows.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Gemm" and len(node.input) > 2 and node.input[1] in weights:
            columns = weights[node.input[1]].dims[0 if _is_turned(node, "transB") else 1]
            bias = weights.get(node.input[2])
            if bias is not None and list(bias.dims) != [columns]:
                _flatten(node, bias, columns, model.graph)


def _flatten(
    node: onnx.NodeProto, bias: onnx.TensorProto, columns: int, graph: onnx.GraphProto
) -> None:
    array = numpy_helper.to_array(bias)
    if array.size not in (1, columns):
        return  # one for each row too
    name = f"{node.name}/{bias.name}/flat"
    flat = np.ascontiguousarray(np.broadcast_to(array.reshape(-1), (columns,)))
    graph.initializer.append(numpy_helper.from_array(flat, name))
    node.input[2] = name


def _is_turned(node: onnx.NodeProto, attribute: str) -> bool:
    return any(item.name == attribute and item.i for item in node.attribute)


def _is_plain(node: onnx.NodeProto) -> bool:
    if node.op_type != "Gemm" or node.domain not in ("", "ai.onnx"):
        return False
    values = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    factors = (values.get("alpha", 1.0), values.get("beta", 1.0))
    return factors == (1.0, 1.0) and not values.get("transA", 0)


def _split(
    node: onnx.NodeProto, graph: onnx.GraphProto, weights: dict[str, onnx.TensorProto]
) -> list[onnx.NodeProto]:
    weight = node.input[1]
    if _is_turned(node, "transB"):
        weight = _turned(weight, graph, weights)
    has_bias = len(node.input) > 2 and node.input[2] != ""
    product = f"{node.output[0]}/product" if has_bias else node.output[0]
    nodes = [helper.make_node("MatMul", [node.input[0], weight], [product], node.name)]
    if has_bias:
        name = f"{node.name}/bias"
        nodes.append(helper.make_node("Add", [product, node.input[2]], [node.output[0]], name))
    return nodes


def _turned(name: str, graph: onnx.GraphProto, weights: dict[str, onnx.TensorProto]) -> str:
    turned = f"{name}/turned"
    if turned not in weights:
        array = np.ascontiguousarray(numpy_helper.to_array(weights[name]).T)
        weights[turned] = numpy_helper.from_array(array, turned)
        graph.initializer.append(weights[turned])
    return turned


def _forget_unused(model: onnx.ModelProto) -> None:
    used = {name for node in model.graph.node for name in node.input}
    used |= {value.name for value in model.graph.output}
    if any(item.HasField("g") or item.graphs for n in model.graph.node for item in n.attribute):
        return  # bodies of branches may use them
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
