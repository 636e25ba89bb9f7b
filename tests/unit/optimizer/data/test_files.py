"""Rows from files, as inputs of a signature."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from optimizer.data import DataSpec, read
from optimizer.errors import DataError
from optimizer.samples import Samples
from protos.signature import Signature, TensorSpec
from protos.tensors import Array

FEATURES = Signature((TensorSpec("X", "FP32", ("batch", 3)),), ())
COLUMNS = Signature(
    (TensorSpec("age", "FP32", ("batch", 1)), TensorSpec("city", "BYTES", ("batch", 1))),
    (TensorSpec("label", "INT64", ("batch",)),),
)
TOKENS = Signature(
    (
        TensorSpec("input_ids", "INT64", ("batch", "seq")),
        TensorSpec("attention_mask", "INT64", ("batch", "seq")),
    ),
    (TensorSpec("emb", "FP32", ("batch", 8)),),
)
NUMBERS = np.arange(12, dtype=np.float64).reshape(4, 3)


def load(path: Path, signature: Signature, labels: str | None = None, limit: int = 100) -> Samples:
    return read(DataSpec("file", path, labels=labels, row_limit=limit), signature, {})


def npz(folder: Path, **arrays: Array) -> Path:
    path = folder / "rows.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def text(folder: Path, name: str, content: str) -> Path:
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return path


def test_npz_takes_arrays_by_the_inputs_names(tmp_path: Path) -> None:
    samples = load(npz(tmp_path, X=NUMBERS, y=np.array([0, 1, 0, 1]), other=NUMBERS), FEATURES)
    assert samples.inputs["X"].dtype == np.float32
    assert np.array_equal(samples.inputs["X"], NUMBERS)
    assert samples.labels is not None
    assert samples.labels.tolist() == [0, 1, 0, 1]
    assert samples.is_real
    assert samples.origin == "rows.npz, 4 rows"


def test_a_single_array_is_the_only_input_whatever_its_name(tmp_path: Path) -> None:
    assert load(npz(tmp_path, arr_0=NUMBERS), FEATURES).rows == 4


def test_npy_is_the_only_input(tmp_path: Path) -> None:
    path = tmp_path / "rows.npy"
    np.save(path, NUMBERS)
    assert np.array_equal(load(path, FEATURES).inputs["X"], NUMBERS)
    with pytest.raises(DataError, match="the model has inputs 'input_ids', 'attention_mask'"):
        load(path, TOKENS)


def test_labels_are_named_or_have_a_usual_name(tmp_path: Path) -> None:
    path = npz(tmp_path, X=NUMBERS, truth=np.arange(4).reshape(4, 1))
    assert load(path, FEATURES).labels is None
    named = load(path, FEATURES, labels="truth").labels
    assert named is not None
    assert named.tolist() == [0, 1, 2, 3]
    with pytest.raises(DataError, match=r"rows.npz': no labels 'kind', there are 'X', 'truth'"):
        load(path, FEATURES, labels="kind")


def test_an_input_called_y_is_no_label(tmp_path: Path) -> None:
    signature = Signature((TensorSpec("y", "FP32", ("batch", 3)),), ())
    assert load(npz(tmp_path, y=NUMBERS), signature).labels is None


def test_several_values_a_row_are_no_labels_unless_asked(tmp_path: Path) -> None:
    path = npz(tmp_path, X=NUMBERS, y=NUMBERS)
    samples = load(path, FEATURES)
    assert samples.labels is None
    assert "'y' has [4, 3] values and is not used as labels" in samples.origin
    with pytest.raises(DataError, match="labels 'y': expected one for each of 4 rows"):
        load(path, FEATURES, labels="y")


def test_a_table_of_numbers_is_one_input_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = text(tmp_path, "a.csv", "c,a,name,b,label\n1,2,x,3,0\n4,5,y,6,1\n")
    samples = load(path, FEATURES)
    assert samples.inputs["X"].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert samples.labels is not None
    assert samples.labels.tolist() == [0, 1]
    assert "ignored columns 'name'" in samples.origin


def test_columns_of_different_kinds_are_inputs_by_name(tmp_path: Path) -> None:
    path = text(tmp_path, "a.csv", "city,age,extra,label\nNA,31,1,0\n007,,2,1\n,40,3,0\n")
    samples = load(path, COLUMNS)
    assert samples.inputs["city"].tolist() == [[b"NA"], [b"007"], [b""]]
    assert samples.inputs["age"].shape == (3, 1)
    assert np.isnan(samples.inputs["age"][1, 0])
    assert "1 missing values in 'age'" in samples.origin


def test_row_numbers_that_pandas_wrote_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    pd.DataFrame(NUMBERS, columns=["a", "b", "c"]).to_csv(path)
    assert load(path, FEATURES).inputs["X"].shape == (4, 3)


def test_parquet_holds_columns_and_lists(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pd.DataFrame({"a": [1.5, 2, None], "b": [1, 2, 3], "c": [True, False, True]})
    table.to_parquet(path)
    assert load(path, FEATURES).inputs["X"][0].tolist() == [1.5, 1, 1]
    ids = {"input_ids": [[5, 6], [7]], "attention_mask": [[1, 1], [1]], "label": ["x", "y"]}
    pd.DataFrame(ids).to_parquet(path)
    samples = load(path, TOKENS)
    assert samples.inputs["input_ids"].tolist() == [[5, 6], [7, 0]]
    assert samples.inputs["attention_mask"].tolist() == [[1, 1], [1, 0]]
    assert samples.labels is not None
    assert samples.labels.tolist() == [b"x", b"y"]


def test_categories_and_strings_of_parquet_are_texts(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pd.DataFrame({"city": pd.Categorical(["Bern", None]), "age": [1, 2]})
    table.to_parquet(path)
    assert load(path, COLUMNS).inputs["city"].tolist() == [[b"Bern"], [b""]]


def test_pixels_in_columns_take_the_shape_of_the_image(tmp_path: Path) -> None:
    signature = Signature((TensorSpec("image", "FP32", ("batch", 1, 2, 2)),), ())
    path = text(tmp_path, "a.csv", "p0,p1,p2,p3,label\n1,2,3,4,0\n")
    assert load(path, signature).inputs["image"].tolist() == [[[[1, 2], [3, 4]]]]


def test_numbered_columns_are_the_values_of_an_input(tmp_path: Path) -> None:
    signature = Signature(
        (TensorSpec("user", "FP32", ("batch", 2)), TensorSpec("item", "INT64", ("batch", 1))), ()
    )
    path = text(tmp_path, "a.csv", "user_1,user_0,item_0\n2,1,9\n")
    samples = load(path, signature)
    assert samples.inputs["user"].tolist() == [[1, 2]]
    assert samples.inputs["item"].tolist() == [[9]]


def test_jsonl_fills_up_sequences_with_zeros(tmp_path: Path) -> None:
    path = text(
        tmp_path,
        "a.jsonl",
        '{"input_ids": [1, 2, 3], "attention_mask": [1, 1, 1], "label": "a"}\n\n'
        '{"input_ids": [4], "attention_mask": [1], "label": "b"}\n',
    )
    samples = load(path, TOKENS)
    assert samples.inputs["input_ids"].tolist() == [[1, 2, 3], [4, 0, 0]]
    assert samples.inputs["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert "'input_ids' filled up with zeros in 1 rows" in samples.origin


def test_a_limit_takes_rows_at_random_but_always_the_same(tmp_path: Path) -> None:
    path = npz(tmp_path, X=np.arange(300).reshape(100, 3), y=np.arange(100))
    first, again = (load(path, FEATURES, limit=10) for _ in range(2))
    assert first.labels is not None
    assert np.array_equal(first.inputs["X"][:, 0], first.labels * 3)
    assert np.array_equal(first.inputs["X"], again.inputs["X"])
    assert "10 of 100 rows, at random" in first.origin


def bad_npz(**arrays: Array) -> Callable[[Path], Path]:
    return lambda folder: npz(folder, **arrays)


def bad_text(name: str, content: str) -> Callable[[Path], Path]:
    return lambda folder: text(folder, name, content)


@pytest.mark.parametrize(
    ("make", "signature", "message"),
    [
        (bad_text("a.xls", ""), FEATURES, r"a.xls': no known data format, expected one of .npz"),
        (lambda folder: folder / "no.csv", FEATURES, "no.csv': no such file"),
        (bad_text("a.npz", "x"), FEATURES, "a.npz': cannot be read as .npz"),
        (bad_npz(X=np.array([{}])), FEATURES, "cannot be read as .npz"),
        (
            bad_npz(X=NUMBERS[:, :2]),
            FEATURES,
            r"'X': expected FP32\[rows, 3\], got float64\[4, 2\]",
        ),
        (bad_npz(a=NUMBERS, b=NUMBERS), FEATURES, "input 'X' is missing, there are 'a', 'b'"),
        (bad_npz(X=NUMBERS[:0]), FEATURES, "no rows"),
        (bad_npz(X=NUMBERS * 1e300), FEATURES, "row 0: expected a finite FP32, got 1e"),
        (
            bad_npz(X=NUMBERS, y=np.array([0, 1, np.nan, 1])),
            FEATURES,
            r"labels 'y': row 2 has none \(1 rows in all\)",
        ),
        (
            bad_npz(input_ids=np.ones((2, 3)), attention_mask=np.ones((3, 3))),
            TOKENS,
            "different numbers of rows: 'input_ids' 2, 'attention_mask' 3",
        ),
        (
            bad_npz(input_ids=np.ones((2, 3)), attention_mask=np.ones((2, 4))),
            TOKENS,
            "dimension 'seq' is 3 in input 'input_ids' and 4 in input 'attention_mask'",
        ),
        (
            bad_npz(input_ids=np.full((2, 3), 0.5), attention_mask=np.ones((2, 3))),
            TOKENS,
            r"'input_ids', row 0: expected a whole number \(INT64\), got 0.5",
        ),
        (
            bad_text("a.csv", "a,b,label\n1,2,0\n"),
            FEATURES,
            "input 'X' takes 3 numbers, there are 2 columns of numbers",
        ),
        (
            bad_text("a.csv", "city,age\nBern,old\n"),
            COLUMNS,
            "input 'age', row 0: expected a number, got 'old'",
        ),
        (bad_text("a.csv", ""), FEATURES, "a.csv': cannot be read as .csv"),
        (bad_text("a.parquet", "x"), FEATURES, "a.parquet': cannot be read as .parquet"),
        (bad_text("a.jsonl", '{"X": [1, 2, 3]}\n{'), FEATURES, "line 2: no JSON"),
        (bad_text("a.jsonl", "[1]\n"), FEATURES, "line 1: expected an object of inputs, got list"),
        (bad_text("a.jsonl", '{"X": [1,2,3]}\n{"x": 1}\n'), FEATURES, "row 1: 'X' is missing"),
        (
            bad_text("a.jsonl", '{"X": [1, 2, 3]}\n{"X": [1, 2]}\n'),
            FEATURES,
            "'X', row 1: expected 3 values in axis 1, got 2",
        ),
        (bad_text("a.jsonl", '{"x": 1}\n'), FEATURES, "expected inputs 'X', got 'x'"),
        (bad_text("a.jsonl", ""), FEATURES, "input 'X' is missing"),
        (bad_text("a.jsonl", '{"X": [[1], [1, 2]]}\n'), FEATURES, "lists of different lengths"),
    ],
)
def test_what_does_not_fit_is_refused(
    make: Callable[[Path], Path], signature: Signature, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        load(make(tmp_path), signature)
