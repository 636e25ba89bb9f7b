"""Models in the framework that trained them; one file each, `contract.py` says what one is.

A framework is imported when a model of it is loaded or saved, which child processes do.
"""

import importlib
from pathlib import Path
from typing import Any, cast

from optimizer.errors import SourceError
from optimizer.extras import needed_by
from optimizer.frameworks.contract import NativeModel
from optimizer.samples import Samples
from optimizer.source import SourceModel

_MODULES = {
    "sklearn": "sklearn_model",
    "xgboost": "xgboost_model",
    "lightgbm": "lightgbm_model",
    "torch": "torch_model",
    "tensorflow": "keras_model",
}


def load_native(source: SourceModel, samples: Samples | None = None) -> NativeModel:
    """Loads a model in its own framework.

    Args:
        source: Its file; opening it may run code of whoever wrote it.
        samples: Rows to tell names and types of columns by, where the file does not.

    Raises:
        SourceError: it cannot be loaded.
        Unavailable: its framework is not installed.
    """
    with needed_by(f"'{source.path}'", source.framework):
        return cast(NativeModel, _module(source.framework).load(source.path, samples))


def save_native(model: object, folder: Path, example: Any = None) -> SourceModel:
    """Writes a model object to a file in `folder` that `load_native` reads.

    Args:
        model: Fitted, of any framework.
        folder: Exists.
        example: Inputs of a torch.nn.Module, an array or arrays by parameter; needed for it.

    Raises:
        SourceError: no known framework, or it cannot be saved.
    """
    framework = _framework_of(model)
    with needed_by(type(model).__name__, framework):
        if framework == "torch":
            return cast(SourceModel, _module(framework).save(model, example, folder))
        return cast(SourceModel, _module(framework).save(model, folder))


def _framework_of(model: object) -> str:
    """By the packages of its class and bases; what has `predict` counts as scikit-learn."""
    packages = {cls.__module__.partition(".")[0] for cls in type(model).__mro__}
    if packages & {"torch"}:
        return "torch"
    if packages & {"keras", "tensorflow", "tf_keras"}:
        return "tensorflow"
    if type(model).__name__ == "Booster":  # else one with scikit-learn's interface
        return "xgboost" if "xgboost" in packages else "lightgbm"
    if hasattr(model, "predict") or hasattr(model, "transform"):
        return "sklearn"
    known = "a fitted scikit-learn, XGBoost or LightGBM model, a torch.nn.Module or a Keras model"
    raise SourceError(f"{type(model).__name__} is no model, expected {known}")


def _module(framework: str) -> Any:
    if framework not in _MODULES:
        raise SourceError(f"a model of {framework} has no form of its own to run")
    return importlib.import_module(f"optimizer.frameworks.{_MODULES[framework]}")
