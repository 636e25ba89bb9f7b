"""Every kind of fitted model: converted, it answers as the original does."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from optimizer.artifact import Artifact
from optimizer.converters import convert
from optimizer.converters.contract import ConverterInput, ConverterResult
from optimizer.converters.graph_ends import opset_of
from optimizer.converters.parity import compare
from optimizer.errors import ConversionError
from optimizer.frameworks import load_native, save_native
from optimizer.runner import run_all
from optimizer.samples import Samples
from optimizer.source import SourceModel
from server.backends.opener import open_artifact
from tests.unit.optimizer.fitted_models import FITTED

TOLERANCE = 1e-5  # of probabilities; of other outputs relative to their size

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:X does not have valid feature names:UserWarning"),
    pytest.mark.filterwarnings("ignore:Found unknown categories:UserWarning"),
]


def converted(model: Any, folder: Path, opset: int = 17) -> tuple[SourceModel, ConverterResult]:
    source = save_native(model, folder)
    given = ConverterInput(source, folder / "converted.onnx", opset, opener=open_artifact)
    return source, convert(given)


@pytest.mark.parametrize("name", FITTED)
def test_converted_form_answers_as_the_original(name: str, tmp_path: Path) -> None:
    source, result = converted(FITTED[name](), tmp_path)
    native = load_native(source)
    artifact = Artifact(tmp_path, result.file.name, "onnxruntime", "converted-1")
    runner = open_artifact(artifact, 1)
    try:
        assert runner.signature.inputs == native.signature.inputs
        assert [spec.name for spec in runner.signature.outputs] == [
            spec.name for spec in native.signature.outputs
        ]
        for batch in (1, 7):
            rows = native.typical_rows(64, seed=batch).batch(batch)
            expected, got = native.predict(rows), run_all(runner, rows)
            for output, values in expected.items():
                assert got[output].dtype == values.dtype
                assert got[output].shape == values.shape
                if values.dtype.kind == "f":
                    scale = 1.0 if output == "probabilities" else float(np.abs(values).max())
                    assert got[output] == pytest.approx(values, abs=TOLERANCE * max(scale, 1.0))
            assert compare(native, expected, got).reason == ""  # labels differ at ties only
    finally:
        runner.close()


@pytest.mark.parametrize(
    ("name", "opset"),
    [("ridge", 13), ("ridge", 17), ("ridge", 20), ("XGBoost", 14), ("table", 18), ("SVR", 15)],
)
def test_opset_is_the_one_asked_for(name: str, opset: int, tmp_path: Path) -> None:
    _, result = converted(FITTED[name](), tmp_path, opset)
    assert (result.opset, result.notes) == (opset, ())
    assert opset_of(onnx.load(result.file)) == opset


def unconvertible(name: str) -> Any:
    from sklearn.cluster import Birch
    from sklearn.covariance import EllipticEnvelope
    from sklearn.datasets import load_breast_cancer, load_iris
    from sklearn.kernel_ridge import KernelRidge
    from xgboost import XGBClassifier

    rows, labels = load_iris(return_X_y=True)
    if name == "gblinear":
        return XGBClassifier(n_estimators=2, booster="gblinear").fit(
            *load_breast_cancer(return_X_y=True)
        )
    kinds = {"Birch": Birch, "EllipticEnvelope": EllipticEnvelope, "KernelRidge": KernelRidge}
    return kinds[name]().fit(rows, labels)


@pytest.mark.parametrize("name", ["Birch", "EllipticEnvelope", "KernelRidge", "gblinear"])
def test_estimator_without_a_converter_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=f"{name}.* no ONNX form"):
        converted(unconvertible(name), tmp_path)


@pytest.mark.parametrize("name", ["Birch", "EllipticEnvelope", "KernelRidge", "gblinear"])
def test_what_does_not_convert_answers_natively(name: str, tmp_path: Path) -> None:
    native = load_native(save_native(unconvertible(name), tmp_path))
    outputs = native.predict(native.typical_rows(5, 0).inputs)
    assert [len(values) for values in outputs.values()] == [5] * len(outputs)


def test_wrong_conversion_is_refused_with_its_figure(tmp_path: Path) -> None:
    # A binary one against one classifier: the converter leaves the votes out of the scores.
    from sklearn.datasets import load_breast_cancer
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsOneClassifier

    rows, labels = load_breast_cancer(return_X_y=True)
    model = OneVsOneClassifier(LogisticRegression()).fit(rows / rows.max(axis=0), labels)
    with pytest.raises(ConversionError, match=r"'scores' is off by 0\.\d+ of its range in row"):
        converted(model, tmp_path)


def test_real_rows_are_compared_as_well(tmp_path: Path) -> None:
    from tests.unit.optimizer.fitted_models import with_missing

    rows = with_missing()[0].astype(np.float32)
    source = save_native(FITTED["XGBoost"](), tmp_path)
    samples = Samples({"X": rows})
    given = ConverterInput(source, tmp_path / "x.onnx", 17, samples, open_artifact)
    assert convert(given).file.is_file()
