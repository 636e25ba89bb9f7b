"""Where the trees of a fitted model split: feature -> thresholds. Read, never changed."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from protos.tensors import Array

Thresholds = Mapping[int, Array]
"""By feature: float64[n], sorted, each once."""


def thresholds_of(estimator: Any) -> Thresholds:
    """Of trees, forests, boosters and whatever is made of them; empty for all others."""
    return sorted_thresholds(_splits(estimator))


def categories_of(estimator: Any) -> Thresholds:
    """The codes that boosters with categorical features ask for."""
    if hasattr(estimator, "get_booster"):
        return sorted_thresholds(xgboost_categories(estimator.get_booster()))
    if hasattr(estimator, "booster_"):
        return sorted_thresholds(lightgbm_categories(estimator.booster_.dump_model()))
    return {}


def sorted_thresholds(splits: Iterable[tuple[int, float]]) -> Thresholds:
    """By feature, each once."""
    found: dict[int, list[float]] = defaultdict(list)
    for feature, value in splits:
        found[int(feature)].append(float(value))
    return {
        feature: values
        for feature, raw in found.items()
        if len(values := np.unique(np.asarray([v for v in raw if np.isfinite(v)])))
    }


def xgboost_splits(booster: Any) -> Iterable[tuple[int, float]]:
    """Of numbers: (feature, threshold)."""
    for tree in _xgboost_trees(booster):
        categorical = set(tree.get("categories_nodes", ()))
        for node, left in enumerate(tree["left_children"]):
            if left >= 0 and node not in categorical:
                yield tree["split_indices"][node], tree["split_conditions"][node]


def xgboost_categories(booster: Any) -> Iterable[tuple[int, float]]:
    """Of categorical features: (feature, code)."""
    for tree in _xgboost_trees(booster):
        starts, sizes = tree.get("categories_segments", ()), tree.get("categories_sizes", ())
        nodes = tree.get("categories_nodes", ())
        for node, start, size in zip(nodes, starts, sizes, strict=True):
            for category in tree["categories"][start : start + size]:
                yield tree["split_indices"][node], category


def lightgbm_splits(dump: Mapping[str, Any]) -> Iterable[tuple[int, float]]:
    """Of numbers: (feature, threshold)."""
    for node in _lightgbm_nodes(dump):
        if node["decision_type"] != "==":
            yield node["split_feature"], node["threshold"]


def lightgbm_categories(dump: Mapping[str, Any]) -> Iterable[tuple[int, float]]:
    """Of categorical features: (feature, code)."""
    for node in _lightgbm_nodes(dump):
        if node["decision_type"] == "==":
            for text in str(node["threshold"]).split("||"):
                yield node["split_feature"], float(text)


def _xgboost_trees(booster: Any) -> list[Any]:
    model = json.loads(bytes(booster.save_raw("json")))["learner"]["gradient_booster"]
    return list(model.get("gbtree", model).get("model", {}).get("trees", ()))


def _lightgbm_nodes(dump: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    pending = [tree["tree_structure"] for tree in dump["tree_info"]]
    while pending:
        node = pending.pop()
        if "split_feature" in node:
            yield node
            pending += [node["left_child"], node["right_child"]]


def _splits(estimator: Any) -> Iterable[tuple[int, float]]:
    if hasattr(estimator, "get_booster"):
        yield from xgboost_splits(estimator.get_booster())
    elif hasattr(estimator, "booster_"):
        yield from lightgbm_splits(estimator.booster_.dump_model())
    elif hasattr(estimator, "tree_") and hasattr(estimator.tree_, "feature"):
        is_inner = estimator.tree_.feature >= 0
        features = estimator.tree_.feature[is_inner]
        yield from zip(features, estimator.tree_.threshold[is_inner], strict=True)
    elif hasattr(estimator, "_predictors"):  # HistGradientBoosting
        yield from _histogram_splits(estimator)
    else:
        yield from _ensemble_splits(estimator)


def _histogram_splits(estimator: Any) -> Iterable[tuple[int, float]]:
    for predictor in (tree for step in estimator._predictors for tree in step):
        inner = predictor.nodes[predictor.nodes["is_leaf"] == 0]
        yield from zip(inner["feature_idx"], inner["num_threshold"], strict=True)


def _ensemble_splits(estimator: Any) -> Iterable[tuple[int, float]]:
    members = getattr(estimator, "estimators_", ())
    seen = getattr(estimator, "estimators_features_", None)  # of bagging: a choice of columns
    if isinstance(members, np.ndarray):
        members = members.ravel()
    for index, member in enumerate(members):
        if isinstance(member, str) or hasattr(member, "steps"):
            continue
        for feature, value in _splits(member):
            yield (feature if seen is None else seen[index][feature]), value
    for name in ("estimator_", "calibrated_classifiers_"):
        inner = getattr(estimator, name, ())
        for member in inner if isinstance(inner, list) else [inner]:
            member = getattr(member, "estimator", member)  # noqa: PLW2901
            if member != () and not hasattr(member, "steps"):
                yield from _splits(member)
