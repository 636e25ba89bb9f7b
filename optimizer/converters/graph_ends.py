"""What surrounds a converted graph: its inputs, outputs and opset, as the original model has them.

The converter libraries name and shape tensors by habits of their own. Here a model gets exactly the
signature of its original, so that one can take the place of the other unseen.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import onnx
from onnx import TensorProto, compose, helper, numpy_helper, shape_inference, version_converter

from optimizer.converters.tree_ensemble import ML_OPSET
from optimizer.errors import ConversionError
from protos.signature import Signature, TensorSpec

_ELEMENTS = {
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "INT64": TensorProto.INT64,
    "BYTES": TensorProto.STRING,
}
_GREW_ONLY = ("TreeEnsembleClassifier", "TreeEnsembleRegressor")
"""Operators whose newer forms take all of the older ones."""


def adopt(model: onnx.ModelProto, signature: Signature) -> onnx.ModelProto:
    """Gives the model the signature's inputs and outputs; the model's are in the same order.

    Outputs it has beyond the signature's are dropped.

    Raises:
        ConversionError: it lacks an output, or an input has an output's name.
    """
    for spec in signature.outputs:
        if spec.name in {given.name for given in signature.inputs}:
            raise ConversionError(f"column '{spec.name}' has the name of an output")
    model = _renamed_apart(model)
    _adopt_inputs(model.graph, signature.inputs)
    ranks = _true_ranks(model)
    spread = _spread(model.graph, signature.outputs)
    if len(spread) < len(signature.outputs):
        made = ", ".join(spec.name for spec in signature.outputs[len(spread) :])
        raise ConversionError(f"the converter makes no {made}")
    outputs = [
        _adopt_output(model.graph, output, spec, ranks)
        for output, spec in zip(spread, signature.outputs, strict=False)
    ]
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    del model.graph.value_info[:]
    return model


def raise_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Brings a model to an opset; leaves it where an operator has no form there."""
    old = opset_of(model)
    if old < opset and not _means_the_same(model, "", old, opset):
        model = _upgraded(model, opset)
    versions = {entry.domain: entry.version for entry in model.opset_import}
    for domain, wanted in (("", opset), ("ai.onnx.ml", ML_OPSET)):
        if _means_the_same(model, domain, versions.get(domain, 1), wanted):
            versions[domain] = max(wanted, versions.get(domain, 1))
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(*entry) for entry in versions.items())
    known = [entry for entry in model.opset_import if entry.domain in ("", "ai.onnx.ml")]
    model.ir_version = helper.find_min_ir_version_for(known)
    return model


def opset_of(model: onnx.ModelProto) -> int:
    return max(entry.version for entry in model.opset_import if entry.domain == "")


def joined(first: onnx.ModelProto, second: onnx.ModelProto, cast_to: str) -> onnx.ModelProto:
    """One model of two: the only output of the first, cast, is the only input of the second."""
    ending = helper.make_node("Cast", [first.graph.output[0].name], ["cast"], to=_ELEMENTS[cast_to])
    first.graph.node.append(ending)
    del first.graph.output[:]
    shape = ["batch", None]
    first.graph.output.append(helper.make_tensor_value_info("cast", _ELEMENTS[cast_to], shape))
    del first.graph.value_info[:]
    second = compose.add_prefix(second, "last_")
    link = (first.graph.output[0].name, second.graph.input[0].name)
    first.ir_version = second.ir_version = max(first.ir_version, second.ir_version)
    try:
        return compose.merge_models(first, second, io_map=[link])
    except ValueError as error:
        raise ConversionError(f"the steps and the last one do not go together: {error}") from None


def zeros_to_missing(model: onnx.ModelProto) -> onnx.ModelProto:
    """Makes NaN of every 0 in the only output: what a sparse matrix leaves out."""
    graph, name = model.graph, model.graph.output[0].name
    element = graph.output[0].type.tensor_type.elem_type
    dtype = helper.tensor_dtype_to_np_dtype(element)
    for constant, value in (("zero", 0.0), ("missing", float("nan"))):
        array = numpy_helper.from_array(dtype.type(value).reshape(()), constant)
        graph.initializer.append(array)
    graph.node.append(helper.make_node("Equal", [name, "zero"], ["is_zero"]))
    graph.node.append(helper.make_node("Where", ["is_zero", "missing", name], ["with_missing"]))
    graph.output[0].name = "with_missing"
    return model


def _renamed_apart(model: onnx.ModelProto) -> onnx.ModelProto:
    """All names of inner values prefixed, so that the signature's are free."""
    inputs = [value.name for value in model.graph.input]
    model = compose.add_prefix(model, "m_")
    assert [value.name for value in model.graph.input] == [f"m_{name}" for name in inputs]
    return model


def _adopt_inputs(graph: onnx.GraphProto, specs: Sequence[TensorSpec]) -> None:
    by_name = {value.name.removeprefix("m_"): value for value in graph.input}
    casts = []
    for spec in specs:
        value = by_name.get(spec.name)
        if value is None:
            continue  # a column that the model does not look at
        element = value.type.tensor_type.elem_type
        operator = "Identity" if element == _ELEMENTS[spec.datatype] else "Cast"
        attributes: dict[str, Any] = {"to": element} if operator == "Cast" else {}
        casts.append(helper.make_node(operator, [spec.name], [value.name], **attributes))
    rest = list(graph.node)
    _bypass(casts, rest)
    del graph.node[:]
    graph.node.extend([node for node in casts if node.op_type == "Cast"] + rest)
    del graph.input[:]
    graph.input.extend(_value_info(spec) for spec in specs)


def _bypass(casts: Sequence[Any], nodes: Sequence[Any]) -> None:
    """Lets the nodes read an input itself where nothing is cast."""
    direct = {node.output[0]: node.input[0] for node in casts if node.op_type == "Identity"}
    for node in nodes:
        for index, name in enumerate(node.input):
            node.input[index] = direct.get(name, name)


def _spread(graph: onnx.GraphProto, specs: Sequence[TensorSpec]) -> list[Any]:
    """The outputs; where one holds an array for each target, one for each of them."""
    outputs = list(graph.output)
    if len(specs) < 2 or not specs[1].name.startswith("probabilities_") or len(outputs) != 2:
        return outputs
    packed, found = outputs[1], outputs[:1]
    is_sequence = packed.type.HasField("sequence_type")
    for index, spec in enumerate(specs[1:]):
        place, name = f"place_{index}", f"part_{index}"
        graph.initializer.append(numpy_helper.from_array(_int64(index), place))
        operator = "SequenceAt" if is_sequence else "Gather"
        graph.node.append(helper.make_node(operator, [packed.name, place], [name]))
        found.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(spec.shape)))
    return found


def _adopt_output(
    graph: onnx.GraphProto, output: Any, spec: TensorSpec, ranks: dict[str, int]
) -> Any:
    name, kind = output.name, output.type.tensor_type
    if kind.elem_type != _ELEMENTS[spec.datatype]:
        cast = helper.make_node("Cast", [name], [f"c_{name}"], to=_ELEMENTS[spec.datatype])
        graph.node.append(cast)
        name = f"c_{name}"
    operator, inputs = "Identity", [name]
    if ranks.get(output.name, len(kind.shape.dim)) != len(spec.shape) or _is_narrower(kind, spec):
        constant = f"shape_{spec.name}"
        shape = [-1, *(size for size in spec.shape[1:] if isinstance(size, int))]
        graph.initializer.append(numpy_helper.from_array(_int64(shape), constant))
        operator, inputs = "Reshape", [name, constant]
    if operator == "Identity" and _rename(graph, name, spec.name):
        return _value_info(spec)
    graph.node.append(helper.make_node(operator, inputs, [spec.name]))
    return _value_info(spec)


def _rename(graph: onnx.GraphProto, old: str, new: str) -> bool:
    """Renames what a node makes, where nothing else reads it."""
    if any(old in node.input for node in graph.node):
        return False
    for node in graph.node:
        for index, name in enumerate(node.output):
            if name == old:
                node.output[index] = new
                return True
    return False


def _is_narrower(kind: Any, spec: TensorSpec) -> bool:
    """Whether several targets come one below the other."""
    last = kind.shape.dim[-1].dim_value if len(kind.shape.dim) else 0
    return len(spec.shape) == 2 and last == 1 and spec.shape[1] != 1


def _true_ranks(model: onnx.ModelProto) -> dict[str, int]:
    """By output, as the operators say: what the converter declares is not always true."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    for output in bare.graph.output:
        output.type.tensor_type.ClearField("shape")
    try:
        inferred = shape_inference.infer_shapes(bare, data_prop=True)
    except shape_inference.InferenceError:
        return {}
    return {
        output.name: len(output.type.tensor_type.shape.dim)
        for output in inferred.graph.output
        if output.type.tensor_type.HasField("shape")
    }


def _value_info(spec: TensorSpec) -> Any:
    return helper.make_tensor_value_info(spec.name, _ELEMENTS[spec.datatype], list(spec.shape))


def _int64(value: Any) -> Any:
    import numpy as np  # noqa: PLC0415

    return np.asarray(value, np.int64)


def _means_the_same(model: onnx.ModelProto, domain: str, old: int, new: int) -> bool:
    nodes = [node for node in _nodes(model.graph) if node.domain == domain]
    return all(_is_same(node, old, new) for node in nodes)


def _is_same(node: Any, old: int, new: int) -> bool:
    """Whether an operator's form at the new opset is that of the old one."""
    try:
        schema = onnx.defs.get_schema(node.op_type, new, node.domain)
    except onnx.defs.SchemaError:
        return False
    return schema.since_version <= old or node.op_type in _GREW_ONLY


def _nodes(graph: onnx.GraphProto) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _upgraded(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    names = [value.name for value in model.graph.input]
    try:
        newer = version_converter.convert_version(model, opset)
    except Exception:  # it raises whatever comes; the model stays as it is
        return model
    inputs = {value.name: value for value in newer.graph.input}
    del newer.graph.input[:]  # every constant has become one, too
    newer.graph.input.extend(inputs[name] for name in names)
    return newer
