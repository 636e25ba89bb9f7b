"""What every pass promises, on every kind of graph it is for."""

from pathlib import Path

import pytest

from optimizer.passes import PASSES
from optimizer.samples import Samples
from tests.unit.optimizer.passes import graphs
from tests.unit.optimizer.passes.bench import bench

# Graph, its rows, pass, settings, how far the worst answer may be off (of the range of answers).
CASES = [
    ("identities", "fp16", {}, 1e-2),
    ("cnn", "fp16", {}, 1e-2),
    ("encoder", "fp16", {}, 1e-2),
    ("cnn", "openvino_ir", {"compress": "none"}, 1e-4),
    ("cnn", "openvino_ir", {"compress": "fp16"}, 1e-2),
    ("encoder", "openvino_ir", {"compress": "fp16"}, 1e-2),
    ("recurrent", "openvino_ir", {}, 1e-4),
    ("dense", "int8_dynamic", {}, 0.05),
    ("encoder", "int8_dynamic", {}, 0.1),
    ("recurrent", "int8_dynamic", {}, 0.1),
    ("cnn", "int8_static", {"method": "minmax"}, 0.1),
    ("cnn", "int8_static", {"method": "entropy"}, 0.3),
    ("cnn", "int8_static", {"method": "percentile"}, 0.1),
    ("old_cnn", "int8_static", {}, 0.1),
    ("dense", "int8_static", {}, 0.1),
    ("encoder", "int8_static", {}, 0.2),
    ("dense", "weight_only", {"bits": 8}, 0.01),
    ("encoder", "weight_only", {"bits": 8, "accuracy_level": 4}, 0.05),
    ("encoder", "weight_only", {"bits": 8, "gather": False}, 0.02),
    ("encoder", "weight_only", {"bits": 4}, 0.3),
    ("encoder", "weight_only", {"bits": 4, "gather": True}, 0.4),
    ("dense", "weight_only", {"bits": 4, "method": "gptq"}, 0.3),
    ("cnn", "openvino_weights_int8", {}, 0.02),
    ("encoder", "openvino_weights_int8", {"mode": "sym"}, 0.05),
    ("cnn", "int8_smoothquant", {"rows": 16}, 0.1),
    ("encoder", "int8_smoothquant", {"rows": 16}, 0.2),
    ("cnn", "mixed_precision", {"base": "int8_static"}, 0.25),
    ("encoder", "mixed_precision", {"base": "int8_dynamic"}, 0.25),
]

GRAPHS: dict[str, tuple[bytes, Samples]] = {
    "identities": (graphs.doubled_identities(), graphs.table(4)),
    "cnn": (graphs.cnn(), graphs.images()),
    "old_cnn": (graphs.cnn(opset=11), graphs.images()),
    "encoder": (graphs.encoder(), graphs.texts()),
    "recurrent": (graphs.recurrent(), graphs.series()),
    "dense": (graphs.dense(), graphs.table()),
}


@pytest.mark.parametrize(("graph", "name", "settings", "tolerance"), CASES)
def test_keeps_what_it_promises(
    graph: str, name: str, settings: dict[str, object], tolerance: float, tmp_path: Path
) -> None:
    model, rows = GRAPHS[graph]
    place = bench(tmp_path, model)
    before = place.fingerprint()
    result = place.apply(name, settings, rows)
    assert result.modified
    assert result.file.is_relative_to(place.work)
    assert result.file.suffix == PASSES[name].makes
    assert place.error(result.file, rows) <= tolerance
    assert place.fingerprint() == before
    left = {file.name for file in result.file.parent.iterdir()}
    assert left <= {"model.onnx", "model.xml", "model.bin"}
