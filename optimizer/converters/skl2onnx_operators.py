"""Operators of skl2onnx that are made here instead.

Trees inside other estimators (voting, stacking, bagging): it does not know XGBoost and LightGBM,
sends missing values of scikit-learn's own trees always to the right, and never ends where a tree
splits on nothing but missing values. The imputer: it has no form for float64. The ordinal encoder:
it takes a missing text for an unknown one.
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


def register_operators() -> None:
    """Makes skl2onnx use what is here, for those libraries that are loaded anyway."""
    _register_encoders()
    for library, names in _KINDS.items():
        module = sys.modules.get(library)
        for name in names if module is not None else ():
            _register(getattr(module, name), name)


def _register_encoders() -> None:
    from skl2onnx import update_registered_converter  # noqa: PLC0415
    from skl2onnx.common._registration import get_shape_calculator  # noqa: PLC0415
    from sklearn.impute import SimpleImputer  # noqa: PLC0415
    from sklearn.preprocessing import OrdinalEncoder  # noqa: PLC0415

    for kind, convert in ((SimpleImputer, _convert_imputer), (OrdinalEncoder, _convert_ordinal)):
        shapes = get_shape_calculator(f"Sklearn{kind.__name__}")
        update_registered_converter(kind, f"Inflight{kind.__name__}", shapes, convert)


def _convert_ordinal(scope: Any, operator: Any, container: Any) -> None:
    """Texts to their numbers, a missing one to what stands for it."""
    from skl2onnx.common._registration import get_converter  # noqa: PLC0415
    from skl2onnx.common.data_types import StringTensorType  # noqa: PLC0415

    encoder = operator.raw_operator
    inputs = operator.inputs
    is_known = all(isinstance(value.type, StringTensorType) for value in inputs)
    if not is_known or len(inputs) != len(encoder.categories_) or encoder._infrequent_enabled:
        get_converter("SklearnOrdinalEncoder")(scope, operator, container)
        return
    unknown = -1.0 if encoder.unknown_value is None else float(encoder.unknown_value)
    codes = []
    for value, categories in zip(inputs, encoder.categories_, strict=True):
        codes.append(scope.get_unique_variable_name("code"))
        numbers = [float(index) for index in range(len(categories))]
        if categories[-1] == "":  # put there for what is missing
            numbers[-1] = float(encoder.encoded_missing_value)
        container.add_node(
            "LabelEncoder",
            [value.full_name],
            [codes[-1]],
            op_domain="ai.onnx.ml",
            op_version=2,
            keys_strings=[str(category).encode() for category in categories],
            values_floats=numbers,
            default_float=unknown,
        )
    joined = scope.get_unique_variable_name("codes")
    container.add_node("Concat", codes, [joined], op_version=13, axis=1)
    element = _element_of(operator.outputs[0].type)
    container.add_node("Cast", [joined], [operator.outputs[0].full_name], op_version=13, to=element)


def _element_of(type_: Any) -> int:
    from skl2onnx.common.data_types import guess_proto_type  # noqa: PLC0415

    return int(guess_proto_type(type_))


def _convert_imputer(scope: Any, operator: Any, container: Any) -> None:
    from skl2onnx.common._registration import get_converter  # noqa: PLC0415
    from skl2onnx.common.data_types import DoubleTensorType  # noqa: PLC0415

    imputer = operator.raw_operator
    if imputer.add_indicator:
        raise NotImplementedError("SimpleImputer with add_indicator has no ONNX form")
    if not isinstance(operator.inputs[0].type, DoubleTensorType):
        get_converter("SklearnSimpleImputer")(scope, operator, container)
        return
    if not isinstance(imputer.missing_values, float) or not np.isnan(imputer.missing_values):
        raise NotImplementedError(f"SimpleImputer with missing_values={imputer.missing_values!r}")
    whole, is_missing, fill = map(scope.get_unique_variable_name, ("whole", "is_missing", "fill"))
    statistics = np.asarray(imputer.statistics_, np.float64)
    shape = [1, len(statistics)]
    container.add_initializer(fill, onnx.TensorProto.DOUBLE, shape, statistics.tolist())
    names = [value.full_name for value in operator.inputs]
    container.add_node("Concat", names, [whole], op_version=13, axis=1)
    container.add_node("IsNaN", [whole], [is_missing], op_version=13)
    outputs = [operator.outputs[0].full_name]
    container.add_node("Where", [is_missing, fill, whole], outputs, op_version=9)


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
