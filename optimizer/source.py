"""The model that is to be optimized, as it was given: its framework and its identity."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from optimizer.artifact import MANIFEST
from optimizer.errors import SourceError

Framework = Literal["onnx", "sklearn", "xgboost", "lightgbm", "torch", "tensorflow"]

FRAMEWORKS: dict[str, Framework] = {
    ".onnx": "onnx",
    ".skops": "sklearn",
    ".pkl": "sklearn",
    ".joblib": "sklearn",
    ".ubj": "xgboost",
    ".json": "xgboost",
    ".txt": "lightgbm",
    ".pt2": "torch",
    ".keras": "tensorflow",
}
"""By suffix; a folder with a saved_model.pb is "tensorflow". A pickle of "sklearn" may hold any
object with scikit-learn's interface (XGBClassifier, LGBMRegressor)."""


@dataclass(frozen=True, slots=True)
class SourceModel:
    """A model's file (or SavedModel folder) and its framework."""

    path: Path
    framework: Framework

    def fingerprint(self) -> str:
        """SHA-256 of its content, hexadecimal.

        Of the file and of ONNX's external data beside it; of all files of a folder.
        """
        digest = hashlib.sha256()
        for file in self._files():
            digest.update(file.name.encode())
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
        return digest.hexdigest()

    def state(self) -> list[tuple[str, int, int, int]]:
        """Changes when a file of it does, as far as can be seen without reading; [] if one is gone.

        For every file its path, size, time of change and number.
        """
        try:
            stats = [(str(file), file.stat()) for file in self._files()]
        except OSError:
            return []
        return [(name, stat.st_size, stat.st_mtime_ns, stat.st_ino) for name, stat in stats]

    def _files(self) -> list[Path]:
        if self.path.is_dir():
            return sorted(file for file in self.path.rglob("*") if file.is_file())
        if self.framework != "onnx":
            return [self.path]
        stem = self.path.name
        others = (self.path.parent.glob(pattern) for pattern in (f"{stem}.data", f"{stem}_data"))
        return [self.path, *sorted(file for found in others for file in found)]


def source_of(path: Path) -> SourceModel:
    """What `path` is, by its name.

    Raises:
        SourceError: it does not exist or is no model.
    """
    if not path.exists():
        raise SourceError(f"'{path}': no such file or folder")
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            return SourceModel(path, "tensorflow")
        if (path / MANIFEST).is_file():
            raise SourceError(f"'{path}' is what an optimization made already: give its original")
        raise SourceError(f"'{path}' is a folder without a saved_model.pb: name the model's file")
    framework = FRAMEWORKS.get(path.suffix)
    if framework is None:
        known = ", ".join(FRAMEWORKS)
        raise SourceError(f"'{path}': no known model format, expected one of {known}")
    return SourceModel(path, framework)
