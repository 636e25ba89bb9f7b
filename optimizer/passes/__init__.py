"""Transformations of models within a format; one file each, `contract.py` says what a pass is.

Importing this package imports no heavy library: a pass's module is imported when it is looked up.
"""

import importlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from optimizer.candidate import Step
from optimizer.errors import PassError, Unavailable
from optimizer.passes.contract import Pass, PassInput, PassResult

_CLASSES = {
    "cleanup": "Cleanup",
    "fp16": "Fp16",
    "openvino_ir": "OpenvinoIr",
    "int8_dynamic": "Int8Dynamic",
    "int8_static": "Int8Static",
    "int8_smoothquant": "Int8SmoothQuant",
    "weight_only": "WeightOnly",
    "openvino_weights_int8": "OpenvinoWeightsInt8",
    "mixed_precision": "MixedPrecision",
}
"""By name, which is the module's too."""

_EXTRAS = {"onnxruntime": "cpu", "openvino": "openvino", "nncf": "openvino"}
"""What to install for a library that is missing; all others: "convert"."""


class _Passes(Mapping[str, Pass]):
    def __getitem__(self, name: str) -> Pass:
        class_name = _CLASSES[name]
        try:
            module = importlib.import_module(f"optimizer.passes.{name}")
        except ModuleNotFoundError as error:
            library = (error.name or "").partition(".")[0]
            extra = _EXTRAS.get(library, "convert")
            raise Unavailable(
                f"{name} needs {library}, which is not installed: pip install 'inflight[{extra}]'"
            ) from None
        made: Pass = getattr(module, class_name)()
        return made

    def __iter__(self) -> Iterator[str]:
        return iter(_CLASSES)

    def __len__(self) -> int:
        return len(_CLASSES)


PASSES: Mapping[str, Pass] = _Passes()
"""Every pass by its name. Raises Unavailable for one whose library is not installed."""


def apply_steps(
    steps: Sequence[Step], given: PassInput, passes: Mapping[str, Pass] = PASSES
) -> PassResult:
    """Applies passes one after the other; each is given what the one before it made.

    The last one's files are alone in a subfolder of `given.folder`. Without steps the result is
    the model itself, not modified.

    Raises:
        PassError: a pass cannot be applied to the model, or broke a promise; says which and why.
        CalibrationError: the calibration set cannot be used.
        Unavailable: a library is missing.
    """
    result = PassResult(given.model, modified=False)
    for number, step in enumerate(steps):
        folder = given.folder / f"{number}-{step.name}"
        folder.mkdir(parents=True)
        part = replace(given, model=result.file, folder=folder, settings=step.settings)
        made = _apply(step.name, part, passes)
        notes = (*result.notes, *made.notes)
        if number:
            shutil.rmtree(result.file.parent)  # weights of every step would add up
        result = PassResult(made.file, result.modified or made.modified, notes)
    return result


def _apply(name: str, given: PassInput, passes: Mapping[str, Pass]) -> PassResult:
    if name not in set(passes):
        raise PassError(f"there is no pass '{name}', expected one of {', '.join(passes)}")
    step = passes[name]
    if given.model.suffix != ".onnx":
        raise PassError(f"{name} works on ONNX, the step before it made '{given.model.name}'")
    refusal = step.requires(given.model)
    if refusal:
        raise PassError(f"{name} cannot be applied: {refusal}")
    before = _state(given.model)
    result = step.apply(given)
    if _state(given.model) != before:
        raise PassError(f"{name} broke its promise: it wrote to its input '{given.model}'")
    broken = step.ensures(given, result)
    if broken:
        raise PassError(f"{name} broke its promise: {broken}")
    return result


def _state(model: Path) -> dict[str, tuple[int, int]]:
    """Size and time of a model's files; of its folder where external data are beside it."""
    files = (model, *model.parent.glob(f"{model.name}*"))
    return {file.name: (file.stat().st_size, file.stat().st_mtime_ns) for file in files}
