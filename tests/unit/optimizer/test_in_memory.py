from pathlib import Path

import numpy as np
import pytest

from optimizer.data import DataSpec, read
from optimizer.errors import DataError
from optimizer.in_memory import first_rows, fitted, written
from optimizer.samples import Samples
from protos.signature import Signature, TensorSpec

ONE = Signature((TensorSpec("x", "FP32", ("n", 2)),), (TensorSpec("y", "FP32", ("n",)),))
COLUMNS = Signature(
    (TensorSpec("age", "FP32", ("n", 1)), TensorSpec("city", "BYTES", ("n", 1))),
    (TensorSpec("label", "INT64", ("n",)),),
)
X, Y = np.arange(6.0).reshape(3, 2), np.array([0, 1, 0])


def through(data: object, signature: Signature, folder: Path) -> Samples:
    spec = written(data, None, folder)
    assert spec is not None
    return read(spec, signature, {})


def test_an_array_is_the_one_input(tmp_path: Path) -> None:
    samples = through(X, ONE, tmp_path)
    assert samples.inputs["x"].dtype == np.float32
    assert samples.labels is None
    assert samples.origin == "rows given in Python, 3 rows"


def test_labels_come_beside_it(tmp_path: Path) -> None:
    samples = through((X, Y), ONE, tmp_path)
    assert samples.labels is not None
    assert samples.labels.tolist() == [0, 1, 0]


def test_arrays_by_name_may_hold_texts(tmp_path: Path) -> None:
    cities = np.array(["Rome", None, b"Oslo"], dtype=object)
    samples = through(
        ({"age": [[1], [2], [3]], "city": cities}, ["a", "b", "a"]), COLUMNS, tmp_path
    )
    assert samples.inputs["city"].ravel().tolist() == [b"Rome", b"", b"Oslo"]


def test_a_table_gives_a_column_to_each_input(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"age": [1.5, 2.0, 3.0], "city": ["Rome", "Oslo", "Rome"]})
    samples = through((frame, Y), COLUMNS, tmp_path)
    assert samples.inputs["age"].ravel().tolist() == [1.5, 2.0, 3.0]
    assert samples.labels is not None
    assert fitted(frame, COLUMNS).inputs["city"].ravel().tolist() == [b"Rome", b"Oslo", b"Rome"]


def test_a_path_and_a_specification_are_taken_as_they_are(tmp_path: Path) -> None:
    spec = DataSpec("sql", query="SELECT 1")
    assert written(spec, None, tmp_path) is spec
    assert written(None, None, tmp_path) is None
    found = written(tmp_path / "rows.csv", "kind", tmp_path)
    assert found == DataSpec("file", path=tmp_path / "rows.csv", labels="kind")


def test_three_values_are_not_rows_and_labels(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="got 3 values"):
        written((X, Y, Y), None, tmp_path)


def test_examples_are_two_rows() -> None:
    assert first_rows((X, Y)).shape == (2, 2)
    assert first_rows({"x": X})["x"].shape == (2, 2)
    assert first_rows("rows.csv") is None


def test_rows_to_predict_are_fitted_to_the_model() -> None:
    assert fitted(X.tolist(), ONE).inputs["x"].dtype == np.float32
    assert fitted({"x": X}, ONE).rows == 3
    with pytest.raises(DataError, match="expected FP32"):
        fitted(X[:, :1], ONE)
