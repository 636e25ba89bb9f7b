"""Weights in 8 or 4 bits, by blocks; arithmetic stays in float, or in 8 bits where asked."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx

from optimizer.converters.onnx_upgrade import upgraded
from optimizer.errors import PassError, Unavailable
from optimizer.passes.calibration_rows import batches, checked
from optimizer.passes.contract import PassInput, PassResult
from optimizer.passes.graph_facts import facts
from optimizer.passes.onnx_files import forget_shapes, is_large, load, name_nodes, save, work_folder
from optimizer.passes.products import as_products
from optimizer.passes.promises import broken, first_line
from optimizer.passes.quiet import quietly
from protos.tensors import Array

with quietly():  # the quantizer configures the root logger
    from onnxruntime.quantization import QuantType, matmul_nbits_quantizer, quantize_dynamic

_BITS = (8, 4)
_METHODS = ("rtn", "hqq", "gptq")
_FOUR_BIT_TENSORS = 21  # opset that has them
_MOST_ROWS = 16  # that GPTQ looks at; it keeps all activations


class WeightOnly:
    """The most accurate 8 bits there are in ONNX Runtime, or the smallest file in 4.

    Settings: `bits` (8 or 4), `method` ("rtn", "hqq", or "gptq" of 4 bits, which needs data),
    `block` (32 weights share a scale), `symmetric` (true), `accuracy_level` (4: 8-bit
    arithmetic), `gather` (embedding tables too: true of 8 bits, where it costs next to nothing).

    A graph with nothing to quantize is refused, not copied.

    Source: Badri and Shaji 2023 (HQQ); Frantar et al. 2022, arXiv:2210.17323 (GPTQ).
    """

    name = "weight_only"
    is_lossless = False
    needs_data = False
    makes = ".onnx"

    def requires(self, model: Path) -> str:
        found = facts(model)
        if found.is_quantized:
            return "it is quantized already"
        if not any(found.weights.get(kind) for kind in ("MatMul", "Gemm")):
            return "it has no float weights in MatMul or Gemm"
        return ""

    def apply(self, given: PassInput) -> PassResult:
        settings = _Settings(given.settings)
        target = given.folder / "model.onnx"
        with work_folder(given.folder) as work:
            source = _source(given.model, Path(work), settings)
            if settings.gather and settings.bits == 8:
                source = _tables(source, Path(work))
            _quantize(source, target, settings, given)
        return PassResult(target, modified=True, notes=_notes(target))

    def ensures(self, given: PassInput, result: PassResult) -> str:
        if not facts(result.file).ops.get("MatMulNBits"):
            return "the result has no MatMulNBits"
        return broken(given.model, result.file)


class _Settings:
    """The settings, checked."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.bits: int = given.get("bits", 8)
        self.method: str = given.get("method", "rtn")
        self.block: int = given.get("block", 32)
        self.symmetric: bool = given.get("symmetric", True)
        self.accuracy_level: int | None = given.get("accuracy_level")
        self.gather: bool = given.get("gather", self.bits == 8)
        if self.bits not in _BITS:
            raise PassError(f"weight_only: bits is {self.bits}, expected one of {_BITS}")
        if self.method not in _METHODS:
            raise PassError(f"weight_only: method is '{self.method}', expected one of {_METHODS}")
        if self.method == "gptq" and self.bits != 4:
            raise PassError(f"weight_only: gptq is for 4 bits, got {self.bits}")
        if self.block < 16 or self.block & (self.block - 1):
            raise PassError(f"weight_only: block is {self.block}, expected 16, 32, 64, ...")

    @property
    def has_four_bit_tables(self) -> bool:
        return self.gather and self.bits == 4 and self.method == "rtn"


def _source(model: Path, work: Path, settings: _Settings) -> Path:
    """A copy as the quantizer takes it: MatMul for Gemm, names, an opset that has the types."""
    source = work / "source.onnx"
    later = work / "upgraded.onnx"
    if settings.has_four_bit_tables and upgraded(model, later, _FOUR_BIT_TENSORS):
        model = later
    graph = load(model)
    forget_shapes(graph)
    name_nodes(graph)
    as_products(graph)
    save(graph, source)
    return source


def _tables(source: Path, work: Path) -> Path:
    """The same with embedding tables in 8 bits, which MatMulNBits' quantizer has no form for."""
    target = work / "tables.onnx"
    try:
        with quietly():
            quantize_dynamic(
                source,
                target,
                op_types_to_quantize=["Gather"],
                weight_type=QuantType.QInt8,
                use_external_data_format=is_large(source),
                extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
            )
    except Exception as error:  # whatever the library meets in a graph
        raise PassError(f"its tables cannot be quantized: {first_line(error)}") from error
    return target


def _quantize(source: Path, target: Path, settings: _Settings, given: PassInput) -> None:
    # A path where the method runs the model, whose weights may be beside it.
    model: Any = str(source) if settings.method == "gptq" else load(source)
    algorithm = _algorithm(settings, given, source)
    try:
        with quietly():
            quantizer = matmul_nbits_quantizer.MatMulNBitsQuantizer(
                model,
                bits=settings.bits,
                block_size=settings.block,
                is_symmetric=settings.symmetric,
                accuracy_level=settings.accuracy_level,
                algo_config=algorithm,
            )
            quantizer.process()
    except ModuleNotFoundError as error:
        raise Unavailable(
            f"weight_only by {settings.method} needs {error.name}, which is not installed:"
            " pip install 'inflight[convert]'"
        ) from None
    except Exception as error:  # whatever the library meets in a graph
        raise PassError(f"ONNX Runtime cannot quantize it: {first_line(error)}") from error
    made: onnx.ModelProto = quantizer.model.model
    save(made, target)


def _algorithm(settings: _Settings, given: PassInput, source: Path) -> Any:
    library = matmul_nbits_quantizer
    kinds = ("MatMul", "Gather") if settings.has_four_bit_tables else ("MatMul",)
    match settings.method:
        case "hqq":
            return library.HQQWeightOnlyQuantConfig(
                block_size=settings.block, bits=settings.bits, op_types_to_quantize=kinds
            )
        case "gptq":
            return library.GPTQWeightOnlyQuantConfig(
                _Rows(given, source), block_size=settings.block
            )
        case _:
            return library.DefaultWeightOnlyQuantConfig(
                block_size=settings.block,
                is_symmetric=settings.symmetric,
                accuracy_level=settings.accuracy_level,
                op_types_to_quantize=kinds,
                bits=settings.bits,
            )


class _Rows:
    """The calibration set, as GPTQ reads it: again from the start each time it is iterated."""

    def __init__(self, given: PassInput, source: Path) -> None:
        samples = checked(given)
        self._batches = list(batches(samples, source, 1))[:_MOST_ROWS]

    def __iter__(self) -> Iterator[dict[str, Array]]:
        return iter(self._batches)


def _notes(file: Path) -> tuple[str, ...]:
    found = facts(file)
    left = found.weights.get("MatMul", 0) + found.weights.get("Gemm", 0)
    share = left / max(found.parameters, 1)
    return (f"{left:,} weights of products stay in float",) if share > 0.01 else ()
