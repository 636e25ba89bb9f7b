"""Artifacts of the optimizer as a format of their own, for the loader."""

from collections.abc import Iterator
from pathlib import Path

from optimizer.artifact import Artifact
from optimizer.errors import OptimizationError
from server.backends import Format
from server.backends.base import Backend
from server.backends.model_file import ModelFile, inspect_onnx
from server.backends.opener import open_artifact, parts_of
from server.errors import LoadFailed
from server.model_config import ExecutionConfig

# What leaves the arithmetic as it was.
_LOSSLESS = frozenset({"onnx_conversion", "graph", "threads", "native"})


def format_of_artifact(stored: Artifact) -> Format:
    """How one artifact is looked into and opened: as its manifest says, whatever is configured."""
    on_cpu = _stays_on_cpu(stored)

    def inspect(path: Path) -> ModelFile:
        try:
            forms = list(_forms(stored))
        except OptimizationError as error:
            raise LoadFailed(str(error)) from None
        return ModelFile(
            path,
            stored.artifact_id,
            stored.size_bytes,
            is_dynamically_quantized=any(_shares_scales(form) for form in forms),
            is_low_precision=any(_is_low_precision(form) for form in forms),
            threads=stored.options.get("threads"),
        )

    def open_(
        file: ModelFile, execution: ExecutionConfig, threads: int, *, spins: bool = False
    ) -> Backend:
        try:
            return open_artifact(stored, threads, said=execution, spins=spins)
        except OptimizationError as error:
            raise LoadFailed(f"artifact '{stored.artifact_id}': {error}") from None

    is_run_by_caller = on_cpu or stored.runtime == "openvino"  # which has threads of its own, too
    return Format(inspect, open_, is_run_by_caller, lambda _: on_cpu)


def _stays_on_cpu(stored: Artifact) -> bool:
    providers = list(stored.options.get("providers", ["cpu"]))
    return stored.runtime == "onnxruntime" and providers == ["cpu"]


def _forms(stored: Artifact) -> Iterator[Artifact]:
    if stored.runtime == "by_batch":
        for _, part in parts_of(stored):
            yield from _forms(part)
    else:
        yield stored


def _shares_scales(stored: Artifact) -> bool:
    """Whether the rows of a batch share a quantization scale, as the file itself tells."""
    return stored.path.suffix == ".onnx" and inspect_onnx(stored.path).is_dynamically_quantized


def _is_low_precision(stored: Artifact) -> bool:
    is_narrow = stored.runtime == "openvino" and stored.options.get("precision", "f32") != "f32"
    return is_narrow or not _LOSSLESS.issuperset(stored.techniques)
