"""TensorFlow to ONNX through tf2onnx, with names kept and what it leaves undone mended."""

from collections.abc import Mapping

import onnx
from onnx import helper

from optimizer.converters.contract import ConverterInput, ConverterResult
from optimizer.converters.opsets import nearest
from optimizer.errors import ConversionError
from optimizer.frameworks.keras_function import Function
from optimizer.frameworks.keras_model import load_function
from optimizer.quiet import quiet, root_cause
from protos.signature import Signature

FIRST_OPSET, LAST_OPSET = 13, 18  # that tf2onnx writes and the passes work on


def convert(given: ConverterInput) -> ConverterResult:
    """Writes a .keras file or a SavedModel folder as ONNX.

    Raises:
        SourceError: it cannot be loaded.
        ConversionError: an operator has no ONNX form.
    """
    function = load_function(given.source.path)
    opset, notes = nearest(given.opset, FIRST_OPSET, LAST_OPSET, "tf2onnx")
    try:
        with quiet():
            model = _exported(function, opset)
            _replace_erfc(model.graph)
            _name_ends(model.graph, function.signature)
            del model.graph.value_info[:]
            onnx.checker.check_model(model)  # tf2onnx only logs what it cannot convert
            onnx.save_model(model, given.target)
    except Exception as error:
        raise ConversionError(
            f"'{given.source.path}' cannot be exported: {root_cause(error)}"
        ) from error
    return ConverterResult(given.target, opset, notes)


def _exported(function: Function, opset: int) -> onnx.ModelProto:
    import tf2onnx  # noqa: PLC0415  imports TensorFlow, which has to be told things before

    model: onnx.ModelProto
    model, _ = tf2onnx.convert.from_function(
        function.compiled(), input_signature=function.specs(), opset=opset
    )
    return model


def _replace_erfc(graph: onnx.GraphProto) -> None:
    """1 - Erf(x): what the exact GELU needs and tf2onnx has no form for."""
    types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type == "Erfc":
            (x,), (y,) = node.input, node.output
            dtype = types.get(y) or types.get(x) or onnx.TensorProto.FLOAT
            graph.initializer.append(helper.make_tensor(f"{y}/one", dtype, [], [1.0]))
            nodes.append(helper.make_node("Erf", [x], [f"{y}/erf"]))
            nodes.append(helper.make_node("Sub", [f"{y}/one", f"{y}/erf"], [y], node.name))
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _name_ends(graph: onnx.GraphProto, signature: Signature) -> None:
    """Gives inputs and outputs the signature's names and shapes; outputs are Identity:0 before."""
    ends = [*graph.input, *graph.output]
    specs = [*signature.inputs, *signature.outputs]
    names = {spec.name: f"{spec.name}_inner" for spec in specs}  # inner values may not have them
    names |= {end.name: spec.name for end, spec in zip(ends, specs, strict=True)}
    _rename(graph, names)
    for end, spec in zip(ends, specs, strict=True):
        element = end.type.tensor_type.elem_type
        end.CopyFrom(helper.make_tensor_value_info(spec.name, element, spec.shape))


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    for weight in graph.initializer:
        weight.name = names.get(weight.name, weight.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                _rename(inner, names)
                for end in inner.output:
                    end.name = names.get(end.name, end.name)
