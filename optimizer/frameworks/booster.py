"""What XGBoost's and LightGBM's own models have in common: a matrix in, labels or numbers out."""

from collections.abc import Callable, Mapping

import numpy as np

from optimizer.frameworks.columns import MATRIX
from optimizer.frameworks.contract import Task
from optimizer.frameworks.thresholds import Thresholds
from optimizer.frameworks.typical_rows import near_thresholds, with_codes, with_missing
from optimizer.samples import Samples
from protos.signature import Signature, TensorSpec
from protos.tensors import Array


class BoosterModel:
    """A booster behind the names of its inputs and outputs.

    Args:
        values: float32[rows, features] -> probabilities [rows] or [rows, classes] of classifiers,
            predictions of others; the booster's own arithmetic.
        features: Columns of its input.
        labels: INT64[classes] of a classifier; else None.
        splits: Where its trees split.
        categories: The codes of its categorical features.
    """

    def __init__(
        self,
        values: Callable[[Array], Array],
        features: int,
        labels: Array | None,
        splits: Thresholds,
        categories: Thresholds,
    ) -> None:
        self.labels = labels
        self.task: Task = "regression" if labels is None else "classification"
        self._values = values
        self._splits = splits
        self._categories = categories
        matrix = TensorSpec(MATRIX, "FP32", ("batch", features))
        self.signature = Signature((matrix,), self._outputs(features))

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        values = np.asarray(self._values(inputs[MATRIX]))
        if self.labels is None:
            return {"prediction": np.ascontiguousarray(values, np.float32)}
        if values.ndim == 1:
            values = np.stack([1 - values, values], axis=1)
        labels = self.labels.take(np.argmax(values, axis=1))
        return {"label": labels, "probabilities": np.ascontiguousarray(values, np.float32)}

    def typical_rows(self, rows: int, seed: int) -> Samples:
        generator = np.random.default_rng(seed)
        features = self.signature.inputs[0].shape[1]
        assert isinstance(features, int)
        matrix = near_thresholds(self._splits, features, rows, generator)
        with_codes(matrix, self._categories, generator)
        matrix = with_missing(matrix, generator).astype(np.float32)
        return Samples({MATRIX: matrix}, is_real=False, origin=f"{rows} rows made up")

    def _outputs(self, features: int) -> tuple[TensorSpec, ...]:
        if self.labels is not None:
            classes = ("batch", len(self.labels))
            return (
                TensorSpec("label", "INT64", ("batch",)),
                TensorSpec("probabilities", "FP32", classes),
            )
        shape = np.asarray(self._values(np.zeros((3, features), np.float32))).shape
        return (TensorSpec("prediction", "FP32", ("batch", *shape[1:])),)
