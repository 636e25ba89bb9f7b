"""Trees inside other estimators (voting, stacking, bagging), for skl2onnx.

It does not know XGBoost and LightGBM, sends missing values of scikit-learn's own trees always to
the right, and never ends where a tree splits on nothing but missing values.
"""

import sys
from typing import Any

import numpy as np
import onnx

from optimizer.converters.estimator_trees import maker_of

_KINDS = {
    "xgboost": ("XGBClassifier", "XGBRegressor", "XGBRFClassifier", "XGBRFRegressor"),
    "lightgbm": ("LGBMClassifier", "LGBMRegressor"),
    "sklearn.tree": (
        "DecisionTreeClassifier",
        "DecisionTreeRegressor",
        "ExtraTreeClassifier",
        "ExtraTreeRegressor",
    ),
    "sklearn.ensemble": (
        "RandomForestClassifier",
        "RandomForestRegressor",
        "ExtraTreesClassifier",
        "ExtraTreesRegressor",
        "HistGradientBoostingClassifier",
        "HistGradientBoostingRegressor",
    ),
}


def register_trees() -> None:
    """Makes skl2onnx use the trees of this package, for those libraries that are loaded anyway."""
    for library, names in _KINDS.items():
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
        _convert,
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


def _convert(scope: Any, operator: Any, container: Any) -> None:
    maker = maker_of(operator.raw_operator)
    if maker is None:
        raise NotImplementedError(f"{type(operator.raw_operator).__name__} of several targets")
    model = maker(container.target_opset_any_domain(""), False)
    _splice(model.graph, scope, operator, container)


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
