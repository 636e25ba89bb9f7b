"""XGBoost and LightGBM estimators inside scikit-learn ones, for skl2onnx: voting, stacking, ..."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

from optimizer.converters.lightgbm_to_onnx import lightgbm_ensemble
from optimizer.converters.tree_ensemble import Ensemble, ensemble_model
from optimizer.converters.xgboost_to_onnx import xgboost_ensemble
from optimizer.frameworks.xgboost_model import best_iterations_of
from protos.tensors import Array

_XGBOOST = ("XGBClassifier", "XGBRegressor", "XGBRFClassifier", "XGBRFRegressor", "XGBRanker")
_LIGHTGBM = ("LGBMClassifier", "LGBMRegressor", "LGBMRanker")


def estimator_ensemble(estimator: Any, is_double: bool = False) -> Ensemble:
    """The trees of a fitted XGBoost or LightGBM estimator."""
    labels = labels_of(estimator)
    if hasattr(estimator, "get_booster"):
        booster = estimator.get_booster()
        return xgboost_ensemble(booster, best_iterations_of(estimator), labels)
    return lightgbm_ensemble(estimator.booster_, labels, is_double)


def labels_of(estimator: Any) -> Array | None:
    """A classifier's classes as ONNX has them: INT64, or bytes."""
    classes = getattr(estimator, "classes_", None)
    if classes is None:
        return None
    classes = np.asarray(classes)
    if classes.dtype.kind in "biuf":
        return classes.astype(np.int64)
    texts = np.empty(len(classes), dtype=object)
    texts[:] = [str(label).encode() for label in classes]
    return texts


def register_boosters() -> None:
    """Makes skl2onnx know the estimators of those libraries that are loaded anyway."""
    import sys  # noqa: PLC0415

    for library, names in (("xgboost", _XGBOOST), ("lightgbm", _LIGHTGBM)):
        module = sys.modules.get(library)
        for name in names if module is not None else ():
            _register(getattr(module, name), name)


def _register(kind: type, name: str) -> None:
    from skl2onnx import update_registered_converter  # noqa: PLC0415

    is_classifier = name.endswith("Classifier")
    options = {"zipmap": [True, False, "columns"], "nocl": [True, False]}
    update_registered_converter(
        kind,
        f"Inflight{name}",
        _classifier_shapes if is_classifier else _regressor_shapes,
        _operator(),
        options=options if is_classifier else None,
    )


def _classifier_shapes(operator: Any) -> None:
    from skl2onnx.common.shape_calculator import (  # noqa: PLC0415
        calculate_linear_classifier_output_shapes,
    )

    calculate_linear_classifier_output_shapes(operator)


def _regressor_shapes(operator: Any) -> None:
    from skl2onnx.common.data_types import FloatTensorType  # noqa: PLC0415

    operator.outputs[0].type = FloatTensorType([operator.inputs[0].get_first_dimension(), 1])


def _operator() -> Callable[[Any, Any, Any], None]:
    def add(scope: Any, operator: Any, container: Any) -> None:
        model = ensemble_model(
            estimator_ensemble(operator.raw_operator), container.target_opset_any_domain("")
        )
        _splice(model.graph, scope, operator, container)

    return add


def _splice(graph: onnx.GraphProto, scope: Any, operator: Any, container: Any) -> None:
    """Puts a graph with the input X in the place of an operator."""
    outputs = [value.name for value in graph.output]
    if outputs == ["prediction"]:  # skl2onnx wants [batch, 1]
        graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.array([-1, 1]), "flat"))
    names = {"X": operator.inputs[0].full_name}
    names |= {name: out.full_name for name, out in zip(outputs, operator.outputs, strict=True)}
    for constant in graph.initializer:
        names[constant.name] = scope.get_unique_variable_name(constant.name)
        array = onnx.numpy_helper.to_array(constant)
        container.add_initializer(
            names[constant.name], constant.data_type, list(array.shape), array.ravel().tolist()
        )
    for node in graph.node:
        for name in node.output:
            names.setdefault(name, scope.get_unique_variable_name(name))
        container.add_node(
            node.op_type,
            [names[name] for name in node.input],
            [names[name] for name in node.output],
            op_domain=node.domain,
            op_version=3 if node.domain else None,
            name=scope.get_unique_operator_name(node.op_type),
            **{item.name: onnx.helper.get_attribute_value(item) for item in node.attribute},
        )
