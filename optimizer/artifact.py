"""A stored, runnable form of a model: a folder with the model's file and `artifact.json` beside it.

The manifest says which runtime opens the file and with what settings, so that what was measured is
what serves. An artifact is immutable: `store.py` names it by what made it and never writes to it.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from optimizer.errors import OptimizationError
from protos.signature import Signature

MANIFEST = "artifact.json"
_VERSION = 1  # of the manifest's form

Runtime = Literal["onnxruntime", "openvino", "tensorrt", "native", "by_batch"]


@dataclass(frozen=True, slots=True)
class Artifact:
    """One runnable form.

    `options` by runtime:

    * onnxruntime: `graph_level` ("disable", "basic", "extended", "all"), `providers` (list, as in
      model.toml), `provider_options` (by provider)
    * openvino: `precision` ("f32", "bf16": INFERENCE_PRECISION_HINT)
    * tensorrt: what `tensorrt_options.py` says
    * native: `framework` (as in `source.py`)
    * by_batch: `regimes`, a list of {"max_rows": int or null, "folder": name of a folder in this
      one that is an artifact}, ascending, the last one without a limit
    * all: `threads`, where the layout is part of what was measured
    """

    folder: Path
    file: str  # name of the file (or folder) in `folder` that the runtime opens
    runtime: Runtime
    artifact_id: str  # "<what>-<12 hex digits>"
    techniques: tuple[str, ...] = ()  # what made it, in order: ("onnx_conversion", "int8_static")
    options: Mapping[str, Any] = field(default_factory=dict)
    signature: Signature | None = None  # None: as the runtime reads it from the file

    @property
    def path(self) -> Path:
        return self.folder / self.file

    @property
    def size_bytes(self) -> int:
        """Of all files but the manifest; what a user would have to ship."""
        if not self.owns_folder:
            return _size(self.path)
        return sum(_size(p) for p in self.folder.iterdir() if p.name != MANIFEST)

    @property
    def owns_folder(self) -> bool:
        """Whether the folder holds this artifact and nothing else (not a user's own file)."""
        return (self.folder / MANIFEST).is_file()

    def write(self) -> None:
        """Writes the manifest beside the model."""
        value = {
            "version": _VERSION,
            "artifact_id": self.artifact_id,
            "file": self.file,
            "runtime": self.runtime,
            "techniques": list(self.techniques),
            "options": dict(self.options),
            "signature": self.signature.to_json() if self.signature else None,
        }
        text = json.dumps(value, indent=1)
        (self.folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def read_artifact(folder: Path) -> Artifact:
    """The artifact in a folder.

    Raises:
        OptimizationError: there is none, or its manifest is of another version or damaged, or
            names files outside of the folder.
    """
    path = folder / MANIFEST
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if value["version"] != _VERSION:
            raise OptimizationError(f"{path}: version {value['version']}, expected {_VERSION}")
        for name in _names(value):
            _check_inside(name)
        return Artifact(
            folder,
            value["file"],
            value["runtime"],
            value["artifact_id"],
            tuple(value["techniques"]),
            value["options"],
            Signature.from_json(value["signature"]) if value["signature"] else None,
        )
    except OSError as error:
        raise OptimizationError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OptimizationError(f"{path}: no artifact's manifest: {error!r}") from None


def _names(manifest: Mapping[str, Any]) -> Iterator[Any]:
    """The files and folders that opening the artifact opens."""
    options = manifest["options"]
    yield manifest["file"]
    yield from (options[name] for name in ("samples", "baseline") if name in options)
    yield from (regime["folder"] for regime in options.get("regimes", ()))


def _check_inside(name: str) -> None:
    """Raises ValueError for what is not below the folder, which may come from anybody."""
    path = Path(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError(f"'{name}' is not in the artifact's folder")


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size
