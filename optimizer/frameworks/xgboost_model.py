"""XGBoost's own files: .ubj and .json."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from optimizer.errors import SourceError
from optimizer.frameworks.booster import BoosterModel
from optimizer.frameworks.thresholds import sorted_thresholds, xgboost_categories, xgboost_splits
from optimizer.samples import Samples
from optimizer.source import SourceModel
from protos.tensors import Array

_BINARY = ("binary:logistic",)
_SEVERAL = ("multi:softprob", "multi:softmax")


class XGBoostModel(BoosterModel):
    """A booster; `iterations` are the rounds that count, None for all."""

    def __init__(self, booster: Any) -> None:
        self.booster = booster
        self.iterations = _best_iterations(booster)
        objective = json.loads(booster.save_config())["learner"]["objective"]["name"]
        self._is_softmax = objective in _SEVERAL
        splits = sorted_thresholds(xgboost_splits(booster))
        categories = sorted_thresholds(xgboost_categories(booster))
        labels = labels_of(booster, objective)
        super().__init__(self._run, booster.num_features(), labels, splits, categories)

    def _run(self, matrix: Array) -> Array:
        rounds = (0, self.iterations or 0)
        if not self._is_softmax:
            return np.asarray(self._predicted(matrix, rounds, "value"))
        margins = np.asarray(self._predicted(matrix, rounds, "margin"), np.float32)
        powers = np.exp(margins - margins.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))

    def _predicted(self, matrix: Array, rounds: tuple[int, int], kind: str) -> Any:
        # The names of features are not looked at: they came with the training table.
        return self.booster.inplace_predict(
            matrix, iteration_range=rounds, predict_type=kind, validate_features=False
        )


def load(path: Path, samples: Samples | None = None) -> XGBoostModel:
    """Opens a file that `Booster.save_model` or a classifier's `save_model` wrote.

    Raises:
        SourceError: it is none.
    """
    import xgboost  # noqa: PLC0415

    try:
        booster = xgboost.Booster(model_file=str(path))
    except (xgboost.core.XGBoostError, ValueError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise SourceError(f"'{path}' is no XGBoost model: {first_line}") from None
    return XGBoostModel(booster)


def save(model: Any, folder: Path) -> SourceModel:
    """Writes a Booster, or an estimator around one, as "model.ubj"."""
    path = folder / "model.ubj"
    model.save_model(path)
    return SourceModel(path, "xgboost")


def labels_of(booster: Any, objective: str) -> Array | None:
    """The classes 0, 1, ... of a classifier; None for others."""
    if objective in _BINARY:
        return np.arange(2, dtype=np.int64)
    if objective not in _SEVERAL:
        return None
    parameters = json.loads(booster.save_config())["learner"]["learner_model_param"]
    return np.arange(int(parameters["num_class"]), dtype=np.int64)


def best_iterations_of(estimator: Any) -> int | None:
    """How many rounds an estimator predicts with; None: all."""
    best = getattr(estimator, "best_iteration", None) if _stops_early(estimator) else None
    return None if best is None else int(best) + 1


def _stops_early(estimator: Any) -> bool:
    return estimator.get_booster().attr("best_iteration") is not None


def _best_iterations(booster: Any) -> int | None:
    """As a classifier predicts that was saved with early stopping; a bare booster uses all."""
    best = booster.attr("best_iteration")
    is_estimator = booster.attr("scikit_learn") is not None
    return int(best) + 1 if best is not None and is_estimator else None
