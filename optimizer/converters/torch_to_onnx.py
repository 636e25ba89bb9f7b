"""PyTorch to ONNX: an exported program, with its own names and nothing stale in the file."""

import onnx_ir as ir
import torch
from torch.export import ExportedProgram

from optimizer.converters.contract import ConverterInput, ConverterResult
from optimizer.converters.opsets import nearest
from optimizer.errors import ConversionError
from optimizer.frameworks.torch_model import load_program
from optimizer.frameworks.torch_signature import signature_of
from optimizer.quiet import quiet, root_cause
from protos.signature import Signature

FIRST_OPSET = 18  # the exporter writes no older one: its down-conversion fails and says nothing
LAST_OPSET = 23


def convert(given: ConverterInput) -> ConverterResult:
    """Writes a .pt2 as ONNX; over 2 GB with the weights in a file beside it.

    Raises:
        SourceError: the file holds no exported program.
        ConversionError: the exporter cannot express it.
    """
    program, notes = load_program(given.source.path)
    opset, note = nearest(given.opset, FIRST_OPSET, LAST_OPSET, "PyTorch's exporter")
    signature = signature_of(program)
    try:
        with quiet():
            exported = _export(program, opset)
            _tidy(exported.model, signature)
            exported.save(given.target)
    except Exception as error:
        raise ConversionError(
            f"'{given.source.path}' cannot be exported: {root_cause(error)}"
        ) from error
    return ConverterResult(given.target, opset, notes + note)


def _export(program: ExportedProgram, opset: int) -> torch.onnx.ONNXProgram:
    exported = torch.onnx.export(program, dynamo=True, opset_version=opset, verbose=False)
    assert exported is not None
    return exported


def _tidy(model: ir.Model, signature: Signature) -> None:
    """Names inputs and outputs as the signature does, and drops what the exporter leaves behind.

    Shapes of inner values are what they were before its optimizations, which breaks quantizers;
    the metadata of nodes hold stack traces with paths of this machine.
    """
    ends = [*model.graph.inputs, *model.graph.outputs]
    specs = [*signature.inputs, *signature.outputs]
    names = {spec.name for spec in specs}
    model.graph.metadata_props.clear()
    for weight in model.graph.initializers.values():
        weight.shape = weight.type = None
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
            if not value.is_graph_output():
                value.shape = value.type = None
            if value.name in names:
                value.name = f"{value.name}_inner"
    for value, spec in zip(ends, specs, strict=True):
        value.name = spec.name
        value.shape = ir.Shape(spec.shape)
