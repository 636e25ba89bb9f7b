from pathlib import Path

import pytest

from optimizer.errors import SourceError
from optimizer.source import source_of


def test_what_is_no_model_is_said(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file or folder"):
        source_of(tmp_path / "model.onnx")
    with pytest.raises(SourceError, match=r"folder without a saved_model\.pb"):
        source_of(tmp_path)
    (tmp_path / "artifact.json").write_text("{}")
    with pytest.raises(SourceError, match="made already: give its original"):
        source_of(tmp_path)
