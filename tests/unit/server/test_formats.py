from pathlib import Path

import pytest

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
        pytest.param(["model.skops"], "", "convert it to ONNX (skl2onnx", id="skops"),
        pytest.param(["model.ubj"], "", "convert_xgboost", id="xgboost"),
        pytest.param(["model.json"], "", "convert_xgboost", id="xgboost json"),
        pytest.param(["model.txt"], "", "convert_lightgbm", id="lightgbm"),
        pytest.param(["model.pt2"], "", "torch.onnx.export", id="torch"),
        pytest.param(["model.keras"], "", "tf2onnx", id="keras"),
        pytest.param(["saved_model.pb"], "", "TensorFlow SavedModel", id="saved model"),
        pytest.param(["net/saved_model.pb"], "", "TensorFlow SavedModel", id="in a folder"),
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


def test_an_allowed_pickle_still_has_to_be_converted(tmp_path: Path) -> None:
    with pytest.raises(Unservable, match="convert it to ONNX"):
        find_model(make(tmp_path, "model.pkl"), "", True)
