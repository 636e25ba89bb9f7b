"""Fitted objects with scikit-learn's interface: pipelines, classifiers, XGBClassifier."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from optimizer.errors import SourceError
from optimizer.frameworks.columns import Table, table_of
from optimizer.frameworks.contract import Task
from optimizer.frameworks.estimator_file import read_estimator, write_estimator
from optimizer.frameworks.typical_rows import typical_table
from optimizer.samples import Samples
from optimizer.source import SourceModel
from protos.signature import Signature, TensorSpec
from protos.tensors import Array, datatype_of

_PROBE_ROWS = 3  # not 1 and not 2: a dimension of that length is the batch

_LABEL_IS_LIKELIEST = (
    "RandomForestClassifier",
    "ExtraTreesClassifier",
    "DecisionTreeClassifier",
    "ExtraTreeClassifier",
    "BaggingClassifier",
    "XGBClassifier",
    "XGBRFClassifier",
    "LGBMClassifier",
)
"""Their `predict` is the first largest of `predict_proba`: running it once is enough."""


_RANKERS = ("LGBMRanker", "XGBRanker", "PLSRegression", "PLSCanonical", "CCA")
"""They predict numbers and do not call themselves regressors."""


class EstimatorModel:
    """A fitted object; inputs as its training table had them, outputs by its kind."""

    def __init__(self, estimator: Any, samples: Samples | None = None) -> None:
        self.estimator = estimator
        self.task = task_of(estimator)
        self.table: Table = table_of(estimator, samples)
        self._is_likeliest = type(last_step(estimator)).__name__ in _LABEL_IS_LIKELIEST
        self.signature = self._probe()

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        rows = self.table.read(inputs)
        if self.task == "regression":
            return {"prediction": _float32(self.estimator.predict(rows))}
        if hasattr(self.estimator, "predict"):
            return self._labels_and_scores(rows)
        return {"transformed": _float32(_dense(self.estimator.transform(rows)))}

    def typical_rows(self, rows: int, seed: int) -> Samples:
        table = typical_table(self.estimator, self.table, rows, seed)
        return Samples(self._accepted(table), is_real=False, origin=f"{rows} rows made up")

    def _labels_and_scores(self, rows: Any) -> dict[str, Array]:
        scores = self._scores(rows)
        probabilities = scores.get("probabilities")
        if self._is_likeliest and probabilities is not None:
            classes = np.asarray(self.estimator.classes_)
            labels = classes.take(np.argmax(probabilities, axis=1))
        else:
            labels = self.estimator.predict(rows)
        narrow = {name: _float32(array) for name, array in scores.items()}
        return {"label": _label_array(labels)} | narrow

    def _scores(self, rows: Any) -> dict[str, Array]:
        if hasattr(self.estimator, "predict_proba"):
            found = self.estimator.predict_proba(rows)
            if isinstance(found, list):  # one array for each target
                return {f"probabilities_{i}": array for i, array in enumerate(found)}
            return {"probabilities": np.asarray(found)}
        if self.task == "clustering":
            has_distances = hasattr(last_step(self.estimator), "cluster_centers_")
            is_known = has_distances and hasattr(self.estimator, "transform")
            return {"scores": np.asarray(self.estimator.transform(rows))} if is_known else {}
        if not hasattr(self.estimator, "decision_function"):
            return {}
        scores = np.asarray(self.estimator.decision_function(rows))
        if self.task == "classification" and scores.ndim == 1:  # of the second class
            scores = np.stack([-scores, scores], axis=1)
        return {"scores": scores}

    def _probe(self) -> Signature:
        """Learns the outputs' types and shapes by one run."""
        table = typical_table(self.estimator, self.table, _PROBE_ROWS, 0)
        outputs = self.predict(self._accepted(table))
        return Signature(self.table.inputs(), tuple(map(_spec, outputs, outputs.values())))

    def _accepted(self, table: Array) -> dict[str, Array]:
        """The rows as inputs, without what this model does not take: missing values, unknowns."""
        error: Exception | None = None
        for rows in _milder(table):
            inputs = self.table.write(rows)
            try:
                self.predict(inputs)
            except (ValueError, TypeError) as caught:
                error = error or caught
                continue
            return inputs
        name = type(self.estimator).__name__
        raise SourceError(f"{name}: it answers no made-up rows: {error}") from error


def load(path: Path, samples: Samples | None = None) -> EstimatorModel:
    """Opens a .skops, .pkl or .joblib file.

    Raises:
        SourceError: it cannot be read, or holds nothing that is fitted and predicts.
    """
    return model_of(read_estimator(path), f"'{path}'", samples)


def model_of(estimator: Any, what: str, samples: Samples | None = None) -> EstimatorModel:
    """A fitted object as a model; `what` it is called in errors."""
    name = type(estimator).__name__
    if not (hasattr(estimator, "predict") or hasattr(estimator, "transform")):
        raise SourceError(f"{what} holds a {name}, expected a fitted model with `predict`")
    try:
        return EstimatorModel(estimator, samples)
    except AttributeError as error:  # what a fit would have set
        raise SourceError(f"{what} holds a {name} that is not fitted: {error}") from error


def save(model: Any, folder: Path) -> SourceModel:
    """Writes a fitted object into a folder.

    Raises:
        SourceError: it cannot be saved.
    """
    return write_estimator(model, folder)


def last_step(estimator: Any) -> Any:
    """The estimator that predicts: the end of pipelines, the best of searches."""
    while True:
        if hasattr(estimator, "steps"):
            estimator = estimator.steps[-1][1]
        elif hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        else:
            return estimator


def task_of(estimator: Any) -> Task:
    from sklearn import base  # noqa: PLC0415

    if base.is_classifier(estimator):
        return "classification"
    if base.is_regressor(estimator) or type(last_step(estimator)).__name__ in _RANKERS:
        return "regression"
    if not hasattr(estimator, "predict") or base.is_outlier_detector(estimator):
        return "other"
    return "clustering"


def _milder(table: Array) -> list[Array]:
    """The table, then without missing values, then without negative ones as well."""
    whole = table[~np.array([[_is_missing(v) for v in row] for row in table]).any(axis=1)]
    whole = whole if len(whole) else table
    positive = [[abs(v) if isinstance(v, float) else v for v in row] for row in whole]
    return [table, whole, np.array(positive, dtype=object)]


def _is_missing(value: object) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _spec(name: str, array: Array) -> TensorSpec:
    return TensorSpec(name, datatype_of(array), ("batch", *array.shape[1:]))


def _float32(values: Any) -> Array:
    return np.ascontiguousarray(values, dtype=np.float32)


def _dense(values: Any) -> Any:
    return values.toarray() if hasattr(values, "toarray") else values


def _label_array(labels: Any) -> Array:
    found: Array = np.asarray(labels)
    if found.dtype.kind in "biuf":
        return found.astype(np.int64)
    texts = np.empty(found.size, dtype=object)
    texts[:] = [str(label).encode() for label in found.ravel()]
    return texts.reshape(found.shape)
