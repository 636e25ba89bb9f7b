"""scikit-learn to ONNX, by skl2onnx; boosted trees at the end of a pipeline by their own files.

ONNX computes in float32 what scikit-learn computes in float64. That is invisible until a tree
splits on the result: then a row falls on the other side. So where trees come last, what comes
before them is computed in float64.
"""

from collections.abc import Callable
from typing import Any

import onnx

from optimizer.converters.booster_operators import estimator_ensemble, labels_of
from optimizer.converters.contract import ConverterInput, ConverterResult
from optimizer.converters.graph_ends import joined, raise_opset, zeros_to_missing
from optimizer.converters.histogram_trees import histogram_ensemble
from optimizer.converters.skl2onnx_repairs import repaired, to_onnx
from optimizer.converters.tree_ensemble import Ensemble, ensemble_model
from optimizer.converters.writing import Attempt, finish
from optimizer.frameworks import sklearn_model
from optimizer.frameworks.columns import Column, Table
from optimizer.frameworks.sklearn_model import EstimatorModel

_FLOAT32_TREES = (
    "DecisionTree",
    "ExtraTree",
    "RandomForest",
    "GradientBoosting",
    "IsolationForest",
)
"""Beginnings of names. They take float32, whatever they are given."""

_PROBE_ROWS = 8


def convert(given: ConverterInput) -> ConverterResult:
    """Converts a fitted object in a .skops, .pkl or .joblib file.

    Raises:
        ConversionError: an estimator without an ONNX form, or the result differs.
        SourceError: the file cannot be read.
    """
    native = sklearn_model.load(given.source.path, given.samples)
    return finish(given, native, _attempts(native, given.opset))


def _attempts(native: EstimatorModel, opset: int) -> list[Attempt]:
    """Ways to convert, the likeliest first."""
    estimator = repaired(native.estimator)
    steps, last = _split(estimator)
    ensemble = _ensemble_maker(last)

    def whole(kind: str) -> Attempt:
        return lambda: to_onnx(estimator, native.table, opset, kind)

    if ensemble is not None and not steps:
        return [lambda: ensemble_model(ensemble(False), opset)]
    if not steps:
        return [whole("FP32"), whole("FP64")]
    in_parts = _InParts(native, _pipeline(steps), last, ensemble, opset)
    if ensemble is not None or type(last).__name__.startswith(_FLOAT32_TREES):
        return [in_parts, whole("FP32")]
    return [whole("FP32"), whole("FP64"), in_parts]


class _InParts:
    """What comes before the last step in float64, then the last step by itself."""

    def __init__(
        self,
        native: EstimatorModel,
        before: Any,
        last: Any,
        ensemble: Callable[[bool], Ensemble] | None,
        opset: int,
    ) -> None:
        self._native = native
        self._before = before
        self._last = last
        self._ensemble = ensemble
        self._opset = opset
        # XGBoost and scikit-learn's own trees round to float32 themselves; the others do not.
        self._is_double = ensemble is not None and not hasattr(last, "get_booster")

    def __call__(self) -> onnx.ModelProto:
        first = to_onnx(self._before, self._native.table, self._opset, "FP64")
        if hasattr(self._last, "get_booster") and self._is_sparse():
            first = zeros_to_missing(first)
        second = raise_opset(self._second(), self._opset)
        return joined(
            raise_opset(first, self._opset), second, "FP64" if self._is_double else "FP32"
        )

    def _second(self) -> onnx.ModelProto:
        if self._ensemble is not None:
            return ensemble_model(self._ensemble(self._is_double), self._opset)
        columns = [Column(f"x{index}") for index in range(self._last.n_features_in_)]
        return to_onnx(self._last, Table(tuple(columns), False), self._opset, "FP32")

    def _is_sparse(self) -> bool:
        """Whether XGBoost is given a sparse matrix: it takes what that leaves out for missing."""
        rows = self._native.typical_rows(_PROBE_ROWS, 0)
        before = _pipeline(_steps(self._native.estimator)[:-1])
        return hasattr(before.transform(self._native.table.read(rows.inputs)), "toarray")


def _steps(estimator: Any) -> list[Any]:
    estimator = getattr(estimator, "best_estimator_", estimator)
    steps = [step for _, step in getattr(estimator, "steps", [("", estimator)])]
    return [step for step in steps if step is not None and step != "passthrough"]


def _split(estimator: Any) -> tuple[list[Any], Any]:
    """The steps before the last one, and the last one."""
    *before, last = _steps(estimator)
    encoder = getattr(last, "_preprocessor", None)  # of HistGradientBoosting
    return before + ([encoder] if encoder is not None else []), last


def _pipeline(steps: list[Any]) -> Any:
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415

    return make_pipeline(*steps)


def _ensemble_maker(last: Any) -> Callable[[bool], Ensemble] | None:
    """How to read the trees of the last step, where that is done here."""
    if hasattr(last, "get_booster") or hasattr(last, "booster_"):
        return lambda is_double: estimator_ensemble(last, is_double)
    if hasattr(last, "_predictors") and hasattr(last, "_baseline_prediction"):
        return lambda is_double: histogram_ensemble(last, labels_of(last), is_double)
    return None
