from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn.base import BaseEstimator
from sklearn.preprocessing import FunctionTransformer

from optimizer.errors import SourceError
from optimizer.frameworks.estimator_file import read_estimator, write_estimator


class Own(BaseEstimator):  # type: ignore[misc]
    def predict(self, rows: Any) -> Any:
        return rows


def test_skops_file_with_a_foreign_type_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.skops"
    skops.io.dump(Own(), path)
    with pytest.raises(SourceError, match=r"holds a '[\w.]*Own', expected types of scikit-learn"):
        read_estimator(path)


@pytest.mark.parametrize("function", [np.fromfile, np.save, print])
def test_skops_file_with_a_function_is_refused(function: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.skops"
    skops.io.dump(FunctionTransformer(function), path)
    with pytest.raises(SourceError, match="expected types of scikit-learn"):
        read_estimator(path)


def test_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.skops"
    path.write_bytes(b"PK nonsense")
    with pytest.raises(SourceError, match="cannot be read"):
        read_estimator(path)


def test_own_class_is_saved_as_a_pickle(tmp_path: Path) -> None:
    source = write_estimator(Own(), tmp_path)
    assert source.path.name == "model.joblib"
    assert isinstance(read_estimator(source.path), Own)


def test_what_cannot_be_pickled_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="FunctionTransformer cannot be saved"):
        write_estimator(FunctionTransformer(lambda rows: rows), tmp_path)
