import numpy as np
import pytest
from sklearn import datasets
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from optimizer.frameworks.columns import table_of
from optimizer.frameworks.thresholds import thresholds_of
from optimizer.frameworks.typical_rows import near_thresholds, typical_table
from protos.tensors import Array
from tests.unit.optimizer.fitted_models import FITTED, passengers

CANCER, BENIGN = datasets.load_breast_cancer(return_X_y=True)


def rows_of(model: object, rows: int = 300) -> Array:
    return typical_table(model, table_of(model), rows, 0)


def test_values_lie_on_and_beside_thresholds() -> None:
    thresholds = {0: np.array([0.1, 0.7])}
    rows = near_thresholds(thresholds, 2, 400, np.random.default_rng(0))
    exact = np.array([0.1, 0.7], np.float32)
    for end in (0, np.inf):
        beside = np.nextafter(exact, np.float32(end))
        assert np.isin(rows[:, 0].astype(np.float32), beside).mean() > 0.15
    assert np.isin(rows[:, 0].astype(np.float32), exact).mean() > 0.15


def test_every_kind_of_tree_tells_its_thresholds() -> None:
    for name in ("decision tree", "gradient boosting", "bagging", "isolation forest", "LightGBM"):
        assert thresholds_of(FITTED[name]()), name
    assert not thresholds_of(FITTED["ridge"]())


def test_rows_behind_a_scaler_are_in_its_range() -> None:
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(CANCER, BENIGN)
    rows = rows_of(model).astype(float)
    low, high = CANCER.mean(axis=0) - 6 * CANCER.std(axis=0), CANCER.max(axis=0) * 3
    assert (rows > low - 10 * CANCER.std(axis=0)).all()
    assert (rows < high + 10 * CANCER.std(axis=0)).all()
    assert rows.std(axis=0) / CANCER.std(axis=0) == pytest.approx(1.5, rel=0.9)


def test_rows_behind_a_scaler_lie_on_the_thresholds_after_it() -> None:
    model = make_pipeline(StandardScaler(), RandomForestClassifier(3, random_state=0))
    model.fit(CANCER, BENIGN)
    scaled = model[0].transform(rows_of(model).astype(float))
    feature, values = next(iter(thresholds_of(model[1]).items()))
    distance = np.abs(scaled[:, [feature]] - values).min(axis=1)
    assert (distance < 1e-5).mean() > 0.3


@pytest.mark.parametrize(("handle", "has_unknown"), [("ignore", True), ("error", False)])
def test_unknown_categories_come_where_they_are_taken(handle: str, has_unknown: bool) -> None:
    table, labels = passengers()
    encoder = ColumnTransformer([("texts", OneHotEncoder(handle_unknown=handle), ["sex"])])
    model = make_pipeline(encoder, LogisticRegression()).fit(table[["sex"]], labels)
    values = set(rows_of(model)[:, 0])
    assert {"f", "m"} <= values
    assert (values > {"f", "m"}) == has_unknown


def test_missing_values_come_where_they_are_taken() -> None:
    forest = HistGradientBoostingClassifier(max_iter=2).fit(CANCER, BENIGN)
    assert np.isnan(rows_of(forest).astype(float)).any()
    plain = LogisticRegression(max_iter=5000).fit(CANCER[:, :2], BENIGN)
    assert not np.isnan(rows_of(plain).astype(float)).any()


def test_counts_are_not_negative() -> None:
    model = MultinomialNB().fit(np.abs(CANCER), BENIGN)
    assert (rows_of(model).astype(float) >= 0).all()


def test_words_come_from_the_vocabulary() -> None:
    texts = rows_of(FITTED["words"](), 20)[:, 0]
    assert any("film" in text for text in texts)
    assert len(set(texts)) > 5
