"""Small fitted models of every kind, by name; built when they are asked for."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from sklearn import datasets

from protos.tensors import Array


def _iris() -> tuple[Array, Array]:
    return datasets.load_iris(return_X_y=True)  # type: ignore[no-any-return]


def _narrow_iris() -> tuple[Array, Array]:
    x, y = _iris()
    return x.astype(np.float32), y


def _cancer() -> tuple[Array, Array]:
    return datasets.load_breast_cancer(return_X_y=True)  # type: ignore[no-any-return]


def _diabetes() -> tuple[Array, Array]:
    return datasets.load_diabetes(return_X_y=True)  # type: ignore[no-any-return]


def _targets() -> tuple[Array, Array]:
    rows, target = _diabetes()
    return rows, np.stack([target, rows[:, 0]], axis=1)


@cache
def with_missing() -> tuple[Array, Array]:
    """Rows where one value in ten is missing."""
    rows, labels = _cancer()
    rows = rows.copy()
    rows[np.random.default_rng(0).random(rows.shape) < 0.1] = np.nan
    return rows, labels


@cache
def codes() -> tuple[Array, Array]:
    """Two columns of categories and one of numbers."""
    generator = np.random.default_rng(0)
    first, second = generator.integers(0, 50, 500), generator.integers(0, 5, 500)
    rows = np.stack([first, second, generator.standard_normal(500)], axis=1)
    return rows, (first % 7 < 3).astype(int)


@cache
def passengers() -> tuple[pd.DataFrame, Array]:
    """A table with numbers and texts, some of them missing."""
    generator = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "age": generator.integers(18, 80, 300).astype(float),
            "fare": generator.gamma(2, 20, 300),
            "city": np.array(["Rome", "Oslo", "Bonn"], object)[generator.integers(0, 3, 300)],
            "sex": np.array(["f", "m"], object)[generator.integers(0, 2, 300)],
        }
    )
    labels = ((table.age > 40) & (table.city != "Oslo")).to_numpy(int)
    table.loc[generator.random(300) < 0.1, "age"] = np.nan
    table.loc[generator.random(300) < 0.1, "city"] = np.nan
    return table, labels


def by_columns(last: Any, *, encoder: Any = None, sparse: float = 0.3) -> Any:
    """Numbers filled and scaled, texts encoded, then the model."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    encoder = OneHotEncoder(handle_unknown="ignore") if encoder is None else encoder
    columns = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["age", "fare"]),
            ("texts", encoder, ["city", "sex"]),
        ],
        sparse_threshold=sparse,
    )
    return make_pipeline(columns, last).fit(*passengers())


def scaled(last: Any, data: Callable[[], tuple[Array, Array]] = _cancer) -> Any:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), last).fit(*data())


def _text_labels() -> Any:
    from sklearn.linear_model import LogisticRegression

    rows, labels = _iris()
    return LogisticRegression(max_iter=500).fit(rows, np.array(["a", "b", "ü"])[labels])


def _bool_labels() -> Any:
    from lightgbm import LGBMClassifier

    rows, labels = _cancer()
    return LGBMClassifier(n_estimators=5, verbose=-1).fit(rows, labels.astype(bool))


def _words() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    texts = ["good film great", "bad film awful", "great acting good", "awful plot bad"] * 5
    return make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, [1, 0, 1, 0] * 5)


def _voting() -> Any:
    from lightgbm import LGBMClassifier
    from sklearn.ensemble import VotingClassifier
    from sklearn.linear_model import LogisticRegression
    from xgboost import XGBClassifier

    members = [
        ("a", LogisticRegression(max_iter=500)),
        ("b", XGBClassifier(n_estimators=3)),
        ("c", LGBMClassifier(n_estimators=3, verbose=-1)),
    ]
    return VotingClassifier(members, voting="soft").fit(*_iris())


def _ranker() -> Any:
    from xgboost import XGBRanker

    rows, labels = _cancer()
    return XGBRanker(n_estimators=5).fit(rows, labels, group=[len(rows)])


def _stopped_early() -> Any:
    from xgboost import XGBClassifier

    rows, labels = _cancer()
    model = XGBClassifier(n_estimators=20, early_stopping_rounds=1)
    return model.fit(rows, labels, eval_set=[(rows, 1 - labels)], verbose=False)


def _lightgbm_codes() -> Any:
    from lightgbm import LGBMClassifier

    rows, labels = codes()
    model = LGBMClassifier(n_estimators=5, verbose=-1)
    return model.fit(rows, labels, categorical_feature=[0, 1])


def _lightgbm(kind: str, data: Callable[[], tuple[Array, Array]], **settings: Any) -> Any:
    import lightgbm

    return getattr(lightgbm, kind)(n_estimators=5, verbose=-1, **settings).fit(*data())


def _xgboost(kind: str, data: Callable[[], tuple[Array, Array]], **settings: Any) -> Any:
    import xgboost

    return getattr(xgboost, kind)(n_estimators=5, **settings).fit(*data())


def _sklearn(module: str, kind: str, data: Callable[[], Any], **settings: Any) -> Any:
    from importlib import import_module

    estimator = getattr(import_module(f"sklearn.{module}"), kind)(**settings)
    return estimator.fit(*data())


def _ordinal() -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.preprocessing import OrdinalEncoder

    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    return by_columns(HistGradientBoostingClassifier(max_iter=5), encoder=encoder)


def _table(kind: str, **settings: Any) -> Any:
    from lightgbm import LGBMClassifier
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from xgboost import XGBClassifier

    last = {
        "logistic": LogisticRegression,
        "forest": lambda: RandomForestClassifier(5),
        "xgboost": lambda: XGBClassifier(n_estimators=5),
        "lightgbm": lambda: LGBMClassifier(n_estimators=5, verbose=-1),
    }[kind]
    return by_columns(last(), **settings)


def _scaled(kind: str) -> Any:
    from lightgbm import LGBMClassifier
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.svm import SVC, LinearSVC
    from xgboost import XGBClassifier

    last = {
        "xgboost": lambda: XGBClassifier(n_estimators=20),
        "lightgbm": lambda: LGBMClassifier(n_estimators=20, verbose=-1),
        "histogram": lambda: HistGradientBoostingClassifier(max_iter=20),
        "forest": lambda: RandomForestClassifier(10, random_state=0),
        "linear_svc": LinearSVC,
        "svc": SVC,
    }[kind]
    return scaled(last())


FITTED: dict[str, Callable[[], Any]] = {
    "logistic regression": lambda: _sklearn(
        "linear_model", "LogisticRegression", _iris, max_iter=500
    ),
    "text labels": _text_labels,
    "ridge": lambda: _sklearn("linear_model", "Ridge", _diabetes),
    "ridge, 2 targets": lambda: _sklearn("linear_model", "Ridge", _targets),
    "ridge classifier": lambda: _sklearn("linear_model", "RidgeClassifier", _iris),
    "linear SVC": lambda: _scaled("linear_svc"),
    "SVC": lambda: _scaled("svc"),
    "SVR": lambda: _sklearn("svm", "SVR", _diabetes),
    "decision tree": lambda: _sklearn("tree", "DecisionTreeClassifier", _iris),
    "forest, missing values": lambda: _sklearn(
        "ensemble", "RandomForestClassifier", with_missing, n_estimators=5
    ),
    "forest, 2 targets": lambda: _sklearn(
        "ensemble", "RandomForestRegressor", _targets, n_estimators=5
    ),
    "extra trees": lambda: _sklearn("ensemble", "ExtraTreesClassifier", _iris, n_estimators=5),
    "gradient boosting": lambda: _sklearn(
        "ensemble", "GradientBoostingClassifier", _iris, n_estimators=5
    ),
    "bagging": lambda: _sklearn("ensemble", "BaggingClassifier", _cancer, n_estimators=3),
    "histogram boosting": lambda: _sklearn(
        "ensemble", "HistGradientBoostingClassifier", with_missing, max_iter=5
    ),
    "histogram regressor": lambda: _sklearn(
        "ensemble", "HistGradientBoostingRegressor", _diabetes, max_iter=5, loss="squared_error"
    ),
    "histogram, categories": lambda: _sklearn(
        "ensemble",
        "HistGradientBoostingClassifier",
        codes,
        max_iter=5,
        categorical_features=[0, 1],
    ),
    "nearest neighbours": lambda: _sklearn("neighbors", "KNeighborsClassifier", _iris),
    "naive Bayes": lambda: _sklearn("naive_bayes", "GaussianNB", _iris),
    "discriminant": lambda: _sklearn(
        "discriminant_analysis", "LinearDiscriminantAnalysis", _cancer
    ),
    "perceptron": lambda: _sklearn(
        "neural_network", "MLPRegressor", _targets, hidden_layer_sizes=(4,), max_iter=50
    ),
    "k-means": lambda: _sklearn("cluster", "KMeans", _iris, n_clusters=3, n_init=1),
    "k-means in float32": lambda: _sklearn(
        "cluster", "KMeans", _narrow_iris, n_clusters=3, n_init=1
    ),
    "mixture": lambda: _sklearn("mixture", "GaussianMixture", _iris, n_components=2),
    "isolation forest": lambda: _sklearn("ensemble", "IsolationForest", _iris, n_estimators=10),
    "local outliers": lambda: _sklearn("neighbors", "LocalOutlierFactor", _iris, novelty=True),
    "voting": _voting,
    "words": _words,
    "table": lambda: _table("logistic"),
    "table, forest": lambda: _table("forest"),
    "table, sparse, XGBoost": lambda: _table("xgboost", sparse=1.0),
    "table, LightGBM": lambda: _table("lightgbm"),
    "table, ordinal, histogram": _ordinal,
    "scaled XGBoost": lambda: _scaled("xgboost"),
    "scaled LightGBM": lambda: _scaled("lightgbm"),
    "scaled histogram": lambda: _scaled("histogram"),
    "scaled forest": lambda: _scaled("forest"),
    "XGBoost": lambda: _xgboost("XGBClassifier", with_missing),
    "XGBoost, 3 classes": lambda: _xgboost("XGBClassifier", _iris),
    "XGBoost regressor": lambda: _xgboost("XGBRegressor", _diabetes, objective="count:poisson"),
    "XGBoost, 2 targets": lambda: _xgboost("XGBRegressor", _targets),
    "XGBoost forest": lambda: _xgboost("XGBRFClassifier", _cancer),
    "XGBoost forest, 3 classes": lambda: _xgboost("XGBRFClassifier", _iris),
    "XGBoost dart": lambda: _xgboost("XGBClassifier", _cancer, booster="dart", rate_drop=0.3),
    "XGBoost, categories": lambda: _xgboost(
        "XGBClassifier",
        codes,
        feature_types=["c", "c", "q"],
        enable_categorical=True,
        max_cat_to_onehot=2,
    ),
    "XGBoost ranker": _ranker,
    "XGBoost, stopped early": _stopped_early,
    "LightGBM": lambda: _lightgbm("LGBMClassifier", with_missing),
    "LightGBM, 3 classes": lambda: _lightgbm("LGBMClassifier", _iris),
    "LightGBM, one against all": lambda: _lightgbm(
        "LGBMClassifier", _iris, objective="multiclassova"
    ),
    "LightGBM regressor": lambda: _lightgbm("LGBMRegressor", _diabetes, reg_sqrt=True),
    "LightGBM forest": lambda: _lightgbm(
        "LGBMClassifier", _cancer, boosting_type="rf", bagging_freq=1, bagging_fraction=0.5
    ),
    "LightGBM, categories": _lightgbm_codes,
    "LightGBM, bool labels": _bool_labels,
}
"""All of these convert."""
