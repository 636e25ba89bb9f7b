from pathlib import Path
from typing import Any

import pytest

from optimizer.artifact import Artifact, Runtime
from server.formats import Unservable, find_model


def make(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


@pytest.mark.parametrize(
    ("names", "filename", "found"),
    [
        pytest.param(["model.onnx"], "", "model.onnx", id="the usual name"),
        pytest.param(["net.onnx"], "", "net.onnx", id="the only model"),
        pytest.param(["net.onnx", "model.onnx"], "", "model.onnx", id="model.* comes first"),
        pytest.param(["model.onnx", "model.pt2"], "", "model.onnx", id="onnx comes first"),
        pytest.param(
            ["model.onnx", "model.onnx.data", "README.txt", "notes.json"],
            "",
            "model.onnx",
            id="external data, texts and JSON are no models",
        ),
        pytest.param(["a.onnx", "b.onnx"], "b.onnx", "b.onnx", id="named by the configuration"),
        *(
            pytest.param([name], "", name, id=name)
            for name in ("a.skops", "a.ubj", "model.json", "model.txt", "a.pt2", "a.keras")
        ),
        pytest.param(["saved_model.pb"], "", "", id="a SavedModel"),
        pytest.param(["net/saved_model.pb"], "", "net", id="a SavedModel in a folder"),
        pytest.param([".old.onnx", "net.onnx"], "", "net.onnx", id="hidden files are not seen"),
        pytest.param(
            ["model.onnx/net.onnx", "model.onnx/net.onnx.data"],
            "",
            "model.onnx/net.onnx",
            id="a folder that holds the model",
        ),
    ],
)
def test_the_file_to_serve(tmp_path: Path, names: list[str], filename: str, found: str) -> None:
    assert find_model(make(tmp_path, *names), filename, False) == tmp_path / found


@pytest.mark.parametrize(
    ("names", "filename", "problem"),
    [
        pytest.param([], "", "no model file, expected model.onnx; found nothing", id="empty"),
        pytest.param(["x.bin"], "", "expected model.onnx; found x.bin", id="no model"),
        pytest.param(
            ["a.onnx", "b.onnx"], "", "several model files (a.onnx, b.onnx)", id="several"
        ),
        pytest.param(
            ["model.onnx"], "net.onnx", "net.onnx: no such file (default_model_f", id="missing"
        ),
        pytest.param(["x.onnx"], "../x.onnx", "is not inside", id="outside"),
        pytest.param(["x.onnx"], "/etc/x.onnx", "is not inside", id="absolute"),
        pytest.param(["model.bin"], "model.bin", "no known model format", id="unknown format"),
        pytest.param(["model.pkl"], "", "start the server with --allow-pickle", id="pickle"),
        pytest.param(["model.joblib"], "", "can run any code when they are opened", id="joblib"),
    ],
)
def test_why_nothing_can_be_served(
    tmp_path: Path, names: list[str], filename: str, problem: str
) -> None:
    with pytest.raises(Unservable) as error:
        find_model(make(tmp_path, *names), filename, False)
    assert str(tmp_path) in str(error.value)
    assert problem in str(error.value)


@pytest.mark.parametrize("name", ["model.pkl", "model.joblib"])
def test_an_allowed_pickle_is_served(tmp_path: Path, name: str) -> None:
    assert find_model(make(tmp_path, name), "", True) == tmp_path / name


def artifact(folder: Path, runtime: Runtime, file: str, **options: Any) -> Path:
    make(folder, file)
    Artifact(folder, file, runtime, "x-1", options=options).write()
    return folder


def test_an_artifact_comes_before_every_file(tmp_path: Path) -> None:
    make(tmp_path, "model.onnx", "saved_model.pb")
    artifact(tmp_path, "openvino", "model.xml")
    assert find_model(tmp_path, "", False) == tmp_path


def test_a_file_that_the_configuration_names_comes_before_the_artifact(tmp_path: Path) -> None:
    artifact(tmp_path, "onnxruntime", "model.onnx")
    assert find_model(tmp_path, "model.onnx", False) == tmp_path / "model.onnx"


def test_an_artifact_is_found_in_a_folder_of_its_own(tmp_path: Path) -> None:
    artifact(tmp_path / "fast", "native", "model.skops")
    assert find_model(tmp_path, "", False) == tmp_path / "fast"


def test_an_artifact_that_holds_a_pickle_is_refused_like_one(tmp_path: Path) -> None:
    artifact(
        tmp_path, "by_batch", "large/model.pkl", regimes=[{"max_rows": None, "folder": "large"}]
    )
    artifact(tmp_path / "large", "native", "model.pkl", framework="sklearn")
    with pytest.raises(Unservable, match=r"large/model\.pkl: pickle files can run any code"):
        find_model(tmp_path, "", False)
    assert find_model(tmp_path, "", True) == tmp_path


def test_a_native_artifact_of_an_unknown_format_is_refused(tmp_path: Path) -> None:
    artifact(tmp_path, "native", "model.bin", framework="sklearn")
    with pytest.raises(Unservable, match="no known model format"):
        find_model(tmp_path, "", True)


@pytest.mark.parametrize(
    ("manifest", "problem"),
    [
        pytest.param("{", "no artifact's manifest", id="damaged"),
        pytest.param('{"version": 9}', "version 9, expected 1", id="of another version"),
    ],
)
def test_a_damaged_manifest_is_named(tmp_path: Path, manifest: str, problem: str) -> None:
    (tmp_path / "artifact.json").write_text(manifest)
    with pytest.raises(Unservable, match=problem):
        find_model(tmp_path, "", False)


def test_a_by_batch_artifact_without_regimes_is_refused(tmp_path: Path) -> None:
    artifact(tmp_path, "by_batch", "large")
    with pytest.raises(Unservable, match="no regimes: KeyError"):
        find_model(tmp_path, "", False)
