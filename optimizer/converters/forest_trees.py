"""scikit-learn's trees and forests as ensembles of trees: they take missing values, too."""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from optimizer.converters.tree_ensemble import Ending, Ensemble, Split, Trees, ensemble_model
from protos.tensors import Array

_FORESTS = (
    "DecisionTreeClassifier",
    "DecisionTreeRegressor",
    "ExtraTreeClassifier",
    "ExtraTreeRegressor",
    "RandomForestClassifier",
    "RandomForestRegressor",
    "ExtraTreesClassifier",
    "ExtraTreesRegressor",
)


def is_forest(estimator: Any) -> bool:
    """Whether `forest_ensemble` reads it: one target, or several of a regressor."""
    if type(estimator).__name__ not in _FORESTS:
        return False
    classes = getattr(estimator, "classes_", None)
    return classes is None or (isinstance(classes, np.ndarray) and len(classes) > 1)


def forest_ensemble(estimator: Any, labels: Array | None) -> Ensemble:
    """The trees, each with its share of the mean."""
    members = getattr(estimator, "estimators_", [estimator])
    trees = Trees()
    for index, member in enumerate(members):
        values = member.tree_.value / len(members)
        # Of classes the leaves have shares; of two, that of the second is enough.
        table = values[:, :, 0] if labels is None else values[:, 0, :]
        if labels is not None and len(labels) == 2:
            table = table[:, 1:]
        _add(trees, index, member.tree_, table)
    sums = table.shape[1]
    ending: Ending = "identity" if labels is None else "shares"
    return Ensemble(trees, estimator.n_features_in_, (0.0,) * sums, ending, labels)


def isolation_model(estimator: Any, opset: int) -> onnx.ModelProto:
    """An IsolationForest: X [batch, features] -> label [batch], scores [batch]."""
    trees = Trees()
    for index, member in enumerate(estimator.estimators_):
        lengths = estimator._decision_path_lengths[index]
        beyond = estimator._average_path_length_per_tree[index]
        depths = (lengths + beyond - 1.0).reshape(-1, 1)
        _add(trees, index, member.tree_, depths, estimator.estimators_features_[index])
    model = ensemble_model(Ensemble(trees, estimator.n_features_in_, (0.0,), "identity"), opset)
    _score(model.graph, _usual_depth(estimator), float(estimator.offset_))
    return model


def _usual_depth(estimator: Any) -> float:
    """Sum over the trees of the depth at which a usual row is isolated."""
    from sklearn.ensemble._iforest import _average_path_length  # noqa: PLC0415

    depth = float(_average_path_length([estimator._max_samples])[0])
    return len(estimator.estimators_) * depth or 1.0


def _score(graph: onnx.GraphProto, usual_depth: float, offset: float) -> None:
    """scores = -2 ** (-depth / usual depth) - offset; the label is -1 where they are negative."""
    constants = {
        "rate": np.float32(-np.log(2.0) / usual_depth),
        "offset": np.float32(-offset),
        "limit": np.float32(0),
        "outlier": np.int64(-1),
        "inlier": np.int64(1),
    }
    for name, value in constants.items():
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    for operator, inputs, output in (
        ("Mul", ["prediction", "rate"], "exponent"),
        ("Exp", ["exponent"], "anomaly"),
        ("Sub", ["offset", "anomaly"], "scores"),
        ("Less", ["scores", "limit"], "is_outlier"),
        ("Where", ["is_outlier", "outlier", "inlier"], "label"),
    ):
        graph.node.append(helper.make_node(operator, inputs, [output]))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("label", TensorProto.INT64, ["batch"]))
    graph.output.append(helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch"]))


def _add(trees: Trees, index: int, tree: Any, values: Array, columns: Array | None = None) -> None:
    """One tree; `values` are its leaves' by node, `columns` what its features are in the whole."""
    for node, then in enumerate(tree.children_left.tolist()):
        if then < 0:
            trees.leaf(index, node, *enumerate(values[node].tolist()))
            continue
        feature = int(tree.feature[node])
        split = Split(
            feature if columns is None else int(columns[feature]),
            float(tree.threshold[node]),
            then,
            int(tree.children_right[node]),
            bool(tree.missing_go_to_left[node]),
        )
        trees.split(index, node, split)
