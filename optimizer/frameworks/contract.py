"""A model in the framework that trained it: the reference for accuracy, and a way to serve.

Modules beside this one import their framework inside functions, and run in child processes only.
"""

from collections.abc import Mapping
from typing import Literal, Protocol

from optimizer.samples import Samples
from protos.signature import Signature
from protos.tensors import Array

Task = Literal["classification", "regression", "clustering", "other"]


class NativeModel(Protocol):
    """One model, loaded. The converted form has exactly this signature: names, dtypes, shapes.

    Arrays of numbers: one input "X" FP32[batch, features]. Tables with columns of different kinds:
    one input per column, FP32 or BYTES [batch, 1]. Outputs: "label" (INT64 or BYTES [batch]) and
    "probabilities" FP32[batch, classes] of classifiers; "prediction" FP32[batch] or
    [batch, targets] of regressors; "label" (and "scores" where skl2onnx makes them) of clusterers
    and outlier detectors. Networks keep the names their file gives.
    """

    signature: Signature
    task: Task

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs by name; the framework's own arithmetic. Not called from two threads."""
        ...

    def typical_rows(self, rows: int, seed: int) -> Samples:
        """Made-up rows where a wrong conversion would show; `is_real` is False.

        Values next to the model's own thresholds, in the range it was trained on, missing where it
        accepts that, of known and unknown categories. The same arguments give the same rows.
        """
        ...
