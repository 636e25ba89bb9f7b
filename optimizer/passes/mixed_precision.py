"""8 bits but for the layers that break accuracy, found by what each does to the answers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from optimizer.errors import PassError
from optimizer.passes import int8_dynamic, int8_static
from optimizer.passes.calibration_rows import checked
from optimizer.passes.contract import Pass, PassInput, PassResult
from optimizer.passes.onnx_files import work_folder
from optimizer.passes.preparation import prepared
from optimizer.passes.promises import broken, listed, not_quantized
from optimizer.passes.sensitivity import Found, Quantizer, search

_BASES: Mapping[str, Pass] = {
    "int8_dynamic": int8_dynamic.Int8Dynamic(),
    "int8_static": int8_static.Int8Static(),
}


class MixedPrecision:
    """Leaves as few layers in float as the gate demands on the calibration set.

    Settings: `base` ("int8_static" or "int8_dynamic") and that pass's own; `threshold` (0.99),
    `metric` and `task` as the gate takes them; `trials` (64: models built at most), `rows` (256
    of the calibration set). Every trial quantizes and runs a model: seconds each.
    """

    name = "mixed_precision"
    is_lossless = False
    needs_data = True
    makes = ".onnx"

    def requires(self, model: Path) -> str:
        refusals = {name: base.requires(model) for name, base in _BASES.items()}
        return "" if "" in refusals.values() else refusals["int8_static"]

    def apply(self, given: PassInput) -> PassResult:
        base = _base(given)
        target = given.folder / "model.onnx"
        with work_folder(given.folder) as work:
            is_dynamic = base == "int8_dynamic"
            source = prepared(given.model, Path(work), without_gemm=is_dynamic)
            quantizer = (_dynamic if is_dynamic else _static)(source, given)
            found = search(given, source, Path(work), quantizer)
            quantizer.build(target, found.excluded)
        return PassResult(target, modified=True, notes=(_note(found),))

    def ensures(self, given: PassInput, result: PassResult) -> str:
        return not_quantized(result.file) or broken(given.model, result.file)


def _base(given: PassInput) -> str:
    base: str = given.settings.get("base", "int8_static")
    if base not in _BASES:
        raise PassError(f"mixed_precision: base is '{base}', expected one of {', '.join(_BASES)}")
    refusal = _BASES[base].requires(given.model)
    if refusal:
        raise PassError(f"mixed_precision from {base} cannot be applied: {refusal}")
    return base


def _dynamic(source: Path, given: PassInput) -> Quantizer:
    always = tuple(given.settings.get("exclude", ()))

    def build(target: Path, exclude: Sequence[str]) -> None:
        int8_dynamic.quantize(source, target, given, exclude=(*always, *exclude))

    return Quantizer(build, int8_dynamic.kinds(given))


def _static(source: Path, given: PassInput) -> Quantizer:
    always = tuple(given.settings.get("exclude", ()))
    ranges = int8_static.ranges(source, checked(given), given)

    def build(target: Path, exclude: Sequence[str]) -> None:
        int8_static.quantize(source, target, given, ranges=ranges, exclude=(*always, *exclude))

    return Quantizer(build, int8_static.kinds(source, given))


def _note(found: Found) -> str:
    quality = f"{found.verdict.metric} {found.verdict.score:.4f} on the calibration set"
    if not found.layers:
        return f"all {found.total} layers are quantized; {quality}"
    left = f"{len(found.layers)} of {found.total} layers stay in float"
    return f"{left} ({listed(found.layers)}); {quality}; {found.trials} models tried"
