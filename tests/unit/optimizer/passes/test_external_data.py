"""Models whose weights are beside them, and results too large for one file."""

from pathlib import Path

import onnx
import pytest

from optimizer.errors import PassError
from optimizer.passes import onnx_files
from tests import models
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


def test_files_outside_of_the_models_folder_are_not_touched(tmp_path: Path) -> None:
    place = bench(tmp_path, models.identity("INT64"))
    model = onnx.load(place.model)
    tensor = model.graph.initializer.add(name="w", data_type=7, dims=[1], data_location=1)
    tensor.external_data.add(key="location", value="../secret")
    place.model.write_bytes(model.SerializeToString())
    with pytest.raises(PassError, match=r"weights in '\.\./secret', outside of its folder"):
        onnx_files.copy(place.model, place.work / "model.onnx")


@pytest.mark.parametrize("name", PASSES)
def test_weights_that_are_missing_are_named(name: str, tmp_path: Path) -> None:
    place = beside(tmp_path)
    (place.model.parent / "w.data").unlink()
    with pytest.raises(PassError):
        place.apply(name, rows=graphs.table())


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
