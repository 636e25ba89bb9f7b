"""scikit-learn's HistGradientBoosting as an ensemble of trees."""

from typing import Any

from optimizer.converters.tree_ensemble import Ending, Ensemble, Split, Trees
from optimizer.errors import ConversionError
from protos.tensors import Array

_WORD_BITS = 32


def histogram_ensemble(estimator: Any, labels: Array | None, is_double: bool = False) -> Ensemble:
    """The trees of a fitted HistGradientBoostingClassifier or -Regressor.

    Its features are those behind its own encoder, where it has categorical ones.

    Raises:
        ConversionError: a loss that is not known.
    """
    base = tuple(float(value) for value in estimator._baseline_prediction.ravel())
    trees = Trees()
    count = 0
    for step in estimator._predictors:
        for target, predictor in enumerate(step):
            _add(trees, count, predictor, target)
            count += 1
    ending = "softmax" if labels is not None else _ending(estimator)
    return Ensemble(trees, estimator.n_features_in_, base, ending, labels, is_double)


def _ending(estimator: Any) -> Ending:
    link = type(estimator._loss.link).__name__
    if link not in ("IdentityLink", "LogLink"):
        raise ConversionError(f"HistGradientBoosting's link '{link}' has no ONNX form")
    return "identity" if link == "IdentityLink" else "exp"


def _add(trees: Trees, index: int, predictor: Any, target: int) -> None:
    free = len(predictor.nodes)
    for number, node in enumerate(predictor.nodes):
        if node["is_leaf"]:
            trees.leaf(index, number, (target, float(node["value"])))
            continue
        feature, missing_then = int(node["feature_idx"]), bool(node["missing_go_to_left"])
        then, otherwise = int(node["left"]), int(node["right"])
        threshold = float(node["num_threshold"])
        split = Split(feature, threshold, then, otherwise, missing_then)
        if node["is_categorical"]:
            categories = _bits(predictor.raw_left_cat_bitsets[node["bitset_idx"]])
            free = trees.member(index, number, split, categories, free_node=free)
        else:
            trees.split(index, number, split)


def _bits(words: Array) -> list[float]:
    """The categories in a set of bits."""
    return [
        float(index * _WORD_BITS + bit)
        for index, word in enumerate(words.tolist())
        for bit in range(_WORD_BITS)
        if word >> bit & 1
    ]
