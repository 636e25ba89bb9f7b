"""Types of what the operators of classical models answer, which ONNX does not infer.

ONNX knows no type inference for them, and nothing that comes after them has a type either.
"""

from collections.abc import Iterator

import onnx
from onnx import TensorProto, helper

_DOMAIN = "ai.onnx.ml"
_ROW_BY_ROW = ("Imputer", "Normalizer", "Scaler")
"""Answer in the shape that they are given."""
_FLOAT_OUTPUTS = {
    "FeatureVectorizer": 0,
    "Imputer": 0,
    "LinearClassifier": 1,
    "LinearRegressor": 0,
    "Normalizer": 0,
    "OneHotEncoder": 0,
    "SVMClassifier": 1,
    "SVMRegressor": 0,
    "Scaler": 0,
    "TreeEnsembleClassifier": 1,
    "TreeEnsembleRegressor": 0,
}
"""Which output is of float32."""


def declare_types(model: onnx.ModelProto) -> bool:
    """Writes the types of such outputs into the graph; whether there was one without."""
    graph = model.graph
    known = {
        value.name: value.type.tensor_type
        for value in (*graph.input, *graph.value_info, *graph.output)
        if value.type.tensor_type.elem_type
    }
    is_changed = False
    for node, name in _float_outputs(graph):
        if name in known:
            continue
        value = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        given = known.get(node.input[0])
        if node.op_type in _ROW_BY_ROW and given is not None and given.HasField("shape"):
            value.type.tensor_type.shape.CopyFrom(given.shape)
        known[name] = value.type.tensor_type
        graph.value_info.append(value)
        is_changed = True
    return is_changed


def _float_outputs(graph: onnx.GraphProto) -> Iterator[tuple[onnx.NodeProto, str]]:
    for node in graph.node:
        number = _FLOAT_OUTPUTS.get(node.op_type) if node.domain == _DOMAIN else None
        if number is None or number >= len(node.output) or not node.output[number]:
            continue
        attributes = {attribute.name for attribute in node.attribute}
        if node.op_type != "Imputer" or "imputed_value_floats" in attributes:
            yield node, node.output[number]
