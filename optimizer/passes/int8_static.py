"""8-bit weights and activations whose ranges are fixed beforehand, from calibration data."""

import copy
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import create_calibrator
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import load_model_with_shape_infer
from onnxruntime.quantization.registry import QDQRegistry

from optimizer.errors import CalibrationError, PassError
from optimizer.passes.answers import finite_answers
from optimizer.passes.calibration_rows import batches, checked
from optimizer.passes.contract import PassInput, PassResult
from optimizer.passes.graph_facts import facts
from optimizer.passes.multiply_adds import CONVOLUTIONS, PRODUCTS
from optimizer.passes.onnx_files import is_large, load_graph, work_folder
from optimizer.passes.preparation import prepared
from optimizer.passes.promises import broken, first_line, not_quantized
from optimizer.passes.quiet import quietly
from optimizer.samples import Samples
from protos.tensors import Array

METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}

_TRANSFORMERS = ("MatMul", "Gemm")
"""Quantizing everything between the products too costs transformers most of their accuracy."""
_NOTHING = "nothing in it can be quantized"
_BATCH = {"minmax": 8}  # rows of one run
_HISTOGRAM_BATCH = 4  # ... of the methods that keep every activation of a run

Ranges = Any  # of every activation, as ONNX Runtime's calibrators make them


class Int8Static:
    """Integers all the way from product to product, where the graph allows it.

    Settings: `method` ("minmax", "entropy", "percentile" and then `percentile`, 99.999),
    `per_channel` (true), `op_types` (all that have a quantized form; of transformers only the
    products), `exclude` (nodes by name).

    Activations are unsigned: signed ones miss the instruction that 8-bit products are fast by.
    Runs the float model over the whole calibration set. A graph with nothing to quantize is
    refused, not copied.

    Source: Jacob et al. 2018, arXiv:1712.05877.
    """

    name = "int8_static"
    is_lossless = False
    needs_data = True
    makes = ".onnx"

    def requires(self, model: Path) -> str:
        found = facts(model)
        if found.is_quantized:
            return "it is quantized already"
        if not any(found.weights.get(kind) for kind in (*CONVOLUTIONS, *PRODUCTS)):
            return "it has no float weights in Conv, MatMul or Gemm"
        return ""

    def apply(self, given: PassInput) -> PassResult:
        samples = checked(given)
        finite_answers(given, given.model, samples)
        target = given.folder / "model.onnx"
        with work_folder(given.folder) as work:
            source = prepared(given.model, Path(work))
            found = ranges(source, samples, given)
            exclude = given.settings.get("exclude", ())
            notes = quantize(source, target, given, ranges=found, exclude=exclude)
        if not_quantized(target):
            raise PassError(f"{_NOTHING}: ONNX Runtime's quantizer leaves all of it in float")
        return PassResult(target, modified=True, notes=notes)

    def ensures(self, given: PassInput, result: PassResult) -> str:
        return not_quantized(result.file) or broken(given.model, result.file)


def ranges(source: Path, samples: Samples, given: PassInput) -> Ranges:
    """Between which values every activation of a prepared model lies, for these rows.

    Raises:
        CalibrationError: the rows do not fit the model, or give no ranges.
        PassError: no activation of it can be quantized.
    """
    method = _method(given)
    rows = _BATCH.get(method, _HISTOGRAM_BATCH)
    with tempfile.TemporaryDirectory(prefix=".ranges-", dir=given.folder) as work, quietly():
        try:
            calibrator = create_calibrator(
                source,
                kinds(source, given),
                augmented_model_path=f"{work}/augmented.onnx",
                calibrate_method=METHODS[method],
                use_external_data_format=is_large(source),
                extra_options={"percentile": given.settings.get("percentile", 99.999)},
            )
            if not calibrator.select_tensors_to_calibrate(load_graph(source))[0]:
                raise PassError(f"{_NOTHING}: no operator with an 8-bit form has float activations")
            # One batch a call: the histogram methods keep all activations of a call in memory,
            # and cannot join those of batches whose sizes differ.
            for batch in batches(samples, source, rows):
                calibrator.collect_data(_Batch(batch))
            found = calibrator.compute_data()
        except (CalibrationError, PassError):
            raise
        except Exception as error:  # ONNX Runtime's and numpy's errors have no common root
            raise CalibrationError(f"calibration ({method}) failed: {first_line(error)}") from error
    _check(found)
    return found


def quantize(
    source: Path, target: Path, given: PassInput, *, ranges: Ranges, exclude: Sequence[str]
) -> tuple[str, ...]:
    """Quantizes a prepared model by the settings of `given`, but for the nodes named; notes.

    Raises:
        PassError: the quantizer cannot do it.
    """
    per_channel = given.settings.get("per_channel", True)
    try:
        _quantize(source, target, given, ranges, exclude, per_channel=per_channel)
    except Exception as error:  # whatever the library meets in a graph
        if not per_channel or "ambiguous" not in str(error):
            message = f"ONNX Runtime cannot quantize it: {first_line(error)}"
            raise PassError(message) from error
    else:
        return ()
    # The quantizer trips over some biases where scales are per channel.
    try:
        _quantize(source, target, given, ranges, exclude, per_channel=False)
    except Exception as error:
        raise PassError(f"ONNX Runtime cannot quantize it: {first_line(error)}") from error
    return ("scales are per tensor: ONNX Runtime's quantizer fails on this graph per channel",)


def _quantize(
    source: Path,
    target: Path,
    given: PassInput,
    ranges: Ranges,
    exclude: Sequence[str],
    *,
    per_channel: bool,
) -> None:
    with quietly():
        quantizer = QDQQuantizer(
            load_model_with_shape_infer(source),
            per_channel,
            False,  # 7-bit weights are for machines without 8-bit products in hardware
            QuantType.QInt8,
            QuantType.QUInt8,
            copy.deepcopy(ranges),  # it adjusts them
            [],
            list(exclude),
            kinds(source, given),
            {"MatMulConstBOnly": facts(source).has_attention},
        )
        quantizer.quantize_model()
        quantizer.model.save_model_to_file(str(target), is_large(source))


def kinds(source: Path, given: PassInput) -> list[str]:
    """The operators that are quantized."""
    chosen: Sequence[str] | None = given.settings.get("op_types")
    if chosen is not None:
        return list(chosen)
    return list(_TRANSFORMERS if facts(source).has_attention else QDQRegistry)


def _method(given: PassInput) -> str:
    method: str = given.settings.get("method", "minmax")
    if method not in METHODS:
        raise PassError(f"int8_static: method is '{method}', expected one of {', '.join(METHODS)}")
    return method


def _check(found: Ranges) -> None:
    bounds = {name: data.range_value for name, data in found.items()}
    strange = [name for name, pair in bounds.items() if not np.isfinite(pair).all()]
    if strange:
        raise CalibrationError(f"activation '{strange[0]}' is not finite for the calibration set")
    if bounds and all(np.all(low == high) for low, high in bounds.values()):
        raise CalibrationError(
            f"all {len(bounds)} activations are the same for every row of the calibration set"
        )


class _Batch:
    """One batch as a calibrator reads it."""

    def __init__(self, inputs: dict[str, Array]) -> None:
        self._left: list[dict[str, Array]] = [inputs]

    def get_next(self) -> dict[str, Array] | None:
        return self._left.pop() if self._left else None
