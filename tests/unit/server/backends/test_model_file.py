"""What a model file tells before it is opened."""

from pathlib import Path

import pytest

from server.backends.model_file import inspect_onnx
from server.errors import LoadFailed
from tests import models

# An entry of `external_data` that names "weights.bin".
ENTRY = b"\n\x08location\x12\x0bweights.bin"
MIB = 2**20


def test_external_data_counts_and_is_part_of_the_identity(tmp_path: Path) -> None:
    path = models.with_external_data(tmp_path)
    weights = tmp_path / "weights.bin"
    file = inspect_onnx(path)
    assert file.size_bytes == path.stat().st_size + weights.stat().st_size
    changed = bytearray(weights.read_bytes())
    changed[0] ^= 1
    weights.write_bytes(changed)
    assert inspect_onnx(path).artifact_id != file.artifact_id


@pytest.mark.parametrize("offset", [0, MIB - 30, MIB - 15, MIB - 5, MIB, 2 * MIB - 8])
def test_names_are_found_wherever_they_are(tmp_path: Path, offset: int) -> None:
    (tmp_path / "weights.bin").write_bytes(b"12345")
    path = tmp_path / "model.onnx"
    path.write_bytes(b"x" * offset + ENTRY + b"DynamicQuantizeLinear" + b"x" * 100)
    file = inspect_onnx(path)
    assert file.size_bytes == path.stat().st_size + 5
    assert file.is_dynamically_quantized


def test_files_that_are_missing_are_left_to_the_framework(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(ENTRY)
    assert inspect_onnx(path).size_bytes == len(ENTRY)
    assert not inspect_onnx(path).is_dynamically_quantized


def test_a_missing_or_empty_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match="is not a file: put the model there"):
        inspect_onnx(tmp_path / "model.onnx")
    (tmp_path / "model.onnx").touch()
    with pytest.raises(LoadFailed, match="is empty: copy or export the model again"):
        inspect_onnx(tmp_path / "model.onnx")
