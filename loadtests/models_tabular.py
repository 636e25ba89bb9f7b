"""Fitted models of tables, as scikit-learn, XGBoost and LightGBM users have them.

Trained on data sets that ship inside scikit-learn, in a second or less each. Nothing is downloaded.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from lightgbm import LGBMClassifier, LGBMRegressor
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR, LinearSVC
from sklearn.tree import DecisionTreeClassifier
from xgboost import XGBClassifier, XGBRegressor


@dataclass(frozen=True, slots=True)
class Table:
    """Rows to train on, and rows the model has not seen."""

    x: NDArray[np.float32]
    y: NDArray[Any]
    held_out: NDArray[np.float32]
    truth: NDArray[Any]


def table(load: Callable[..., Any]) -> Table:
    """Two thirds for training, in a fixed order."""
    x, y = load(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order].astype(np.float32), y[order]
    split = 2 * len(x) // 3
    return Table(x[:split], y[:split], x[split:], y[split:])


DIGITS, CANCER, DIABETES = load_digits, load_breast_cancer, load_diabetes

MODELS: Mapping[str, tuple[Any, Callable[..., Any]]] = {
    "scaler, logistic regression": (
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        CANCER,
    ),
    "logistic regression, 10 classes": (LogisticRegression(max_iter=1000), DIGITS),
    "SGD": (make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss")), CANCER),
    "linear SVC": (make_pipeline(StandardScaler(), LinearSVC()), CANCER),
    "SVC": (make_pipeline(StandardScaler(), SVC()), DIGITS),
    "naive Bayes": (GaussianNB(), DIGITS),
    "nearest neighbours": (KNeighborsClassifier(5), DIGITS),
    "decision tree": (DecisionTreeClassifier(max_depth=8), DIGITS),
    "random forest, 100 trees": (RandomForestClassifier(100, random_state=0), DIGITS),
    "extra trees": (ExtraTreesClassifier(100, random_state=0), DIGITS),
    "gradient boosting": (GradientBoostingClassifier(n_estimators=50), CANCER),
    "histogram gradient boosting": (HistGradientBoostingClassifier(max_iter=50), DIGITS),
    "neural network": (
        make_pipeline(StandardScaler(), MLPClassifier((64,), max_iter=200)),
        DIGITS,
    ),
    "PCA, logistic regression": (
        make_pipeline(StandardScaler(), PCA(20), LogisticRegression(max_iter=1000)),
        DIGITS,
    ),
    "stacking": (
        StackingClassifier(
            [("tree", DecisionTreeClassifier(max_depth=4)), ("bayes", GaussianNB())],
            LogisticRegression(),
        ),
        CANCER,
    ),
    "voting": (
        VotingClassifier(
            [("tree", DecisionTreeClassifier(max_depth=4)), ("bayes", GaussianNB())],
            voting="soft",
        ),
        CANCER,
    ),
    "k-means": (KMeans(10, n_init=1, random_state=0), DIGITS),
    "linear regression": (LinearRegression(), DIABETES),
    "ridge": (make_pipeline(StandardScaler(), Ridge()), DIABETES),
    "SVR": (make_pipeline(StandardScaler(), SVR()), DIABETES),
    "random forest regressor": (RandomForestRegressor(100, random_state=0), DIABETES),
    "gradient boosting regressor": (GradientBoostingRegressor(n_estimators=50), DIABETES),
    "histogram boosting regressor": (HistGradientBoostingRegressor(max_iter=50), DIABETES),
    "Gaussian process": (GaussianProcessRegressor(alpha=1e-2), DIABETES),
    "XGBoost": (XGBClassifier(n_estimators=60, n_jobs=1), DIGITS),
    "XGBoost regressor": (XGBRegressor(n_estimators=60, n_jobs=1), DIABETES),
    "scaler, XGBoost": (
        make_pipeline(StandardScaler(), XGBClassifier(n_estimators=60, n_jobs=1)),
        CANCER,
    ),
    "LightGBM": (LGBMClassifier(n_estimators=60, n_jobs=1, verbose=-1), DIGITS),
    "LightGBM regressor": (LGBMRegressor(n_estimators=60, n_jobs=1, verbose=-1), DIABETES),
}
"""By name: what is fitted, and on which data set."""


def fitted(name: str) -> tuple[Any, Table]:
    """One of the models, trained."""
    model, load = MODELS[name]
    rows = table(load)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 200 epochs are enough here
        return model.fit(rows.x, rows.y), rows
