"""Half-precision weights and arithmetic; inputs and outputs keep their types."""

from pathlib import Path

from onnxruntime.transformers.float16 import convert_float_to_float16

from optimizer.errors import PassError
from optimizer.passes.contract import PassInput, PassResult
from optimizer.passes.graph_facts import facts
from optimizer.passes.onnx_files import copy, forget_shapes, load, save
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
        model = load(given.model)
        forget_shapes(model)
        try:
            with quietly():
                half = convert_float_to_float16(model, keep_io_types=True)
        except Exception as error:  # whatever the library meets in a graph
            raise PassError(
                f"cannot be converted to half precision: {first_line(error)}"
            ) from error
        save(half, target)
        return PassResult(target, modified=True, notes=_left_in_float(target, before))

    def ensures(self, given: PassInput, result: PassResult) -> str:
        if result.modified and not facts(result.file).dtypes.get("FLOAT16"):
            return "the result has no weights in half precision"
        return broken(given.model, result.file)


def _left_in_float(file: Path, before: int) -> tuple[str, ...]:
    left = facts(file).dtypes.get("FLOAT", 0)
    if left * 100 < before:
        return ()
    return (f"{left:,} of {before:,} weights stay in float32",)
