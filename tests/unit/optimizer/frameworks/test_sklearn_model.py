from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn import datasets
from sklearn.cluster import DBSCAN
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import LinearSVC

from optimizer.errors import SourceError
from optimizer.frameworks.sklearn_model import EstimatorModel, load, model_of, save, task_of
from optimizer.samples import Samples
from protos.signature import TensorSpec
from tests.unit.optimizer.fitted_models import FITTED, passengers

IRIS, LABELS = datasets.load_iris(return_X_y=True)
ROWS = {"X": IRIS[:7].astype(np.float32)}


def spec(name: str, datatype: str, *sizes: int) -> TensorSpec:
    return TensorSpec(name, datatype, ("batch", *sizes))


def test_classifier_has_labels_and_probabilities() -> None:
    estimator = LogisticRegression(max_iter=500).fit(IRIS, LABELS)
    native = EstimatorModel(estimator)
    assert native.task == "classification"
    assert native.signature.inputs == (spec("X", "FP32", 4),)
    assert native.signature.outputs == (spec("label", "INT64"), spec("probabilities", "FP32", 3))
    outputs = native.predict(ROWS)
    rows = ROWS["X"].astype(np.float64)
    assert outputs["label"].tolist() == estimator.predict(rows).tolist()
    assert outputs["probabilities"] == pytest.approx(estimator.predict_proba(rows), abs=1e-7)


def test_arithmetic_is_in_float64() -> None:
    # In float32 the small feature would be lost beside the large one.
    difference = FunctionTransformer(lambda rows: rows[:, :1] + rows[:, 1:] - 1e8)
    model = make_pipeline(difference, LinearRegression())
    model.fit(np.array([[1e8, 0.0], [1e8, 1.0]]), [0.0, 1.0])
    outputs = EstimatorModel(model).predict({"X": np.array([[1e8, 0.25]], np.float32)})
    assert outputs["prediction"] == pytest.approx([0.25])


def test_text_labels_are_bytes() -> None:
    native = EstimatorModel(FITTED["text labels"]())
    assert native.signature.outputs[0] == spec("label", "BYTES")
    assert set(native.predict({"X": IRIS.astype(np.float32)})["label"]) == {
        b"a",
        b"b",
        "ü".encode(),
    }


def test_classifier_without_probabilities_has_scores() -> None:
    native = EstimatorModel(LinearSVC().fit(IRIS, LABELS > 0))
    assert native.signature.outputs == (spec("label", "INT64"), spec("scores", "FP32", 2))
    outputs = native.predict(ROWS)
    assert outputs["scores"][:, 0].tolist() == (-outputs["scores"][:, 1]).tolist()
    assert (outputs["label"] == outputs["scores"].argmax(axis=1)).all()


@pytest.mark.parametrize("name", ["decision tree", "bagging", "XGBoost", "LightGBM"])
def test_label_from_probabilities_is_the_estimators_own(name: str) -> None:
    estimator = FITTED[name]()
    native = EstimatorModel(estimator)
    inputs = native.typical_rows(300, 1).inputs
    rows = inputs["X"].astype(np.float64)
    assert native.predict(inputs)["label"].tolist() == estimator.predict(rows).tolist()


@pytest.mark.parametrize(
    ("name", "outputs"),
    [
        ("ridge", ["prediction"]),
        ("ridge, 2 targets", ["prediction"]),
        ("k-means", ["label", "scores"]),
        ("mixture", ["label", "probabilities"]),
        ("isolation forest", ["label", "scores"]),
        ("XGBoost ranker", ["prediction"]),
    ],
)
def test_outputs_by_kind(name: str, outputs: list[str]) -> None:
    native = EstimatorModel(FITTED[name]())
    assert [spec.name for spec in native.signature.outputs] == outputs


def test_transformer_gives_what_it_makes() -> None:
    native = EstimatorModel(PCA(2).fit(IRIS))
    assert (native.task, native.signature.outputs) == ("other", (spec("transformed", "FP32", 2),))


def test_several_targets_have_probabilities_each() -> None:
    targets = np.stack([LABELS, LABELS > 0], axis=1)
    native = EstimatorModel(
        MultiOutputClassifier(LogisticRegression(max_iter=500)).fit(IRIS, targets)
    )
    assert native.signature.outputs == (
        spec("label", "INT64", 2),
        spec("probabilities_0", "FP32", 3),
        spec("probabilities_1", "FP32", 2),
    )


def test_table_has_one_input_per_column() -> None:
    estimator = FITTED["table"]()
    native = EstimatorModel(estimator)
    assert native.signature.inputs == (
        spec("age", "FP32", 1),
        spec("fare", "FP32", 1),
        spec("city", "BYTES", 1),
        spec("sex", "BYTES", 1),
    )
    table, _ = passengers()
    inputs = {
        name: np.array([value.encode() for value in table[name].fillna("")], dtype=object).reshape(
            -1, 1
        )
        if name in ("city", "sex")
        else table[name].to_numpy(np.float32).reshape(-1, 1)
        for name in table
    }
    # An empty text stands for a missing one.
    assert native.predict(inputs)["label"].tolist() == estimator.predict(table).tolist()


def test_names_of_numbers_only_are_one_matrix() -> None:
    table = passengers()[0][["fare"]].assign(other=1.0)
    native = EstimatorModel(StandardScaler().fit(table))
    assert native.signature.inputs == (spec("X", "FP32", 2),)


def test_real_rows_decide_types_that_the_model_does_not_say() -> None:
    table, labels = passengers()
    lengths = FunctionTransformer(lambda rows: rows.map(lambda value: float(len(str(value)))))
    model = make_pipeline(lengths, LogisticRegression()).fit(table[["city", "sex"]], labels)
    assert EstimatorModel(model).signature.inputs == (spec("X", "FP32", 2),)
    texts = np.array([[b"Rome"]], dtype=object)
    native = EstimatorModel(model, Samples({"city": texts, "sex": texts}))
    assert [item.datatype for item in native.signature.inputs] == ["BYTES", "BYTES"]


@pytest.mark.parametrize("suffix", [".pkl", ".joblib"])
def test_pickles_are_read(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    joblib.dump(FITTED["ridge"](), path)
    assert load(path).task == "regression"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": 1}, "holds a dict, expected a fitted model"),
        (LogisticRegression(), "holds a LogisticRegression that is not fitted"),
        (DBSCAN().fit(IRIS), "holds a DBSCAN, expected a fitted model with `predict`"),
    ],
)
def test_what_is_no_fitted_model_is_refused(content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.joblib"
    joblib.dump(content, path)
    with pytest.raises(SourceError, match=message):
        load(path)


def test_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(b"\x80\x04nonsense")
    with pytest.raises(SourceError, match=r"model.pkl' cannot be read: \w+"):
        load(path)


@pytest.mark.parametrize("name", ["table", "XGBoost", "LightGBM", "nearest neighbours", "SVC"])
def test_saved_without_pickle(name: str, tmp_path: Path) -> None:
    estimator = FITTED[name]()
    source = save(estimator, tmp_path)
    assert (source.path.name, source.framework) == ("model.skops", "sklearn")
    first, second = EstimatorModel(estimator), load(source.path)
    rows = first.typical_rows(20, 3).inputs
    for output, values in first.predict(rows).items():
        assert second.predict(rows)[output].tolist() == values.tolist()


def test_saved_as_pickle_where_a_function_is_inside(tmp_path: Path) -> None:
    estimator = make_pipeline(FunctionTransformer(len_of), LinearRegression())
    estimator.fit(IRIS, LABELS)
    source = save(estimator, tmp_path)
    assert source.path.name == "model.joblib"
    assert [path.name for path in tmp_path.iterdir()] == ["model.joblib"]


def len_of(rows: Any) -> Any:
    return rows


def test_typical_rows_are_the_same_for_a_seed() -> None:
    forest = RandomForestClassifier(3, random_state=0).fit(IRIS, LABELS)
    native = model_of(forest, "the forest")
    first, second = (native.typical_rows(50, 7).inputs["X"] for _ in range(2))
    assert np.array_equal(first, second, equal_nan=True)
    assert not np.array_equal(first, native.typical_rows(50, 8).inputs["X"], equal_nan=True)
    assert not native.typical_rows(5, 0).is_real


def test_task_of_a_search_is_that_of_its_best() -> None:
    from sklearn.model_selection import GridSearchCV

    search = GridSearchCV(LogisticRegression(max_iter=500), {"C": [1.0]}, cv=2).fit(IRIS, LABELS)
    assert task_of(search) == "classification"
