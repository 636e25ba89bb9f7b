from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

import optimizer
from optimizer.errors import DataError, GoalError, OptimizationError, SourceError
from server.formats import find_model
from tests.models import mlp

QUICK: dict[str, Any] = {"quick": True, "benchmark_s": 0.3, "max_batch": 1, "threads": 1}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(mlp())
    return path


def test_a_file_is_optimized_run_and_saved(model: Path, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).random((40, 16))
    with optimizer.optimize(model, rows, state_dir=tmp_path / "state", **QUICK) as fast:
        answer = fast.predict(rows)
        assert isinstance(answer, np.ndarray)
        assert answer.shape == (40, 4)
        assert np.allclose(np.asarray(fast.predict({"x": rows[:3]})), answer[:3])
        assert fast.report.data.validation_rows == 20
        with pytest.raises(DataError, match="expected FP32"):
            fast.predict(rows[:, :2])
        folder = fast.save(tmp_path / "served")
        with pytest.raises(OptimizationError, match="exists"):
            fast.save(folder)
    assert (find_model(folder / "1", "", allow_pickle=False) / "artifact.json").is_file()


@pytest.mark.slow
def test_a_fitted_model_is_optimized(tmp_path: Path) -> None:
    x, y = load_iris(return_X_y=True)
    classifier = LogisticRegression(max_iter=500).fit(x, y)
    with optimizer.optimize(classifier, (x, y), state_dir=tmp_path, **QUICK) as fast:
        answers = fast.predict(x)
        assert isinstance(answers, dict)
        assert answers["label"].tolist() == classifier.predict(x).tolist()
        assert np.allclose(answers["probabilities"], classifier.predict_proba(x), atol=1e-5)
        assert "LogisticRegression" not in repr(fast)
        assert fast.report.data.has_labels


def test_what_makes_no_sense_is_refused_at_once(model: Path, tmp_path: Path) -> None:
    with pytest.raises(GoalError, match="nearest is 'int8_static'"):
        optimizer.optimize(model, techniques=["int8_statik"], state_dir=tmp_path)
    with pytest.raises(GoalError, match="precision: expected one of 'auto'"):
        optimizer.optimize(model, precision="int9", state_dir=tmp_path)  # type: ignore[arg-type]
    with pytest.raises(SourceError, match="no such file"):
        optimizer.optimize(tmp_path / "none.onnx", state_dir=tmp_path)
    with pytest.raises(SourceError, match="is no model"):
        optimizer.optimize(object(), state_dir=tmp_path)
