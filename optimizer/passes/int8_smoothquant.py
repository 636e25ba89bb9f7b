"""8-bit weights and activations for OpenVINO, smoothed and with corrected biases, by NNCF."""

from pathlib import Path
from typing import Any

from optimizer.errors import CalibrationError, PassError
from optimizer.passes.answers import finite_answers
from optimizer.passes.calibration_rows import batches, checked
from optimizer.passes.contract import PassInput, PassResult
from optimizer.passes.graph_facts import facts
from optimizer.passes.openvino_files import (
    broken,
    count_operators,
    nncf,
    quantization_refusal,
    read,
    write,
)
from optimizer.passes.promises import first_line
from optimizer.passes.quiet import quietly
from optimizer.samples import Samples

_MOST_ROWS = 128  # more take longer and change nothing


class Int8SmoothQuant:
    """Settings: `rows` (128 of the calibration set at most).

    Outliers of activations move into the weights where the model is a transformer, so that it
    keeps the accuracy that plain static ranges cost. Weights signed, activations as they are
    (preset "mixed"). A graph with nothing to quantize is refused.

    Source: Xiao et al. 2022, arXiv:2211.10438; Nagel et al. 2019, arXiv:1906.04721.
    """

    name = "int8_smoothquant"
    is_lossless = False
    needs_data = True
    makes = ".xml"

    def requires(self, model: Path) -> str:
        return quantization_refusal(model)

    def apply(self, given: PassInput) -> PassResult:
        samples = checked(given)
        finite_answers(given, given.model, samples)
        with quietly():
            made = _quantized(given, samples)
            file = write(made, given.folder, compress=True)
        return PassResult(file, modified=True)

    def ensures(self, given: PassInput, result: PassResult) -> str:
        if not count_operators(result.file, "FakeQuantize"):
            return "the result has no quantized activation"
        return broken(given.model, result.file)


def _quantized(given: PassInput, samples: Samples) -> Any:
    library = nncf()
    most = given.settings.get("rows", _MOST_ROWS)
    # Statistics are taken row by row: NNCF takes dimension 0 for the batch.
    items = list(batches(samples, given.model, 1))[:most]
    is_transformer = facts(given.model).has_attention
    model = read(given.model)
    try:
        return library.quantize(
            model,
            library.Dataset(items),
            preset=library.QuantizationPreset.MIXED,
            subset_size=len(items),
            model_type=library.ModelType.TRANSFORMER if is_transformer else None,
        )
    except library.ValidationError as error:
        raise CalibrationError(f"NNCF does not take the calibration set: {error}") from error
    except Exception as error:  # whatever the library meets in a graph
        raise PassError(f"NNCF cannot quantize it: {first_line(error)}") from error
