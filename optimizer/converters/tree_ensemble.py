"""Boosted trees as an ONNX model: what XGBoost's, LightGBM's and scikit-learn's have in common.

Written here and not by a converter library because exactness is in the details: a float32 input
has to fall on the same side of every threshold, missing values have to take the same way, and the
label of a binary model must not depend on whether all its leaves are positive.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from protos.tensors import Array

Ending = Literal[
    "identity", "sigmoid", "exp", "signed_square", "positive", "softmax", "each", "shares"
]
"""What is made of the sums. For classes: "softmax" (of one sum a sigmoid), "each" (a sigmoid for
each class), "shares" (they are the probabilities)."""

_NOTHING = 1e-30  # in any sum of float32
ML_OPSET = 3  # the first whose tree operators take float64


@dataclass(frozen=True, slots=True)
class Split:
    """A node that goes to the node `then` where `x[feature] <mode> threshold` holds."""

    feature: int
    threshold: float
    then: int
    otherwise: int
    missing_then: bool = False  # where NaN goes
    mode: str = "BRANCH_LEQ"


_LEAF = Split(0, 0.0, 0, 0, mode="LEAF")


@dataclass(slots=True)
class Trees:
    """Nodes and leaves of all trees; node ids are unique within a tree."""

    nodes: list[tuple[int, int, Split]] = field(default_factory=list)  # tree, node
    leaves: list[tuple[int, int, int, float]] = field(default_factory=list)

    def split(self, tree: int, node: int, split: Split) -> None:
        self.nodes.append((tree, node, split))

    def member(
        self, tree: int, node: int, split: Split, categories: Sequence[float], *, free_node: int
    ) -> int:
        """A node that goes to `then` where the category is one of a set; the next free node id.

        The set becomes a chain of nodes that ask for one category each.
        """
        values = list(categories) or [-1.0]  # no category is negative: an empty set
        for value in values[:-1]:
            asked = replace(split, threshold=value, otherwise=free_node, mode="BRANCH_EQ")
            self.split(tree, node, asked)
            node, free_node = free_node, free_node + 1
        self.split(tree, node, replace(split, threshold=values[-1], mode="BRANCH_EQ"))
        return free_node

    def leaf(self, tree: int, node: int, *weights: tuple[int, float]) -> None:
        """What it adds to which sums; nothings are left out, but one has to be there."""
        self.nodes.append((tree, node, _LEAF))
        kept = [pair for pair in weights if pair[1]] or weights[:1]
        self.leaves += [(tree, node, target, weight) for target, weight in kept]


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Trees, what is added to their sums, and what is made of that."""

    trees: Trees
    features: int
    base: tuple[float, ...]  # one for each sum
    ending: Ending
    labels: Array | None = None  # of classifiers: INT64 or object of bytes
    is_double: bool = False  # inputs and thresholds are float64


def ensemble_model(ensemble: Ensemble, opset: int) -> onnx.ModelProto:
    """The ensemble as a model: X [batch, features] -> label, probabilities; or prediction."""
    element = TensorProto.DOUBLE if ensemble.is_double else TensorProto.FLOAT
    inputs = [helper.make_tensor_value_info("X", element, ["batch", ensemble.features])]
    if ensemble.labels is None:
        nodes, outputs, constants = _regressor(ensemble)
    else:
        nodes, outputs, constants = _classifier(ensemble, ensemble.labels)
    graph = helper.make_graph(nodes, "trees", inputs, outputs, constants)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    return helper.make_model(
        graph, opset_imports=imports, ir_version=helper.find_min_ir_version_for(imports)
    )


def _classifier(ensemble: Ensemble, labels: Array) -> tuple[list[Any], list[Any], list[Any]]:
    is_text = labels.dtype.kind == "O"
    if ensemble.ending != "shares":
        ensemble = _with_negative_leaf(ensemble)
    named = {"classlabels_strings" if is_text else "classlabels_int64s": labels.tolist()}
    node = helper.make_node(
        "TreeEnsembleClassifier",
        ["X"],
        ["label", "probabilities"],
        domain="ai.onnx.ml",
        post_transform=_post_transform(ensemble),
        **named,
        **_attributes(ensemble, "class"),
    )
    kind = TensorProto.STRING if is_text else TensorProto.INT64
    outputs = [
        helper.make_tensor_value_info("label", kind, ["batch"]),
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", len(labels)]),
    ]
    return [node], outputs, []


def _post_transform(ensemble: Ensemble) -> str:
    if ensemble.ending == "shares":
        return "NONE"
    return "SOFTMAX" if len(ensemble.base) > 1 and ensemble.ending == "softmax" else "LOGISTIC"


def _regressor(ensemble: Ensemble) -> tuple[list[Any], list[Any], list[Any]]:
    count = len(ensemble.base)
    trees = helper.make_node(
        "TreeEnsembleRegressor",
        ["X"],
        ["sums"],
        domain="ai.onnx.ml",
        n_targets=count,
        **_attributes(ensemble, "target"),
    )
    nodes = [trees, *_ending(ensemble.ending)]
    if count > 1:
        nodes[-1].output[0] = "prediction"
        shape: list[str | int] = ["batch", count]
        constants = []
    else:
        nodes.append(helper.make_node("Reshape", [nodes[-1].output[0], "flat"], ["prediction"]))
        shape = ["batch"]
        constants = [numpy_helper.from_array(np.array([-1], np.int64), "flat")]
    output = helper.make_tensor_value_info("prediction", TensorProto.FLOAT, shape)
    return nodes, [output], constants


def _ending(ending: Ending) -> list[Any]:
    if ending == "sigmoid":
        return [helper.make_node("Sigmoid", ["sums"], ["ended"])]
    if ending == "exp":
        return [helper.make_node("Exp", ["sums"], ["ended"])]
    if ending == "signed_square":
        return [
            helper.make_node("Abs", ["sums"], ["size"]),
            helper.make_node("Mul", ["sums", "size"], ["ended"]),
        ]
    if ending == "positive":
        return [
            helper.make_node("Sign", ["sums"], ["sign"]),
            helper.make_node("Relu", ["sign"], ["ended"]),
        ]
    return []


def _with_negative_leaf(ensemble: Ensemble) -> Ensemble:
    """Of two classes: an ensemble where some leaf is negative.

    Where none is, the operator takes the sum for a probability, and the label turns at 0.5.
    """
    trees = ensemble.trees
    if len(ensemble.base) > 1 or min(leaf[3] for leaf in trees.leaves) < 0:
        return ensemble
    tree = 1 + max(leaf[0] for leaf in trees.leaves)
    more = Trees(list(trees.nodes), list(trees.leaves))
    more.leaf(tree, 0, (0, -_NOTHING))
    return replace(ensemble, trees=more)


def _attributes(ensemble: Ensemble, kind: str) -> dict[str, Any]:
    trees, nodes, splits = zip(*ensemble.trees.nodes, strict=True)
    leaf_trees, leaf_nodes, targets, weights = zip(*ensemble.trees.leaves, strict=True)
    values = [_threshold(split, ensemble.is_double) for split in splits]
    numbers: dict[str, Sequence[float]] = {"nodes_values": values, f"{kind}_weights": weights}
    if any(ensemble.base):
        numbers["base_values"] = ensemble.base
    return {
        "nodes_treeids": trees,
        "nodes_nodeids": nodes,
        "nodes_featureids": [split.feature for split in splits],
        "nodes_modes": [split.mode for split in splits],
        "nodes_truenodeids": [split.then for split in splits],
        "nodes_falsenodeids": [split.otherwise for split in splits],
        "nodes_missing_value_tracks_true": [int(split.missing_then) for split in splits],
        f"{kind}_treeids": leaf_trees,
        f"{kind}_nodeids": leaf_nodes,
        f"{kind}_ids": targets,
    } | (_as_tensors(numbers) if ensemble.is_double else _as_floats(numbers))


def _as_floats(numbers: dict[str, Sequence[float]]) -> dict[str, Any]:
    return {name: [float(value) for value in values] for name, values in numbers.items()}


def _as_tensors(numbers: dict[str, Sequence[float]]) -> dict[str, Any]:
    return {
        f"{name}_as_tensor": numpy_helper.from_array(np.asarray(values, np.float64), name)
        for name, values in numbers.items()
    }


def _threshold(split: Split, is_double: bool) -> float:
    """For float32: the largest not above, as `x <= threshold` then holds for the same x."""
    if is_double or split.mode != "BRANCH_LEQ":
        return split.threshold
    with np.errstate(over="ignore"):
        value = np.float32(split.threshold)
    if float(value) > split.threshold:  # numpy would compare as float32
        value = np.nextafter(value, np.float32(-np.inf))
    return float(value)
