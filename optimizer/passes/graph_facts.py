"""What an ONNX file is made of: what decides which passes can and should be applied to it.

Imports onnx, so it is imported where a model is worked on, in child processes.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import onnx

from optimizer.passes.multiply_adds import (
    CONVOLUTIONS,
    PRODUCTS,
    constants_of,
    multiply_adds,
    weights_of,
)
from optimizer.passes.onnx_files import (
    all_nodes,
    all_tensors,
    input_types,
    load_graph,
    n_elements,
    operator,
    opset,
    output_types,
)

QUANTIZED = (
    "ConvInteger",
    "DynamicQuantizeLSTM",
    "DynamicQuantizeMatMul",
    "GatherBlockQuantized",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "MatMulNBits",
    "QAttention",
    "QGemm",
    "QLinearConv",
    "QLinearMatMul",
    "QuantizeLinear",
)
"""Operators that are there only after quantization."""


@dataclass(frozen=True, slots=True)
class GraphFacts:
    """An ONNX graph in figures; nothing of it depends on the values of weights."""

    opset: int  # of the standard operators
    ops: Mapping[str, int]  # nodes by operator, subgraphs included; "ai.onnx.ml.X" for others'
    parameters: int  # numbers in all constants
    weights: Mapping[str, int]  # of these, float weights by operator that multiplies by them
    multiply_adds: Mapping[str, int]  # by operator, for one row, open lengths assumed
    dtypes: Mapping[str, int]  # numbers in constants, by their type's name in ONNX: "FLOAT"
    inputs: Mapping[str, str]  # type's name by input
    outputs: Mapping[str, str]
    is_quantized: bool
    has_attention: bool  # an Attention node, or products of two activations around a Softmax
    has_external_data: bool
    domains: Mapping[str, int] = field(default_factory=dict)  # other operator sets, their versions

    @property
    def quantizable(self) -> int:
        """Float weights of convolutions, products and recurrent cells."""
        return sum(self.weights.values())

    @property
    def convolution_share(self) -> float:
        """Part of the arithmetic that is in convolutions, 0 to 1."""
        return self._share(CONVOLUTIONS)

    @property
    def product_share(self) -> float:
        """Part of the arithmetic that is in matrix products, 0 to 1."""
        return self._share(PRODUCTS)

    @property
    def is_classical(self) -> bool:
        """Trees and the like, whose operators only ONNX Runtime has."""
        return any(name.startswith("ai.onnx.ml.") for name in self.ops)

    def count(self, kinds: Iterable[str]) -> int:
        """Nodes of these operators."""
        return sum(self.ops.get(kind, 0) for kind in kinds)

    def _share(self, kinds: Iterable[str]) -> float:
        total = sum(self.multiply_adds.values())
        return sum(self.multiply_adds.get(kind, 0) for kind in kinds) / total if total else 0.0


def facts(model: Path) -> GraphFacts:
    """Looks at a graph; does not read external data.

    Raises:
        PassError: the file is no ONNX model.
    """
    graph = load_graph(model)
    ops = Counter(operator(node) for node in all_nodes(graph))
    constants = constants_of(graph)
    return GraphFacts(
        opset=opset(graph),
        ops=dict(ops),
        parameters=sum(n_elements(tensor) for tensor in all_tensors(graph)),
        weights=_weights(graph, constants),
        multiply_adds=_by_operator(graph),
        dtypes=_dtypes(graph),
        inputs={name: _type_name(kind) for name, kind in input_types(graph).items()},
        outputs={name: _type_name(kind) for name, kind in output_types(graph).items()},
        is_quantized=any(kind in ops for kind in QUANTIZED),
        has_attention=_has_attention(graph, ops, constants),
        has_external_data=any(tensor.external_data for tensor in all_tensors(graph)),
        domains={
            o.domain: o.version for o in graph.opset_import if o.domain not in ("", "ai.onnx")
        },
    )


def _by_operator(graph: onnx.ModelProto) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for node, count in multiply_adds(graph):
        counts[operator(node)] += count
    return dict(counts)


def _weights(graph: onnx.ModelProto, constants: Mapping[str, int]) -> dict[str, int]:
    integers = {t.name for t in graph.graph.initializer if not _is_float(t)}
    counts: Counter[str] = Counter()
    seen: set[str] = set()
    for node in all_nodes(graph):
        for name in set(weights_of(node, constants)) - integers - seen:
            seen.add(name)
            counts[operator(node)] += constants[name]
    return dict(counts)


def _is_float(tensor: onnx.TensorProto) -> bool:
    return _type_name(tensor.data_type) in ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE")


def _has_attention(
    graph: onnx.ModelProto, ops: Mapping[str, int], constants: Mapping[str, int]
) -> bool:
    if any(kind in ops for kind in ("Attention", "QAttention", "MultiHeadAttention")):
        return True
    products = [node for node in all_nodes(graph) if node.op_type == "MatMul"]
    between = [node for node in products if not any(name in constants for name in node.input)]
    return "Softmax" in ops and len(between) >= 2


def _dtypes(graph: onnx.ModelProto) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for tensor in all_tensors(graph):
        counts[_type_name(tensor.data_type)] += n_elements(tensor)
    return dict(counts)


def _type_name(element_type: int) -> str:
    return onnx.TensorProto.DataType.Name(element_type)
