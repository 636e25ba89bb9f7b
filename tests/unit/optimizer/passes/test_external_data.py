"""Models whose weights are beside them, and results too large for one file."""

from pathlib import Path

import onnx
import pytest

from optimizer.passes import onnx_files
from tests.unit.optimizer.passes import graphs
from tests.unit.optimizer.passes.bench import Bench, bench

PASSES = [
    "cleanup",
    "fp16",
    "openvino_ir",
    "int8_dynamic",
    "int8_static",
    "weight_only",
    "openvino_weights_int8",
    "mixed_precision",
]


def beside(tmp_path: Path) -> Bench:
    place = bench(tmp_path, graphs.dense())
    model = onnx.load(place.model)
    place.model.unlink()
    onnx.save(model, place.model, save_as_external_data=True, location="w.data", size_threshold=0)
    return place


@pytest.mark.parametrize("name", PASSES)
def test_weights_beside_a_model_are_found(name: str, tmp_path: Path) -> None:
    place = beside(tmp_path)
    before = place.fingerprint()
    result = place.apply(name, rows=graphs.table())
    assert place.error(result.file, graphs.table()) < 0.1
    assert place.fingerprint() == before


@pytest.mark.parametrize("name", PASSES)
def test_results_that_are_too_large_put_weights_beside(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_files, "PROTOBUF_LIMIT", 1000)
    place = bench(tmp_path, graphs.dense())
    result = place.apply(name, rows=graphs.table())
    names = {file.name for file in result.file.parent.iterdir()}
    assert names <= {"model.onnx", "model.onnx.data", "model.xml", "model.bin"}
    assert place.error(result.file, graphs.table()) < 0.1
