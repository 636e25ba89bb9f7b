"""What a converter is: one edge from a framework to ONNX, checked against the original.

Every converter module has `convert(given: ConverterInput) -> ConverterResult` and runs in a child
process. Whether the result is the same model is decided in `parity.py`, by the worst row.
"""

from dataclasses import dataclass
from pathlib import Path

from optimizer.runner import Opener
from optimizer.samples import Samples
from optimizer.source import SourceModel


@dataclass(frozen=True, slots=True)
class ConverterInput:
    """What a converter is given."""

    source: SourceModel
    target: Path  # the .onnx file to write
    opset: int  # wanted
    samples: Samples | None = None  # real rows, where there are any: types and shapes to go by
    opener: Opener | None = None  # to compare with the original; None: whoever converts compares


@dataclass(frozen=True, slots=True)
class ConverterResult:
    """What a converter made; its tensors are named as the native model's."""

    file: Path
    opset: int  # what was reached
    notes: tuple[str, ...] = ()  # "opset 17 asked, 18 made: the exporter starts there"
