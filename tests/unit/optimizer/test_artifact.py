"""Manifests that come back as they were written, and those that are refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from optimizer.artifact import MANIFEST, Artifact, read_artifact
from optimizer.errors import OptimizationError
from protos.signature import Signature, TensorSpec

SIGNATURE = Signature((TensorSpec("x", "FP32", ("n", 3)),), (TensorSpec("y", "FP32", ("n",)),))


def written(folder: Path, **changes: Any) -> Artifact:
    options = {"graph_level": "basic"}
    made = Artifact(folder, "m.onnx", "onnxruntime", "a-1", ("graph",), options, SIGNATURE)
    made.write()
    value = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(value | changes))
    return made


def test_what_was_written_is_read(tmp_path: Path) -> None:
    made = written(tmp_path)
    assert read_artifact(tmp_path) == made
    within = written(tmp_path, options={"regimes": [{"max_rows": None, "folder": "a/b"}]})
    assert read_artifact(tmp_path).path == within.path


@pytest.mark.parametrize(
    "changes",
    [
        *({"file": name} for name in ("../m.onnx", "/etc/passwd", "a/../../m.onnx", ".", "", 7)),
        {"options": {"samples": "/etc/passwd"}},
        {"options": {"baseline": "../m.onnx"}},
        {"options": {"regimes": [{"max_rows": None, "folder": "."}]}},
        {"options": {"regimes": [{"max_rows": 8, "folder": "a"}, {"folder": "../a"}]}},
        {"options": {"regimes": [{"max_rows": 8}]}},
        {"options": []},
        {"options": {"regimes": 3}},
        {"signature": {"inputs": 3}},
    ],
    ids=str,
)
def test_manifests_that_lead_elsewhere_or_are_damaged_are_refused(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    written(tmp_path, **changes)
    with pytest.raises(OptimizationError, match="no artifact's manifest"):
        read_artifact(tmp_path)


def test_a_folder_without_a_manifest_and_another_version_are_named(tmp_path: Path) -> None:
    with pytest.raises(OptimizationError, match="cannot be read: No such file"):
        read_artifact(tmp_path)
    written(tmp_path, version=9)
    with pytest.raises(OptimizationError, match="version 9, expected 1"):
        read_artifact(tmp_path)
