"""LightGBM to ONNX, from the model's own dump."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from optimizer.converters.contract import ConverterInput, ConverterResult
from optimizer.converters.tree_ensemble import Ending, Ensemble, Split, Trees, ensemble_model
from optimizer.converters.writing import finish
from optimizer.errors import ConversionError
from optimizer.frameworks.lightgbm_model import load, objective_of
from protos.tensors import Array

_Node = dict[str, Any]

_IDENTITY = (
    "regression",
    "regression_l1",
    "huber",
    "fair",
    "quantile",
    "mape",
    "lambdarank",
    "rank_xendcg",
    "custom",
)


def convert(given: ConverterInput) -> ConverterResult:
    """Converts a .txt file.

    Raises:
        ConversionError: an objective without an ONNX form, or the result differs.
        SourceError: the file cannot be read.
    """
    native = load(given.source.path, given.samples)
    ensemble = lightgbm_ensemble(native.booster, native.labels)
    return finish(given, native, [lambda: ensemble_model(ensemble, given.opset)])


def lightgbm_ensemble(booster: Any, labels: Array | None, is_double: bool = False) -> Ensemble:
    """A booster's trees.

    Args:
        booster: `lightgbm.Booster`; up to its best iteration, as it predicts.
        labels: Of a classifier.
        is_double: For float64 inputs; else thresholds are rounded so that float32 inputs take the
            same way.

    Raises:
        ConversionError: an objective that is not known.
    """
    dump = booster.dump_model()
    objective = objective_of(dump)
    sums = dump["num_tree_per_iteration"]
    # A random forest's trees are averaged.
    rounds = max(1, len(dump["tree_info"]) // sums) if dump.get("average_output") else 1
    scale = objective.scale / rounds
    trees = Trees()
    for index, tree in enumerate(dump["tree_info"]):
        _add(trees, index, tree["tree_structure"], index % sums, scale=scale)
    ending = _ending(objective.name, objective.is_root, labels)
    ensemble = Ensemble(trees, dump["max_feature_idx"] + 1, (0.0,) * sums, ending, labels)
    return replace(ensemble, is_double=is_double)


def _add(trees: Trees, index: int, root: _Node, target: int, *, scale: float) -> None:
    ids = {id(node): number for number, node in enumerate(_nodes(root))}
    free = len(ids)
    for node in _nodes(root):
        number = ids[id(node)]
        if "split_feature" not in node:
            trees.leaf(index, number, (target, node["leaf_value"] * scale))
            continue
        then, otherwise = ids[id(node["left_child"])], ids[id(node["right_child"])]
        split = Split(node["split_feature"], 0.0, then, otherwise)
        if node["decision_type"] == "==":
            categories = [float(text) for text in str(node["threshold"]).split("||")]
            free = trees.member(index, number, split, categories, free_node=free)
        else:
            missing_then = _missing_goes_left(node)
            threshold = node["threshold"]
            trees.split(
                index, number, replace(split, threshold=threshold, missing_then=missing_then)
            )


def _missing_goes_left(node: _Node) -> bool:
    if node["missing_type"] == "Zero":  # and 0 counts as missing
        raise ConversionError("LightGBM's zero_as_missing has no ONNX form")
    if node["missing_type"] == "None":  # then NaN counts as 0
        return bool(node["threshold"] >= 0)
    return bool(node["default_left"])


def _nodes(root: _Node) -> Iterator[_Node]:
    pending = [root]
    while pending:
        node = pending.pop()
        yield node
        if "split_feature" in node:
            pending += [node["right_child"], node["left_child"]]


def _ending(objective: str, is_root: bool, labels: Array | None) -> Ending:
    if labels is not None:
        return "each" if objective == "multiclassova" else "softmax"
    if objective in ("binary", "cross_entropy"):
        return "sigmoid"
    if objective in ("poisson", "gamma", "tweedie"):
        return "exp"
    if objective not in _IDENTITY:
        raise ConversionError(f"LightGBM's objective '{objective}' has no ONNX form")
    return "signed_square" if is_root else "identity"
