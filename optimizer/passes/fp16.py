"""Half-precision weights and arithmetic; inputs and outputs keep their types."""

from pathlib import Path

import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16

from optimizer.errors import PassError
from optimizer.passes.contract import PassInput, PassResult
from optimizer.passes.graph_facts import facts
from optimizer.passes.onnx_files import copy, forget_shapes, load, save, work_folder
from optimizer.passes.promises import broken, first_line
from optimizer.passes.quiet import quietly


class Fp16:
    """Halves a file. Values above 65504 overflow to infinity: whether any do, validation finds.

    ONNX Runtime's converter, since the one of onnxconverter-common leaves casts to float32 in
    graphs of torch's exporter, which are then invalid. On a CPU the weights are cast back.
    """

    name = "fp16"
    is_lossless = False
    needs_data = False
    makes = ".onnx"

    def requires(self, model: Path) -> str:
        found = facts(model)
        if found.is_quantized:
            return "it is quantized already"
        return "its operators of ai.onnx.ml have no half precision" if found.is_classical else ""

    def apply(self, given: PassInput) -> PassResult:
        target = given.folder / "model.onnx"
        before = facts(given.model).dtypes.get("FLOAT", 0)
        if not before:
            copy(given.model, target)
            return PassResult(target, modified=False)
        with work_folder(given.folder) as work:
            save(_converted(given.model, Path(work) / "source.onnx"), target)
        return PassResult(target, modified=True, notes=_left_in_float(target, before))

    def ensures(self, given: PassInput, result: PassResult) -> str:
        if result.modified and not facts(result.file).dtypes.get("FLOAT16"):
            return "the result has no weights in half precision"
        return broken(given.model, result.file)


def _converted(model: Path, copied: Path) -> onnx.ModelProto:
    graph = load(model)
    forget_shapes(graph)
    save(graph, copied)
    try:
        # From a file, since shapes of large models can only be inferred in files.
        with quietly():
            half: onnx.ModelProto = convert_float_to_float16(str(copied), keep_io_types=True)
    except Exception as error:  # whatever the library meets in a graph
        raise PassError(f"cannot be converted to half precision: {first_line(error)}") from error
    return half


def _left_in_float(file: Path, before: int) -> tuple[str, ...]:
    left = facts(file).dtypes.get("FLOAT", 0)
    if left * 100 < before:
        return ()
    return (f"{left:,} of {before:,} weights stay in float32",)
