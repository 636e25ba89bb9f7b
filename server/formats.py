"""Which files and folders are models, and which of them serves.

Formats go by name. Nothing of a model is opened here; of an artifact only its manifest is.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from optimizer.artifact import MANIFEST, read_artifact
from optimizer.errors import OptimizationError


class Unservable(Exception):
    """No model can be served from a folder or file; the message says what would help."""


@dataclass(frozen=True, slots=True)
class Format:
    """One format of model files."""

    name: str
    runs_code: bool = False  # opening a file of it may run whatever its author wrote
    is_program: bool = False  # so may its framework, in ways that it does not rule out


FORMATS: dict[str, Format] = {
    ".onnx": Format("ONNX"),
    ".skops": Format("scikit-learn (skops)"),
    ".pkl": Format("pickle", runs_code=True),
    ".joblib": Format("joblib", runs_code=True),
    ".ubj": Format("XGBoost"),
    ".json": Format("XGBoost"),
    ".txt": Format("LightGBM"),
    ".pt2": Format("PyTorch (torch.export)", is_program=True),
    ".keras": Format("Keras", is_program=True),
}
_UNKNOWN = Format("unknown")
_SAVED_MODEL = "saved_model.pb"
_COMMON_SUFFIXES = (".json", ".txt")  # of many files that are no models


def is_model_file(path: Path) -> bool:
    """Whether a file is a model by its name; .json and .txt are where they are called "model"."""
    if path.suffix in _COMMON_SUFFIXES:
        return path.stem == "model"
    return path.suffix in FORMATS


def is_model_folder(folder: Path) -> bool:
    """Whether a folder as a whole is a model: an artifact of the optimizer, or a SavedModel."""
    return (folder / MANIFEST).is_file() or is_saved_model(folder)


def is_saved_model(folder: Path) -> bool:
    return (folder / _SAVED_MODEL).is_file()


def find_model(folder: Path, filename: str, allow_pickle: bool) -> Path:
    """What to serve in a version's folder.

    `filename` if given; the folder itself if it is an artifact or a SavedModel; else model.*, else
    the only model. A folder called *.onnx that holds the model with its external data counts as
    that model.

    Raises:
        Unservable: there is none, it is not clear which, or it may not be opened.
    """
    path = _named(folder, filename) if filename else _only_model(folder)
    if path.is_dir() and path.suffix == ".onnx" and not is_model_folder(path):
        path = _only_model(path)
    check_servable(path, allow_pickle)
    return path


def check_servable(path: Path, allow_pickle: bool) -> None:
    """Raises Unservable unless this server may open the file or folder."""
    if (path / MANIFEST).is_file():
        for file in _files_of(path):
            check_servable(file, allow_pickle)
        return
    if is_saved_model(path):
        return
    format_ = FORMATS.get(path.suffix)
    if format_ is None or path.is_dir():
        known = ", ".join(FORMATS)
        raise Unservable(
            f"{path}: no known model format, expected one of {known}, a TensorFlow SavedModel or"
            " an artifact of the optimizer"
        )
    if format_.runs_code and not allow_pickle:
        raise Unservable(
            f"{path}: {format_.name} files can run any code when they are opened, so they are"
            " refused; start the server with --allow-pickle if you trust whoever made this one"
        )


def check_sent(names: Iterable[str], allow_pickle: bool) -> None:
    """Raises Unservable where files that a client sent could run code of the client's here.

    In the operator's own folders programs are served; who may load models is not the operator.
    """
    for name in () if allow_pickle else names:
        path = Path(name)
        format_ = FORMATS.get(path.suffix, _UNKNOWN)
        if format_.is_program or format_.runs_code or path.name == _SAVED_MODEL:
            raise Unservable(
                f"{name}: such a file can run any code when it is opened, so it is refused in a"
                " load call; put it into the repository, or start the server with --allow-pickle"
            )


def _files_of(folder: Path) -> Iterator[Path]:
    """What opening an artifact opens in the framework that made it."""
    try:
        artifact = read_artifact(folder)
        if artifact.runtime == "by_batch":
            for regime in artifact.options["regimes"]:
                yield from _files_of(folder / regime["folder"])
        elif artifact.runtime == "native":
            yield artifact.path
    except OptimizationError as error:
        raise Unservable(str(error)) from None
    except (KeyError, TypeError) as error:
        raise Unservable(f"{folder / MANIFEST}: no regimes: {error!r}") from None


def _named(folder: Path, filename: str) -> Path:
    path = folder / filename
    if Path(filename).is_absolute() or ".." in Path(filename).parts:
        raise Unservable(f'default_model_filename "{filename}" is not inside {folder}')
    if not path.exists():
        raise Unservable(f"{path}: no such file (default_model_filename)")
    return path


def _only_model(folder: Path) -> Path:
    if is_model_folder(folder):
        return folder
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    models = [entry for entry in entries if is_model_file(entry) or is_model_folder(entry)]
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
