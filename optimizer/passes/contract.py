"""What a pass promises: it reads one ONNX model, writes another form of it, and says what it did.

Model on ONNX-IR's pass contract: `requires` before, `ensures` after, `modified` told truly, the
input left as it is. Passes run in child processes and may import heavy libraries, inside `apply`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from optimizer.runner import Opener
from optimizer.samples import Samples


@dataclass(frozen=True, slots=True)
class PassInput:
    """What a pass is given."""

    model: Path  # .onnx, never written to
    folder: Path  # empty; the pass writes its result here
    settings: Mapping[str, Any]
    calibration: Samples | None  # real rows, where the pass `needs_data`
    opener: Opener  # for passes that have to run the model
    threads: int = 1


@dataclass(frozen=True, slots=True)
class PassResult:
    """What a pass made."""

    file: Path  # in the folder given: "model.onnx", or OpenVINO's "model.xml"
    modified: bool  # False: nothing to do here, `file` is a copy of the input
    notes: tuple[str, ...] = ()  # what a report should say: "3 of 48 MatMul left in float"


class Pass(Protocol):
    """One transformation. Instances hold no state."""

    name: str
    is_lossless: bool  # the same arithmetic up to rounding
    needs_data: bool
    makes: str  # suffix of the result: ".onnx", ".xml"

    def requires(self, model: Path) -> str:
        """Why the pass cannot be applied to an ONNX file; empty when it can.

        Cheap: looks at the graph, not at the weights.
        """
        ...

    def apply(self, given: PassInput) -> PassResult:
        """Transforms; leaves the input intact.

        Raises:
            PassError: it cannot be done to this model.
            CalibrationError: not with this calibration set.
            Unavailable: a library is missing; names the extra to install.
        """
        ...

    def ensures(self, given: PassInput, result: PassResult) -> str:
        """What of its promise the result breaks; empty when it holds.

        A valid graph, the same inputs and outputs, the precision that the name says.
        """
        ...
