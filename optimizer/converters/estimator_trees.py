"""Fitted estimators that are trees, as ONNX models: one place that knows them all."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

from optimizer.converters.forest_trees import forest_ensemble, is_forest, isolation_model
from optimizer.converters.histogram_trees import histogram_ensemble
from optimizer.converters.lightgbm_to_onnx import lightgbm_ensemble
from optimizer.converters.tree_ensemble import ensemble_model
from optimizer.converters.xgboost_to_onnx import xgboost_ensemble
from optimizer.frameworks.xgboost_model import best_iterations_of
from protos.tensors import Array

Maker = Callable[[int, bool], onnx.ModelProto]
"""(opset, is_double) -> a model of X FP32 or FP64 [batch, features]."""


def maker_of(estimator: Any) -> Maker | None:
    """How an estimator's trees become a model; None where it is none of these."""
    labels = labels_of(estimator)
    if hasattr(estimator, "get_booster"):
        rounds, booster = best_iterations_of(estimator), estimator.get_booster()
        return lambda opset, _: ensemble_model(xgboost_ensemble(booster, rounds, labels), opset)
    if hasattr(estimator, "booster_"):
        return lambda opset, is_double: ensemble_model(
            lightgbm_ensemble(estimator.booster_, labels, is_double), opset
        )
    if hasattr(estimator, "_predictors") and hasattr(estimator, "_baseline_prediction"):
        return lambda opset, is_double: ensemble_model(
            histogram_ensemble(estimator, labels, is_double), opset
        )
    if is_forest(estimator):
        return lambda opset, _: ensemble_model(forest_ensemble(estimator, labels), opset)
    if type(estimator).__name__ == "IsolationForest":
        return lambda opset, _: isolation_model(estimator, opset)
    return None


def rounds_itself(estimator: Any) -> bool:
    """Whether it makes float32 of what it is given: its thresholds are for that."""
    return not (hasattr(estimator, "booster_") or hasattr(estimator, "_predictors"))


def labels_of(estimator: Any) -> Array | None:
    """A classifier's classes as ONNX has them, INT64 or bytes; None for others."""
    classes = getattr(estimator, "classes_", None)
    if not isinstance(classes, np.ndarray) and classes is not None:
        classes = np.asarray(classes) if not isinstance(classes, list) else None
    if classes is None:
        return None
    if classes.dtype.kind in "biuf":
        return classes.astype(np.int64)
    texts = np.empty(len(classes), dtype=object)
    texts[:] = [str(label).encode() for label in classes]
    return texts
