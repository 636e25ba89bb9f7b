from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

from optimizer.artifact import Artifact
from optimizer.converters.graph_ends import adopt
from optimizer.converters.parity import check, compare, ensure_same
from optimizer.converters.skl2onnx_repairs import repaired, to_onnx
from optimizer.errors import ConversionError, Unavailable
from optimizer.frameworks.contract import Task
from optimizer.frameworks.sklearn_model import EstimatorModel
from optimizer.runner import Runner
from optimizer.samples import Samples
from protos.signature import Signature, TensorSpec
from protos.tensors import Array
from server.backends.opener import open_artifact
from tests.unit.optimizer.fitted_models import FITTED

Compute = Callable[[Array], dict[str, Array]]


def classify(rows: Array) -> dict[str, Array]:
    second = 1 / (1 + np.exp(-rows[:, 0]))
    probabilities = np.stack([1 - second, second], axis=1).astype(np.float32)
    return {"label": (second > 0.5).astype(np.int64), "probabilities": probabilities}


def regress(rows: Array) -> dict[str, Array]:
    return {"prediction": (rows[:, 0] * 100).astype(np.float32)}


class Plain:
    """A native model and a runner at once, of one function of X."""

    threads = 1

    def __init__(self, compute: Compute, task: Task = "classification") -> None:
        self.compute = compute
        self.task: Task = task
        outputs = compute(np.zeros((3, 1), np.float32))
        self.signature = Signature(
            (TensorSpec("X", "FP32", ("batch", 1)),),
            tuple(
                TensorSpec(
                    name,
                    "FP32" if array.dtype.kind == "f" else "INT64",
                    ("batch", *array.shape[1:]),
                )
                for name, array in outputs.items()
            ),
        )

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return self.compute(inputs["X"])

    def run(self, inputs: Mapping[str, Array], output_names: Sequence[str]) -> list[Array]:
        outputs = self.compute(inputs["X"])
        return [outputs[name] for name in output_names]

    def close(self) -> None:
        pass

    def typical_rows(self, rows: int, seed: int) -> Samples:
        matrix = np.random.default_rng(seed).standard_normal((rows, 1))
        return Samples({"X": matrix.astype(np.float32)}, is_real=False)


ROWS = Plain(classify).typical_rows(600, 0)


def test_the_same_model_is_the_same() -> None:
    parity = check(Plain(classify), Plain(classify), ROWS)
    assert parity.is_same
    assert (parity.worst, parity.rows) == (0.0, 600)


def test_one_wrong_row_of_many_is_found_with_its_figure() -> None:
    def wrong(rows: Array) -> dict[str, Array]:
        outputs = classify(rows)
        outputs["probabilities"][rows[:, 0] == ROWS.inputs["X"][437, 0]] += [0.25, -0.25]
        return outputs

    parity = check(Plain(classify), Plain(wrong), ROWS)
    assert parity.outputs[0].agreement > 0.99
    assert not parity.is_same
    assert parity.outputs[1].row == 437
    assert parity.worst == pytest.approx(0.25, abs=1e-6)
    assert "'probabilities' is off by 0.25 of its range in row 437" in parity.reason


def test_error_of_single_rows_only_is_found() -> None:
    def wrong(rows: Array) -> dict[str, Array]:
        outputs = regress(rows)
        return {"prediction": outputs["prediction"] + (50 if len(rows) == 1 else 0)}

    parity = check(Plain(regress, "regression"), Plain(wrong, "regression"), ROWS)
    assert "'prediction' is off by" in parity.reason


def test_label_may_differ_where_the_original_is_undecided() -> None:
    expected = {
        "label": np.array([0, 1]),
        "probabilities": np.array([[0.500001, 0.499999], [0.2, 0.8]], np.float32),
    }
    got = {**expected, "label": np.array([1, 1])}
    parity = compare(Plain(classify), expected, got)
    assert parity.is_same
    assert parity.outputs[0].agreement == 0.5
    wrong = compare(Plain(classify), expected, {**expected, "label": np.array([0, 0])})
    assert wrong.reason.startswith("output 'label' has another label in 1 rows, in row 1 '0'")


def test_label_without_scores_may_not_differ() -> None:
    native = Plain(lambda rows: {"label": (rows[:, 0] > 0).astype(np.int64)}, "clustering")
    other = {"label": np.array([1, 1])}
    assert not compare(native, {"label": np.array([0, 1])}, other).is_same


@pytest.mark.parametrize(
    ("expected", "got", "is_same"),
    [
        ([1.0, np.nan], [1.0, np.nan], True),
        ([1.0, np.inf], [1.0, np.inf], True),
        ([1.0, 2.0], [1.0, np.nan], False),
        ([1.0, np.nan], [1.0, 2.0], False),
        ([1.0, np.inf], [1.0, -np.inf], False),
        ([1e6, 1e6 + 1], [1e6 + 0.06, 1e6 + 1], True),  # as near as float32 can tell
        ([0.0, 1000.0], [0.05, 1000.0], True),
        ([0.0, 1000.0], [0.2, 1000.0], False),
        ([5.0, 5.0], [5.001, 5.0], False),  # without a range, by its size
        ([0.0, 0.0], [0.0, 0.0], True),
    ],
)
def test_numbers_are_compared_by_range(
    expected: list[float], got: list[float], is_same: bool
) -> None:
    arrays = [{"prediction": np.array(values, np.float32)} for values in (expected, got)]
    assert compare(Plain(regress, "regression"), *arrays).is_same == is_same


def test_every_target_has_its_own_range() -> None:
    native = Plain(lambda rows: {"prediction": np.zeros((len(rows), 2), np.float32)}, "regression")
    expected = {"prediction": np.array([[0, 0], [1e6, 1]], np.float32)}
    got = {"prediction": np.array([[0, 0.01], [1e6, 1]], np.float32)}
    assert not compare(native, expected, got).is_same


def test_other_signature_is_refused() -> None:
    parity = check(Plain(classify), Plain(regress, "regression"), ROWS)
    assert parity.reason == "outputs: expected label, probabilities, got prediction"


def test_failing_model_is_refused() -> None:
    def fail(rows: Array) -> dict[str, Array]:
        if rows.any():
            raise RuntimeError("index out of range")
        return classify(rows)

    parity = check(Plain(classify), Plain(fail), ROWS)
    assert parity.reason == "the converted model fails: index out of range"


def test_ensure_same_says_why_a_file_does_not_open(tmp_path: Path) -> None:
    def broken(artifact: Artifact, threads: int) -> Runner:
        raise RuntimeError("no kernel for Imputer")

    def absent(artifact: Artifact, threads: int) -> Runner:
        raise Unavailable("onnxruntime is not installed")

    with pytest.raises(ConversionError, match="cannot be opened: no kernel for Imputer"):
        ensure_same(Plain(classify), tmp_path / "x.onnx", broken, None)
    with pytest.raises(Unavailable, match="not installed"):
        ensure_same(Plain(classify), tmp_path / "x.onnx", absent, None)


def test_real_rows_are_compared_too(tmp_path: Path) -> None:
    def wrong(rows: Array) -> dict[str, Array]:
        return {"prediction": regress(rows)["prediction"] + np.float32(90) * (rows[:, 0] > 50)}

    def opener(artifact: Artifact, threads: int) -> Runner:
        return Plain(wrong, "regression")

    native, file = Plain(regress, "regression"), tmp_path / "x.onnx"
    assert ensure_same(native, file, opener, None).is_same
    real = Samples({"X": np.array([[1.0], [51.0]], np.float32)})
    with pytest.raises(ConversionError, match=r"off by 0\.018 of its range in row 1"):
        ensure_same(native, file, opener, real)


@pytest.fixture
def scaled_trees() -> EstimatorModel:
    return EstimatorModel(FITTED["scaled XGBoost"]())


def test_scaling_before_trees_in_float32_is_refused(
    scaled_trees: EstimatorModel, tmp_path: Path
) -> None:
    # Some rows fall on the other side of a split, while most labels agree.
    estimator = repaired(scaled_trees.estimator)
    model = adopt(to_onnx(estimator, scaled_trees.table, 17, "FP32"), scaled_trees.signature)
    onnx.save_model(model, tmp_path / "x.onnx")
    with pytest.raises(ConversionError, match=r"'probabilities' is off by 0\.\d+ of its"):
        ensure_same(scaled_trees, tmp_path / "x.onnx", open_artifact, None)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_forest_by_another_converter_is_refused(tmp_path: Path) -> None:
    # onnxmltools takes the trees of an XGBRFClassifier of several classes for those of one.
    onnxmltools = pytest.importorskip("onnxmltools")
    from onnxmltools.convert.common.data_types import FloatTensorType

    native = EstimatorModel(FITTED["XGBoost forest, 3 classes"]())
    types = [("X", FloatTensorType([None, 4]))]
    model = onnxmltools.convert_xgboost(native.estimator, initial_types=types, target_opset=15)
    onnx.save_model(adopt(model, native.signature), tmp_path / "x.onnx")
    with pytest.raises(ConversionError, match=r"'probabilities' is off by 0\.\d+ of its"):
        ensure_same(native, tmp_path / "x.onnx", open_artifact, None)
