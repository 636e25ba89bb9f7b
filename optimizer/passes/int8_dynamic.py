"""8-bit weights fixed beforehand, activations scaled as they come; needs no data."""

from collections.abc import Sequence
from pathlib import Path

from onnxruntime.quantization import QuantType, quantize_dynamic

from optimizer.errors import PassError
from optimizer.passes.contract import PassInput, PassResult
from optimizer.passes.graph_facts import facts
from optimizer.passes.multiply_adds import CONVOLUTIONS
from optimizer.passes.onnx_files import is_large, work_folder
from optimizer.passes.preparation import prepared
from optimizer.passes.promises import broken, first_line, not_quantized
from optimizer.passes.quiet import quietly

OPERATORS = ("MatMul", "Gemm", "Gather", "LSTM")
"""Never Conv: ConvInteger is seven times slower than Conv. Never Attention of the standard
operators: the quantizer takes it for ONNX Runtime's older one of the same name."""

_MULTIPLYING = ("MatMul", "Gemm", "LSTM")
_MOST_CONVOLUTIONS = 0.5  # of the arithmetic


class Int8Dynamic:
    """The integers of every run are scaled by what that run brings.

    Settings: `per_channel` (true), `op_types` (of `OPERATORS`), `exclude` (nodes by name).

    A graph with nothing to quantize is refused, not copied.

    Source: Jacob et al. 2018, arXiv:1712.05877.
    """

    name = "int8_dynamic"
    is_lossless = False
    needs_data = False
    makes = ".onnx"

    def requires(self, model: Path) -> str:
        found = facts(model)
        if found.is_quantized:
            return "it is quantized already"
        if found.convolution_share > _MOST_CONVOLUTIONS:
            return (
                f"{found.convolution_share:.0%} of its arithmetic is in"
                f" {found.count(CONVOLUTIONS)} convolutions, which dynamic int8 makes 7 times"
                " slower: int8_static is for those"
            )
        if not any(found.weights.get(kind) for kind in _MULTIPLYING):
            return "it has no float weights in MatMul, Gemm or LSTM"
        return ""

    def apply(self, given: PassInput) -> PassResult:
        target = given.folder / "model.onnx"
        with work_folder(given.folder) as work:
            source = prepared(given.model, Path(work), without_gemm=True)
            quantize(source, target, given, exclude=given.settings.get("exclude", ()))
        return PassResult(target, modified=True, notes=_notes(target))

    def ensures(self, given: PassInput, result: PassResult) -> str:
        return not_quantized(result.file) or broken(given.model, result.file)


def kinds(given: PassInput) -> list[str]:
    """The operators that are quantized."""
    return list(given.settings.get("op_types", OPERATORS))


def quantize(source: Path, target: Path, given: PassInput, *, exclude: Sequence[str]) -> None:
    """Quantizes a prepared model by the settings of `given`, but for the nodes named.

    Raises:
        PassError: the quantizer cannot do it.
    """
    try:
        with quietly():
            quantize_dynamic(
                source,
                target,
                op_types_to_quantize=kinds(given),
                per_channel=given.settings.get("per_channel", True),
                weight_type=QuantType.QInt8,
                nodes_to_exclude=list(exclude),
                use_external_data_format=is_large(source),
                # Shapes of fused graphs are not always known, their types are.
                extra_options={"MatMulConstBOnly": True, "DefaultTensorType": 1},
            )
    except Exception as error:  # whatever the library meets in a graph
        raise PassError(f"ONNX Runtime cannot quantize it: {first_line(error)}") from error


def _notes(file: Path) -> tuple[str, ...]:
    left = facts(file).count(CONVOLUTIONS)
    return (f"{left} convolutions stay in float",) if left else ()
