"""Dividing rows: nothing on both sides, all classes on each."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.calibration import split
from optimizer.samples import Samples
from protos.tensors import Array


def rows_of(samples: Samples) -> set[bytes]:
    x = samples.inputs["x"]
    return {x[row].tobytes() for row in range(samples.rows)}


def numbered(rows: int, labels: Array | None = None) -> Samples:
    x = np.arange(rows, dtype=np.float32)[:, None]
    return Samples({"x": x}, labels, origin="a.npz")


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=60),
    st.integers(0, 5),
    st.integers(0, 20),
    st.booleans(),
)
def test_no_row_is_on_both_sides(
    values: list[int], seed: int, calibration_rows: int, has_labels: bool
) -> None:
    x = np.array(values, np.float32)[:, None]
    samples = Samples({"x": x}, x[:, 0] % 3 if has_labels else None)
    calibration, validation = split(samples, seed, calibration_rows, 40)
    assert not rows_of(calibration) & rows_of(validation)
    assert len(rows_of(calibration)) == calibration.rows
    assert calibration.rows <= min(calibration_rows, len(set(values)) // 2)
    assert 1 <= validation.rows <= 40


def test_the_same_seed_gives_the_same_rows_and_another_seed_others() -> None:
    first, again, other = (split(numbered(100), seed)[0].inputs["x"] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_all_rows_are_used_where_there_are_few() -> None:
    calibration, validation = split(numbered(101), 0)
    assert (calibration.rows, validation.rows) == (50, 51)
    assert calibration.origin == "a.npz: 50 rows for calibration"


def test_limits_are_kept_where_there_are_many() -> None:
    calibration, validation = split(numbered(10_000), 0)
    assert (calibration.rows, validation.rows) == (512, 2048)


def test_the_only_row_is_for_validation() -> None:
    samples = Samples({"x": np.zeros((5, 2), np.float32)})
    calibration, validation = split(samples, 0)
    assert (calibration.rows, validation.rows) == (0, 5)


@pytest.mark.parametrize("kind", [np.int64, np.float64, str, object])
def test_both_sides_have_all_classes_in_their_shares(kind: type) -> None:
    labels: Array = np.array([0] * 900 + [1] * 80 + [2] * 20).astype(kind)
    calibration, validation = split(numbered(1000, labels), 3, 100, 400)
    for side in (calibration, validation):
        assert side.labels is not None
        shares = [np.mean(side.labels == label) for label in np.unique(labels)]
        assert shares == pytest.approx([0.9, 0.08, 0.02], abs=0.015)


def test_amounts_are_no_classes() -> None:
    calibration, validation = split(numbered(100, np.linspace(0, 1, 100)), 0)
    assert calibration.rows + validation.rows == 100


def test_texts_are_told_apart_by_all_inputs() -> None:
    words = np.array([b"a", b"b", b"a", b"a"], dtype=object)[:, None]
    numbers = np.array([1, 1, 2, 1], np.int64)[:, None]
    calibration, validation = split(Samples({"w": words, "n": numbers}), 0)
    pairs = [
        {(w[0], int(n[0])) for w, n in zip(side.inputs["w"], side.inputs["n"], strict=True)}
        for side in (calibration, validation)
    ]
    assert not pairs[0] & pairs[1]
    assert len(pairs[0] | pairs[1]) == 3
