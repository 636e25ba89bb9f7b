"""scikit-learn to ONNX, by skl2onnx; boosted trees at the end of a pipeline by their own files.

ONNX computes in float32 what scikit-learn computes in float64. That is invisible until a tree
splits on the result: then a row falls on the other side. So where trees come last, what comes
before them is computed in float64.
"""

from typing import Any

import onnx

from optimizer.converters.contract import ConverterInput, ConverterResult
from optimizer.converters.estimator_trees import Maker, maker_of, rounds_itself
from optimizer.converters.graph_ends import joined, raise_opset, zeros_to_missing
from optimizer.converters.skl2onnx_repairs import repaired, to_onnx
from optimizer.converters.writing import Attempt, finish
from optimizer.frameworks import sklearn_model
from optimizer.frameworks.columns import Column, Table
from optimizer.frameworks.sklearn_model import EstimatorModel

_OTHER_TREES = ("GradientBoosting", "AdaBoost", "Bagging")  # beginnings of names
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
    maker = maker_of(last)

    def whole(kind: str) -> Attempt:
        return lambda: to_onnx(estimator, native.table, opset, kind)

    if maker is not None and not steps:
        return [lambda: maker(opset, False)]
    if not steps:
        return [whole("FP32"), whole("FP64")]
    in_parts = _InParts(native, _pipeline(steps), last, maker, opset)
    if maker is not None or type(last).__name__.startswith(_OTHER_TREES):
        return [in_parts, whole("FP32")]
    return [whole("FP32"), whole("FP64"), in_parts]


class _InParts:
    """What comes before the last step in float64, then the last step by itself."""

    def __init__(
        self,
        native: EstimatorModel,
        before: Any,
        last: Any,
        maker: Maker | None,
        opset: int,
    ) -> None:
        self._native = native
        self._before = before
        self._last = last
        self._maker = maker
        self._opset = opset
        self._is_double = maker is not None and not rounds_itself(last)

    def __call__(self) -> onnx.ModelProto:
        first = to_onnx(self._before, self._native.table, self._opset, "FP64")
        if hasattr(self._last, "get_booster") and self._is_sparse():
            first = zeros_to_missing(first)
        second = raise_opset(self._second(), self._opset)
        return joined(
            raise_opset(first, self._opset), second, "FP64" if self._is_double else "FP32"
        )

    def _second(self) -> onnx.ModelProto:
        if self._maker is not None:
            return self._maker(self._opset, self._is_double)
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
