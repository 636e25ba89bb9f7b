"""XGBoost to ONNX, from the model's own JSON: boosted trees, random forests and dart."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from optimizer.converters.contract import ConverterInput, ConverterResult
from optimizer.converters.tree_ensemble import Ending, Ensemble, Split, Trees, ensemble_model
from optimizer.converters.writing import finish
from optimizer.errors import ConversionError
from optimizer.frameworks.xgboost_model import load
from protos.tensors import Array

_SIGMOID = ("binary:logistic", "reg:logistic")
_EXPONENTIAL = ("count:poisson", "reg:gamma", "reg:tweedie", "survival:cox", "survival:aft")


def convert(given: ConverterInput) -> ConverterResult:
    """Converts a .ubj or .json file.

    Raises:
        ConversionError: a kind of booster without an ONNX form, or the result differs.
        SourceError: the file cannot be read.
    """
    native = load(given.source.path, given.samples)
    ensemble = xgboost_ensemble(native.booster, native.iterations, native.labels)
    return finish(given, native, [lambda: ensemble_model(ensemble, given.opset)])


def xgboost_ensemble(booster: Any, iterations: int | None, labels: Array | None) -> Ensemble:
    """A booster's trees.

    Args:
        booster: `xgboost.Booster`.
        iterations: How many of its rounds count; None: all.
        labels: Of a classifier.

    Raises:
        ConversionError: linear boosters, trees with several values in a leaf.
    """
    learner = json.loads(bytes(booster.save_raw("json")))["learner"]
    name = learner["gradient_booster"]["name"]
    if name not in ("gbtree", "dart"):
        raise ConversionError(f"XGBoost's booster '{name}' has no ONNX form")
    part = learner["gradient_booster"]
    scales = part.get("weight_drop")
    model = part.get("gbtree", part)["model"]
    count = len(model["trees"]) if iterations is None else model["iteration_indptr"][iterations]
    trees = Trees()
    for index in range(count):
        scale = 1.0 if scales is None else scales[index]
        _add(trees, index, model["trees"][index], model["tree_info"][index], scale)
    objective = learner["objective"]["name"]
    return Ensemble(
        trees,
        int(learner["learner_model_param"]["num_feature"]),
        _base(learner["learner_model_param"], objective, max(model["tree_info"]) + 1),
        _ending(objective, labels),
        labels,
    )


def _add(trees: Trees, index: int, tree: Mapping[str, Any], target: int, scale: float) -> None:
    if int(tree["tree_param"].get("size_leaf_vector", "1")) > 1:
        raise ConversionError("XGBoost's trees of several outputs a leaf have no ONNX form")
    left, right = tree["left_children"], tree["right_children"]
    categories = _categories(tree)
    free = len(left)
    for node, value in enumerate(tree["split_conditions"]):
        missing_left = bool(tree["default_left"][node])
        feature, then, otherwise = tree["split_indices"][node], left[node], right[node]
        if then < 0:
            trees.leaf(index, node, (target, float(np.float32(value) * np.float32(scale))))
        elif node in categories:  # those in the set go right
            split = Split(feature, 0.0, otherwise, then, not missing_left)
            free = trees.member(index, node, split, categories[node], free_node=free)
        else:
            split = Split(feature, value, then, otherwise, missing_left, "BRANCH_LT")
            trees.split(index, node, split)


def _categories(tree: Mapping[str, Any]) -> dict[int, Sequence[float]]:
    """By node: the categories that go right."""
    starts, sizes = tree.get("categories_segments", ()), tree.get("categories_sizes", ())
    return {
        node: [float(value) for value in tree["categories"][start : start + size]]
        for node, start, size in zip(tree.get("categories_nodes", ()), starts, sizes, strict=True)
    }


def _base(parameters: Mapping[str, Any], objective: str, sums: int) -> tuple[float, ...]:
    """What is added to the sums; the file has it in the scale of the prediction."""
    text = parameters["base_score"]
    values = json.loads(text) if text.startswith("[") else [float(text)]
    if objective in _SIGMOID:
        values = [-math.log(1 / value - 1) for value in values]
    elif objective in _EXPONENTIAL:
        values = [math.log(value) for value in values]
    return tuple(values * sums if len(values) == 1 else values)


def _ending(objective: str, labels: Array | None) -> Ending:
    if labels is not None:
        return "softmax"
    if objective in _SIGMOID:
        return "sigmoid"
    if objective in _EXPONENTIAL:
        return "exp"
    return "positive" if objective == "binary:hinge" else "identity"
