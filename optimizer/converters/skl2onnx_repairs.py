"""Conversion by skl2onnx, with what it cannot take mended beforehand, in a copy of the model."""

import contextlib
import copy
import re
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnx.helper

from optimizer.converters.skl2onnx_operators import register_operators
from optimizer.converters.tree_ensemble import ML_OPSET
from optimizer.errors import ConversionError
from optimizer.frameworks.columns import MATRIX, Table
from optimizer.frameworks.sklearn_model import last_step

_LOCALE = b"C.UTF-8"
_patching = threading.Lock()


def to_onnx(estimator: Any, table: Table, opset: int, kind: str) -> onnx.ModelProto:
    """Converts; numbers are float32 ("FP32") or float64 ("FP64") throughout, inputs as well.

    Raises:
        ConversionError: skl2onnx cannot; names the estimator.
    """
    import skl2onnx  # noqa: PLC0415

    register_operators()
    try:
        with _lenient_attributes(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            highest = skl2onnx.__max_supported_opset__
            return _with_locale(_convert(estimator, table, min(opset, highest), kind))
    except Exception as error:  # skl2onnx raises whatever comes
        raise ConversionError(_reason(estimator, error)) from error


def _convert(estimator: Any, table: Table, opset: int, kind: str) -> onnx.ModelProto:
    import skl2onnx  # noqa: PLC0415

    try:
        model: onnx.ModelProto = skl2onnx.convert_sklearn(
            estimator,
            initial_types=_initial_types(table, kind),
            target_opset={"": opset, "ai.onnx.ml": ML_OPSET},
            options=_options(estimator),
        )
    except Exception as error:
        needed = re.search(r"for opset (\d+) < (\d+)", str(error))
        if needed is None or int(needed[2]) <= opset:
            raise
        return _convert(estimator, table, int(needed[2]), kind)
    return model


def _with_locale(model: onnx.ModelProto) -> onnx.ModelProto:
    """Lower case by a locale that every machine has, not by the one of the United States."""
    for node in model.graph.node:
        if node.op_type == "StringNormalizer":
            kept = [attribute for attribute in node.attribute if attribute.name != "locale"]
            del node.attribute[:]
            node.attribute.extend([*kept, onnx.helper.make_attribute("locale", _LOCALE)])
    return model


def repaired(estimator: Any) -> Any:
    """A copy that skl2onnx understands; it predicts the same."""
    estimator = copy.deepcopy(estimator)
    for inner in nested(estimator):
        _repair(inner)
    return estimator


def nested(value: Any, seen: set[int] | None = None) -> Iterator[Any]:
    """An estimator and all estimators in it."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, (list, tuple)) or (
        isinstance(value, np.ndarray) and value.dtype.kind == "O"
    ):
        for item in value:
            yield from nested(item, seen)
    elif isinstance(value, dict):
        yield from nested(list(value.values()), seen)
    elif hasattr(value, "get_params") or type(value).__name__ == "_CalibratedClassifier":
        yield value
        yield from nested(list(vars(value).values()), seen)


def _repair(estimator: Any) -> None:
    if hasattr(estimator, "flatten_transform"):
        estimator.flatten_transform = False
    if hasattr(estimator, "categories_"):
        estimator.categories_ = [_without_missing(values) for values in estimator.categories_]
    if hasattr(estimator, "statistics_") and any(
        isinstance(value, str) for value in estimator.statistics_
    ):
        estimator.missing_values = ""  # as an empty text stands for it in requests
    if type(estimator).__name__ == "LinearDiscriminantAnalysis" and len(estimator.classes_) == 2:
        # skl2onnx takes the softmax of -d and d, where the probability is the sigmoid of d.
        estimator.coef_ = estimator.coef_ / 2
        estimator.intercept_ = estimator.intercept_ / 2
    if getattr(estimator, "encode", "") == "onehot":
        estimator.encode = "onehot-dense"
    classes = vars(estimator).get("classes_")
    if isinstance(classes, np.ndarray) and classes.dtype.kind == "b":
        estimator.classes_ = classes.astype(np.int64)
    if hasattr(estimator, "transformers_"):
        found = estimator._transformer_to_input_indices
        estimator.transformers_ = [
            (name, transformer, [int(index) for index in found.get(name, [])])
            for name, transformer, _ in estimator.transformers_
        ]
    function = getattr(estimator, "func", None)
    if getattr(getattr(function, "func", None), "__name__", "") == "check_array":
        estimator.func = None  # of HistGradientBoosting's own encoder: it changes nothing


def _without_missing(categories: Any) -> Any:
    if not any(isinstance(value, str) for value in categories.tolist()):
        return categories
    texts = np.empty(len(categories), dtype=object)
    texts[:] = [value if isinstance(value, str) else "" for value in categories]
    return texts


def _options(estimator: Any) -> dict[int, dict[str, bool]]:
    """Probabilities as a tensor; raw scores where there are no probabilities."""
    from skl2onnx import _supported_operators  # noqa: PLC0415
    from skl2onnx.common._registration import get_converter  # noqa: PLC0415

    last = last_step(estimator)
    alias = _supported_operators.sklearn_operator_name_map.get(type(last))
    if alias is None:
        return {}
    allowed = get_converter(alias).get_allowed_options() or {}
    wanted = {}
    if "zipmap" in allowed:
        wanted["zipmap"] = False
    if "raw_scores" in allowed and not hasattr(last, "predict_proba"):
        wanted["raw_scores"] = True
    return {id(last): wanted} if wanted else {}


def _initial_types(table: Table, kind: str) -> list[tuple[str, Any]]:
    from skl2onnx.common import data_types  # noqa: PLC0415

    numbers = data_types.FloatTensorType if kind == "FP32" else data_types.DoubleTensorType
    if table.is_matrix:
        is_text = table.columns[0].is_text
        type_ = data_types.StringTensorType if is_text else numbers
        return [(MATRIX, type_([None, len(table.columns)]))]
    return [
        (column.name, (data_types.StringTensorType if column.is_text else numbers)([None, 1]))
        for column in table.columns
    ]


@contextlib.contextmanager
def _lenient_attributes() -> Iterator[None]:
    """Lets attributes be given as numpy's and Python's own kinds of whole numbers.

    protobuf 7 takes no bool and no numpy integer for an int, and skl2onnx hands over both.
    """
    strict = onnx.helper.make_attribute

    def lenient(key: str, value: Any, *rest: Any, **named: Any) -> onnx.AttributeProto:
        return strict(key, _plain(value), *rest, **named)

    with _patching:
        onnx.helper.make_attribute = lenient
        try:
            yield
        finally:
            onnx.helper.make_attribute = strict


def _plain(value: Any) -> Any:
    if isinstance(value, (bool, np.bool_, np.integer)):
        return int(value)
    if isinstance(value, np.floating):
        return float(value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _reason(estimator: Any, error: Exception) -> str:
    name = type(last_step(estimator)).__name__
    text = " ".join(str(error).split())
    lacking = re.search(r"for type '<class '([\w.]+)'>'", text)
    if lacking:
        return f"{lacking[1].rpartition('.')[2]} has no ONNX form"
    return f"{name} cannot be converted: {text[:300] or type(error).__name__}"
