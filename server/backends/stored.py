"""Artifacts of the optimizer as a format of their own, for the loader."""

from pathlib import Path

from optimizer.artifact import Artifact
from optimizer.errors import Unavailable
from server.backends import Format, format_of
from server.backends.base import Backend
from server.backends.model_file import ModelFile
from server.backends.opener import open_artifact
from server.errors import LoadFailed
from server.model_config import ExecutionConfig


def format_of_artifact(stored: Artifact) -> Format:
    """How one artifact is looked into and opened: as its manifest says, whatever is configured."""
    on_cpu = _stays_on_cpu(stored)

    def inspect(path: Path) -> ModelFile:
        return ModelFile(path, stored.artifact_id, stored.size_bytes, _shares_scales(stored))

    def open_(
        file: ModelFile, execution: ExecutionConfig, threads: int, *, spins: bool = False
    ) -> Backend:
        try:
            backend = open_artifact(stored, threads)
        except Unavailable as error:
            raise LoadFailed(str(error)) from None
        backend.artifact_id = stored.artifact_id
        return backend

    is_run_by_caller = on_cpu and stored.runtime == "onnxruntime"
    return Format(inspect, open_, is_run_by_caller, lambda _: on_cpu)


def _stays_on_cpu(stored: Artifact) -> bool:
    return stored.runtime == "onnxruntime" and list(stored.options.get("providers", ())) == ["cpu"]


def _shares_scales(stored: Artifact) -> bool:
    """Whether the rows of a batch share a quantization scale, as the file itself tells."""
    return (
        stored.path.suffix == ".onnx"
        and format_of(stored.path).inspect(stored.path).is_dynamically_quantized
    )
