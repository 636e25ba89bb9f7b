"""Files of fitted scikit-learn objects. Pickles run code when opened: only child processes do.

A .skops file is opened only if all types in it are ones that hold a model and do nothing else.
"""

import re
from pathlib import Path
from typing import Any

from optimizer.errors import SourceError
from optimizer.source import SourceModel

_TRUSTED = re.compile(
    r"sklearn\.(?!externals|datasets|utils\._test|utils\.estimator_checks|conftest)[\w.]+\._?[A-Z]\w*"
    r"|sklearn\.feature_selection\._\w+\.\w+"
    r"|sklearn\._loss\._loss\.Cy\w+"
    r"|xgboost\.(core\.Booster|sklearn\.XGB\w+)"
    r"|lightgbm\.(basic\.Booster|sklearn\.LGBM\w+)"
    r"|numpy\.(dtype|dtypes\.\w+|float64|float32|int64|int32|bool|bool_|str_)"
    r"|scipy\.(sparse\._\w+\.\w+_(matrix|array)|stats\._distn_infrastructure\.rv_\w+frozen)"
    r"|collections\.(OrderedDict|defaultdict)"
    r"|builtins\.(set|frozenset|slice|complex|bytes)"
)


def read_estimator(path: Path) -> Any:
    """The fitted object in a .skops, .pkl or .joblib file.

    Raises:
        SourceError: it cannot be read, or a .skops file holds a type that is not trusted.
    """
    try:
        if path.suffix == ".skops":
            return _read_skops(path)
        import joblib  # noqa: PLC0415

        return joblib.load(path)
    except (SourceError, ModuleNotFoundError):
        raise
    except Exception as error:  # whatever a pickle raises
        raise SourceError(f"'{path}' cannot be read: {type(error).__name__}: {error}") from error


def write_estimator(model: Any, folder: Path) -> SourceModel:
    """Writes "model.skops", or "model.joblib" where skops does not trust or know what is inside."""
    path = folder / "model.skops"
    try:
        import skops.io  # noqa: PLC0415

        skops.io.dump(model, path)
        _read_skops(path)
    except Exception:  # skops has no common error; what it cannot take, a pickle can
        path.unlink(missing_ok=True)
        return _write_pickle(model, folder)
    return SourceModel(path, "sklearn")


def _write_pickle(model: Any, folder: Path) -> SourceModel:
    import joblib  # noqa: PLC0415

    path = folder / "model.joblib"
    try:
        joblib.dump(model, path)
    except Exception as error:  # whatever a class's own __reduce__ raises
        raise SourceError(f"{type(model).__name__} cannot be saved: {error}") from error
    return SourceModel(path, "sklearn")


def _read_skops(path: Path) -> Any:
    import skops.io  # noqa: PLC0415

    types = skops.io.get_untrusted_types(file=path)
    for name in types:
        if not _TRUSTED.fullmatch(name):
            raise SourceError(
                f"'{path}' holds a '{name}', expected types of scikit-learn, numpy, scipy, xgboost"
                " and lightgbm only"
            )
    return skops.io.load(path, trusted=types)
