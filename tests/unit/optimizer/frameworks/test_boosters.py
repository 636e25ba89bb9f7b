from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
import xgboost
from sklearn import datasets

from optimizer.converters import convert
from optimizer.converters.contract import ConverterInput
from optimizer.errors import ConversionError, SourceError
from optimizer.frameworks import lightgbm_model, load_native, save_native, xgboost_model
from optimizer.frameworks.lightgbm_model import Objective, objective_of
from protos.signature import TensorSpec
from protos.tensors import Array
from server.backends.opener import open_artifact

CANCER, BENIGN = datasets.load_breast_cancer(return_X_y=True)
IRIS, KINDS = datasets.load_iris(return_X_y=True)
ROWS = {"X": CANCER[:9].astype(np.float32)}


def xgb(objective: str, rows: Array = CANCER, labels: Array = BENIGN, **settings: Any) -> Any:
    data = xgboost.DMatrix(rows, labels)
    return xgboost.train({"objective": objective, **settings}, data, 4)


def lgb(objective: str, rows: Array = CANCER, labels: Array = BENIGN, **settings: Any) -> Any:
    parameters = {"objective": objective, "verbose": -1, **settings}
    return lightgbm.train(parameters, lightgbm.Dataset(rows, labels), 4)


BOOSTERS = {
    "xgboost binary": lambda: xgb("binary:logistic"),
    "xgboost logitraw": lambda: xgb("binary:logitraw"),
    "xgboost hinge": lambda: xgb("binary:hinge"),
    "xgboost softprob": lambda: xgb("multi:softprob", IRIS, KINDS, num_class=3),
    "xgboost softmax": lambda: xgb("multi:softmax", IRIS, KINDS, num_class=3),
    "xgboost squared": lambda: xgb("reg:squarederror", labels=CANCER[:, 0]),
    "xgboost gamma": lambda: xgb("reg:gamma", labels=CANCER[:, 0]),
    "xgboost logistic": lambda: xgb("reg:logistic"),
    "lightgbm binary": lambda: lgb("binary"),
    "lightgbm sigmoid": lambda: lgb("binary", sigmoid=2.0),
    "lightgbm multiclass": lambda: lgb("multiclass", IRIS, KINDS, num_class=3),
    "lightgbm cross entropy": lambda: lgb("cross_entropy"),
    "lightgbm l1": lambda: lgb("regression_l1", labels=CANCER[:, 0]),
    "lightgbm tweedie": lambda: lgb("tweedie", labels=CANCER[:, 0]),
}


@pytest.mark.parametrize("name", BOOSTERS)
def test_booster_is_saved_loaded_and_converted(name: str, tmp_path: Path) -> None:
    source = save_native(BOOSTERS[name](), tmp_path)
    assert source.path.suffix == {"xgboost": ".ubj", "lightgbm": ".txt"}[source.framework]
    given = ConverterInput(source, tmp_path / "x.onnx", 17, opener=open_artifact)
    assert convert(given).notes == ()  # compared with the original


def test_booster_answers_as_the_library_does(tmp_path: Path) -> None:
    booster = BOOSTERS["xgboost binary"]()
    native = load_native(save_native(booster, tmp_path))
    assert native.signature.outputs == (
        TensorSpec("label", "INT64", ("batch",)),
        TensorSpec("probabilities", "FP32", ("batch", 2)),
    )
    second = booster.predict(xgboost.DMatrix(ROWS["X"]))
    outputs = native.predict(ROWS)
    assert outputs["probabilities"][:, 1].tolist() == second.tolist()
    assert outputs["label"].tolist() == (second > 0.5).astype(int).tolist()
    assert native.task == "classification"


def test_softmax_has_probabilities_as_well(tmp_path: Path) -> None:
    native = load_native(save_native(BOOSTERS["xgboost softmax"](), tmp_path))
    booster = BOOSTERS["xgboost softprob"]()
    rows = IRIS.astype(np.float32)
    expected = booster.predict(xgboost.DMatrix(rows))
    assert native.predict({"X": rows})["probabilities"] == pytest.approx(expected, abs=1e-6)


def test_regressor_predicts_numbers(tmp_path: Path) -> None:
    booster = BOOSTERS["lightgbm tweedie"]()
    native = load_native(save_native(booster, tmp_path))
    assert native.task == "regression"
    assert native.signature.outputs == (TensorSpec("prediction", "FP32", ("batch",)),)
    assert native.predict(ROWS)["prediction"] == pytest.approx(booster.predict(ROWS["X"]))


def test_classifier_saved_with_early_stopping_uses_its_best_round(tmp_path: Path) -> None:
    model = xgboost.XGBClassifier(n_estimators=20, early_stopping_rounds=1)
    model.fit(CANCER, BENIGN, eval_set=[(CANCER, 1 - BENIGN)], verbose=False)
    model.save_model(tmp_path / "model.json")
    native = xgboost_model.load(tmp_path / "model.json")
    assert native.iterations == 1
    expected = model.predict_proba(ROWS["X"])
    assert native.predict(ROWS)["probabilities"] == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("suffix", [".json", ".ubj"])
def test_file_that_is_no_xgboost_model_is_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_text('{"a": 1}')
    with pytest.raises(SourceError, match="is no XGBoost model"):
        xgboost_model.load(path)


def test_file_that_is_no_lightgbm_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.txt"
    path.write_text("hello\n")
    with pytest.raises(SourceError, match="is no LightGBM model"):
        lightgbm_model.load(path)


def test_zero_as_missing_is_not_converted(tmp_path: Path) -> None:
    source = save_native(lgb("binary", zero_as_missing=True), tmp_path)
    with pytest.raises(ConversionError, match="zero_as_missing has no ONNX form"):
        convert(ConverterInput(source, tmp_path / "x.onnx", 17, opener=open_artifact))


def test_objective_of_a_users_own_is_not_converted(tmp_path: Path) -> None:
    def squares(predicted: Array, data: Any) -> tuple[Array, Array]:
        return predicted - data.get_label(), np.ones_like(predicted)

    source = save_native(lgb(squares), tmp_path)  # type: ignore[arg-type]
    result = convert(ConverterInput(source, tmp_path / "x.onnx", 17, opener=open_artifact))
    assert result.opset == 17  # its sums are its predictions


def test_typical_rows_lie_on_thresholds(tmp_path: Path) -> None:
    native = xgboost_model.XGBoostModel(BOOSTERS["xgboost binary"]())
    rows = native.typical_rows(400, 0).inputs["X"]
    feature, thresholds = next(iter(native._splits.items()))
    assert np.isin(rows[:, feature], thresholds.astype(np.float32)).mean() > 0.1
    assert 0 < np.isnan(rows).mean() < 0.2


def test_typical_rows_have_codes_for_categories() -> None:
    generator = np.random.default_rng(0)
    rows = np.stack([generator.integers(0, 20, 300), generator.standard_normal(300)], axis=1)
    data = lightgbm.Dataset(rows, rows[:, 0] % 3, categorical_feature=[0])
    native = lightgbm_model.LightGBMModel(
        lightgbm.train({"objective": "regression", "verbose": -1}, data, 3)
    )
    codes = native.typical_rows(200, 0).inputs["X"][:, 0]
    known = codes[~np.isnan(codes)]
    assert (known == np.round(known)).all()
    assert known.min() >= 0


@pytest.mark.parametrize(
    ("text", "objective"),
    [
        ("binary sigmoid:2.5", Objective("binary", 2.5)),
        ("regression sqrt", Objective("regression", 1.0, True)),
        ("multiclass num_class:3", Objective("multiclass")),
    ],
)
def test_objective_is_read(text: str, objective: Objective) -> None:
    assert objective_of({"objective": text}) == objective


def test_no_objective_is_custom() -> None:
    assert objective_of({}) == Objective("custom")
