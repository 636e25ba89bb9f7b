"""Gets a graph into the form that ONNX Runtime's quantizers work on."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization.shape_inference import quant_pre_process

from optimizer.converters.onnx_upgrade import upgraded
from optimizer.errors import PassError
from optimizer.passes.classical_types import declare_types
from optimizer.passes.graph_facts import facts
from optimizer.passes.onnx_files import forget_shapes, is_large, load, name_nodes, save
from optimizer.passes.products import as_products, flatten_biases
from optimizer.passes.promises import first_line
from optimizer.passes.quiet import quietly

_PREPARED = "prepared.onnx"
_PER_CHANNEL = 13  # opset where DequantizeLinear has an axis
_UPGRADED = 17


def prepared(model: Path, folder: Path, *, without_gemm: bool = False) -> Path:
    """The same model, constants folded, shapes known, every node with a name; in `folder`.

    Quantizers write beside what they read, so they are given this and never the original.
    `without_gemm`: products are MatMul, which a quantizer of Gemm would make of them under names
    that cannot be excluded.

    Raises:
        ConversionError: it cannot be brought to an opset with 8-bit operators.
        PassError: its shapes cannot be inferred.
    """
    folder = folder.resolve()
    source = _recent(model, folder)
    named, target = folder / "named.onnx", folder / _PREPARED
    graph = load(source)
    forget_shapes(graph)
    name_nodes(graph)
    save(graph, named)
    _infer(named, target)
    graph = load(target)
    name_nodes(graph)  # folding made new ones
    if without_gemm:
        as_products(graph)
    flatten_biases(graph)
    is_declared = declare_types(graph)
    save(graph, target)
    if is_declared:  # what comes after has no type yet
        onnx.shape_inference.infer_shapes_path(str(target))
    return target


def _recent(model: Path, folder: Path) -> Path:
    if facts(model).opset >= _PER_CHANNEL:
        return model
    target = folder / "upgraded.onnx"
    return target if upgraded(model, target, _UPGRADED) else model


def _infer(source: Path, target: Path) -> None:
    # Symbolic inference knows more shapes, but gives up on graphs with computed ones. Without any
    # optimization is the last resort, for graphs with operators that are not in ONNX Runtime.
    attempts: Sequence[dict[str, bool]] = (
        {},
        {"skip_symbolic_shape": True},
        {"skip_symbolic_shape": True, "skip_onnx_shape": True},
    )
    errors: list[Exception] = []
    for options in attempts:
        try:
            # Symbolic inference that gives up leaves what it has in the current folder.
            with quietly(), contextlib.chdir(source.parent):
                quant_pre_process(str(source), str(target), **options, **_form(source))
        except Exception as error:  # sympy's, protobuf's, ONNX Runtime's: no common root
            errors.append(error)
        else:
            return
    raise PassError(f"cannot be prepared for quantization: {first_line(errors[0])}")


def _form(source: Path) -> dict[str, Any]:
    if not is_large(source):
        return {}
    location = f"{_PREPARED}.data"
    return {
        "save_as_external_data": True,
        "all_tensors_to_one_file": True,
        "external_data_location": location,
    }
