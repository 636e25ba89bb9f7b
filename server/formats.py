"""Which files are models, and why one that was found cannot be served as it is.

Every format of the product is recognised, so that an operator is told what to do about a file
instead of "no model found". A file is never opened here: formats go by name.
"""

from dataclasses import dataclass
from pathlib import Path


class Unservable(Exception):
    """No model can be served from a folder or file; the message says what would help."""


@dataclass(frozen=True, slots=True)
class Format:
    """One format of model files."""

    name: str
    convert_with: str = ""  # what makes ONNX of it; "" where none is needed
    runs_code: bool = False  # opening a file of it may run whatever its author wrote


_SKLEARN = "skl2onnx.to_onnx"
FORMATS: dict[str, Format] = {
    ".onnx": Format("ONNX"),
    ".skops": Format("scikit-learn (skops)", _SKLEARN),
    ".pkl": Format("pickle", _SKLEARN, runs_code=True),
    ".joblib": Format("joblib", _SKLEARN, runs_code=True),
    ".ubj": Format("XGBoost", "onnxmltools.convert_xgboost"),
    ".json": Format("XGBoost", "onnxmltools.convert_xgboost"),
    ".txt": Format("LightGBM", "onnxmltools.convert_lightgbm"),
    ".pt2": Format("PyTorch (torch.export)", "torch.onnx.export"),
    ".keras": Format("Keras", "tf2onnx.convert.from_keras"),
}
_SAVED_MODEL = Format("TensorFlow SavedModel", "python -m tf2onnx.convert --saved-model")
_COMMON_SUFFIXES = (".json", ".txt")  # of many files that are no models


def is_model_file(path: Path) -> bool:
    """Whether a file is a model by its name; .json and .txt are where they are called "model"."""
    if path.suffix in _COMMON_SUFFIXES:
        return path.stem == "model"
    return path.suffix in FORMATS


def is_saved_model(folder: Path) -> bool:
    return (folder / "saved_model.pb").is_file()


def find_model(folder: Path, filename: str, allow_pickle: bool) -> Path:
    """The file to serve in a version's folder: `filename` if given, else model.*, else the only.

    A folder called *.onnx that holds the model with its external data counts as that model.

    Raises:
        Unservable: there is none, it is not clear which, or its format is not served.
    """
    path = _named(folder, filename) if filename else _only_model(folder)
    if path.is_dir() and path.suffix == ".onnx":
        path = _only_model(path)
    check_servable(path, allow_pickle)
    return path


def check_servable(path: Path, allow_pickle: bool) -> None:
    """Raises Unservable unless this server can run the file as it is."""
    format_ = _SAVED_MODEL if path.is_dir() else FORMATS.get(path.suffix)
    if format_ is None:
        known = ", ".join(FORMATS)
        raise Unservable(f"{path}: no known model format, expected one of {known}")
    if format_.runs_code and not allow_pickle:
        raise Unservable(
            f"{path}: {format_.name} files can run any code when they are opened, so they are"
            " refused; start the server with --allow-pickle if you trust whoever made this one"
        )
    if format_.convert_with:
        raise Unservable(
            f"{path}: {format_.name} models are not served as they are;"
            f" convert it to ONNX ({format_.convert_with}) and put the .onnx file in its place"
        )


def _named(folder: Path, filename: str) -> Path:
    path = folder / filename
    if Path(filename).is_absolute() or ".." in Path(filename).parts:
        raise Unservable(f'default_model_filename "{filename}" is not inside {folder}')
    if not path.exists():
        raise Unservable(f"{path}: no such file (default_model_filename)")
    return path


def _only_model(folder: Path) -> Path:
    if is_saved_model(folder):
        return folder
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    models = [entry for entry in entries if is_model_file(entry) or is_saved_model(entry)]
    preferred = [entry for entry in models if entry.stem == "model"]
    for suffix in FORMATS:
        for entry in preferred:
            if entry.suffix == suffix:
                return entry
    if len(models) == 1:
        return models[0]
    if models:
        names = ", ".join(entry.name for entry in models)
        raise Unservable(
            f"{folder}: several model files ({names}); name the one to serve model.onnx,"
            " or put each model in a folder of its own"
        )
    found = ", ".join(entry.name for entry in entries) or "nothing"
    raise Unservable(f"{folder}: no model file, expected model.onnx; found {found}")
