from pathlib import Path

import numpy as np
import pytest

from optimizer.artifact import Artifact, read_artifact
from optimizer.assembly import artifact_of, pack, pack_regimes, techniques_of
from optimizer.candidate import Candidate, Outcome, Step
from optimizer.runner import run_all
from optimizer.selection import Regime
from optimizer.source import SourceModel
from protos.signature import Signature, TensorSpec
from server.backends.opener import open_artifact
from tests.models import mlp, with_external_data

SIGNATURE = Signature((TensorSpec("x", "FP32", ("n", 16)),), (TensorSpec("y", "FP32", ("n", 4)),))
PLAIN = Candidate("plain", (), "onnxruntime", {"graph_level": "all"}, ("graph",))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "mine" / "model.onnx"
    path.parent.mkdir()
    path.write_bytes(mlp())
    (path.parent / "notes.txt").write_text("not part of the model")
    return path


def made(candidate: Candidate, model: Path) -> Artifact:
    return artifact_of(candidate, SourceModel(model, "onnx"), model, SIGNATURE)


def test_a_users_file_is_packed_alone(model: Path, tmp_path: Path) -> None:
    packed = pack(made(PLAIN, model), tmp_path / "packed")
    assert sorted(path.name for path in packed.folder.iterdir()) == ["artifact.json", "model.onnx"]
    assert read_artifact(packed.folder) == packed
    assert packed.size_bytes == model.stat().st_size


def test_weights_beside_a_model_are_packed_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    model = with_external_data(folder)
    packed = pack(made(PLAIN, model), tmp_path / "packed")
    assert len(list(packed.folder.iterdir())) == 3


def test_a_folder_is_packed_as_it_is(tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    saved.mkdir()
    (saved / "saved_model.pb").write_bytes(b"graph")
    artifact = Artifact(tmp_path, "saved", "native", "native", (), {"framework": "tensorflow"})
    packed = pack(artifact, tmp_path / "packed")
    assert (packed.path / "saved_model.pb").read_bytes() == b"graph"


def test_an_artifact_is_packed_with_the_options_it_has_now(model: Path, tmp_path: Path) -> None:
    first = pack(made(PLAIN, model), tmp_path / "first")
    narrow = Artifact(first.folder, first.file, "onnxruntime", "onnx", (), {"threads": 1})
    assert read_artifact(pack(narrow, tmp_path / "second").folder).options == {"threads": 1}


def test_what_the_store_made_read_only_is_packed_by_any_user(model: Path, tmp_path: Path) -> None:
    first = pack(made(PLAIN, model), tmp_path / "first")
    for file in first.folder.iterdir():
        file.chmod(0o444)
    packed = pack(first, tmp_path / "second")
    assert all(file.stat().st_mode & 0o200 for file in packed.folder.iterdir())


def test_two_regimes_are_opened_as_one(model: Path, tmp_path: Path) -> None:
    small = Outcome(PLAIN, artifact=made(PLAIN, model))
    other = Candidate("basic", (), "onnxruntime", {"graph_level": "basic"}, ("graph",))
    large = Outcome(other, artifact=made(other, model))
    packed = pack_regimes((Regime(4, small), Regime(None, large)), tmp_path / "packed")
    assert read_artifact(packed.folder) == packed
    runner = open_artifact(packed, 1)
    for rows in (2, 9):
        x = np.ones((rows, 16), np.float32)
        assert run_all(runner, {"x": x})["y"].shape == (rows, 4)
    runner.close()


@pytest.mark.parametrize(
    ("candidate", "framework", "techniques"),
    [
        pytest.param(PLAIN, "onnx", ("graph",), id="given as ONNX"),
        pytest.param(PLAIN, "sklearn", ("onnx_conversion", "graph"), id="converted"),
        pytest.param(
            Candidate("c", (), "onnxruntime", {}, ("onnx_conversion",)),
            "torch",
            ("onnx_conversion",),
            id="said once",
        ),
        pytest.param(
            Candidate("n", (), "native", {}, ("native",)), "torch", ("native",), id="native"
        ),
    ],
)
def test_techniques_are_what_made_it(
    candidate: Candidate, framework: str, techniques: tuple[str, ...]
) -> None:
    source = SourceModel(Path("m"), framework)  # type: ignore[arg-type]
    assert techniques_of(candidate, source) == techniques


def test_an_artifact_is_called_after_its_last_pass(model: Path) -> None:
    steps = (Step("cleanup"), Step("int8_static"))
    assert made(Candidate("c", steps, "onnxruntime"), model).artifact_id == "int8_static"
    assert made(PLAIN, model).artifact_id == "onnx"
