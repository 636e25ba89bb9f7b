"""Gets a graph into the form that ONNX Runtime's quantizers work on."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from onnxruntime.quantization.shape_inference import quant_pre_process

from optimizer.converters.onnx_upgrade import upgraded
from optimizer.errors import PassError
from optimizer.passes.graph_facts import facts
from optimizer.passes.onnx_files import forget_shapes, load, name_nodes, save
from optimizer.passes.promises import first_line
from optimizer.passes.quiet import quietly

_PER_CHANNEL = 13  # opset where DequantizeLinear has an axis
_UPGRADED = 17


def prepared(model: Path, folder: Path) -> Path:
    """The same model, constants folded, shapes known, every node with a name; in `folder`.

    Quantizers write beside what they read, so they are given this and never the original.

    Raises:
        PassError: it cannot be brought to an opset with 8-bit operators.
    """
    source = _recent(model, folder)
    named, target = folder / "named.onnx", folder / "prepared.onnx"
    graph = load(source)
    forget_shapes(graph)
    name_nodes(graph)
    save(graph, named)
    _infer(named, target)
    # Folding made new nodes, some without a name.
    graph = load(target)
    if name_nodes(graph):
        save(graph, target)
    return target


def work_folder(folder: Path) -> tempfile.TemporaryDirectory[str]:
    """A folder for files on the way, on the same disk as the result."""
    return tempfile.TemporaryDirectory(prefix=".work-", dir=folder)


def _recent(model: Path, folder: Path) -> Path:
    found = facts(model).opset
    if found >= _PER_CHANNEL:
        return model
    target = folder / "upgraded.onnx"
    if not upgraded(model, target, _UPGRADED):
        raise PassError(
            f"opset {found} cannot be upgraded to {_UPGRADED}; quantized operators with a scale"
            f" per channel begin at {_PER_CHANNEL}"
        )
    return target


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
            with quietly():
                quant_pre_process(str(source), str(target), **options)
        except Exception as error:  # sympy's, protobuf's, ONNX Runtime's: no common root
            errors.append(error)
        else:
            return
    raise PassError(f"cannot be prepared for quantization: {first_line(errors[0])}")
