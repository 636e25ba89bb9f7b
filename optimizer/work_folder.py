"""Where a job keeps what its stages hand to each other."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class WorkFolder:
    """The folder of one job; nothing else lives in it."""

    path: Path

    @property
    def calibration(self) -> Path:
        """Rows that passes may learn from, as `Samples` are saved."""
        return self.path / "calibration.npz"

    @property
    def validation(self) -> Path:
        """Rows that candidates are judged on; none of them is in `calibration`."""
        return self.path / "validation.npz"

    @property
    def reference(self) -> Path:
        """What the original answers to `validation`."""
        return self.path / "reference.npz"

    @property
    def converted(self) -> Path:
        """Folder of the original's ONNX form, where it is not ONNX itself."""
        return self.path / "converted"

    def candidate(self, number: int) -> Path:
        """An empty folder for what makes one candidate."""
        folder = self.path / "candidates" / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        return folder
