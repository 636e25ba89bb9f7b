import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from protos.tensors import DTYPES
from server.errors import InvalidRequest
from server.web.tensor_json import array_of, values_of


@pytest.mark.parametrize(
    ("data", "datatype", "shape", "expected"),
    [
        pytest.param([1, 2, 3, 4], "FP32", [2, 2], [[1.0, 2.0], [3.0, 4.0]], id="flat"),
        pytest.param([[1, 2], [3, 4]], "FP32", [2, 2], [[1.0, 2.0], [3.0, 4.0]], id="nested"),
        pytest.param([[1, 2], [3, 4]], "FP32", [4], [1.0, 2.0, 3.0, 4.0], id="other nesting"),
        pytest.param([1.5], "FP16", [1], [1.5], id="half"),
        pytest.param([1.5, -2], "BF16", [2], [1.5, -2.0], id="bfloat16"),
        pytest.param([0.1], "FP64", [1], [0.1], id="double"),
        pytest.param([1e300], "FP32", [1], [math.inf], id="beyond the largest float"),
        pytest.param([-128, 127], "INT8", [2], [-128, 127], id="int8 limits"),
        pytest.param([2**64 - 1, 0], "UINT64", [2], [2**64 - 1, 0], id="uint64 limits"),
        pytest.param([2**64], "FP64", [1], [2.0**64], id="an integer beyond 64 bits"),
        pytest.param([-(2**63)], "INT64", [1], [-(2**63)], id="int64 limit"),
        pytest.param([True, False], "BOOL", [2], [True, False], id="booleans"),
        pytest.param(["a", "é", ""], "BYTES", [3], [b"a", "é".encode(), b""], id="strings"),
        pytest.param([["a"], ["b"]], "BYTES", [2, 1], [[b"a"], [b"b"]], id="nested strings"),
        pytest.param([], "FP32", [0, 4], [], id="no rows"),
        pytest.param([[], []], "INT32", [2, 0], [[], []], id="empty rows"),
        pytest.param([], "BYTES", [0], [], id="no strings"),
        pytest.param([7], "INT32", [], 7, id="a scalar"),
    ],
)
def test_json_values_become_an_array(
    data: list[Any], datatype: str, shape: list[int], expected: Any
) -> None:
    array = array_of(data, "x", datatype, shape)
    assert array.dtype == DTYPES[datatype]
    assert array.shape == tuple(shape)
    assert array.tolist() == expected


@pytest.mark.parametrize(
    ("data", "datatype", "shape", "text"),
    [
        (None, "FP32", [1], "input 'x': expected a list as data, got None"),
        ("12", "FP32", [2], "expected a list as data, got '12'"),
        ([1, 2], "FP32", [3], "expected 3 elements for shape [3], got 2"),
        ([[1, 2], [3]], "FP32", [3], "the lists of data differ in length"),
        ([1, "2"], "FP32", [2], "expected numbers for FP32, got '2'"),
        ([1, None], "FP32", [2], "expected numbers for FP32, got None"),
        ([True], "FP32", [1], "expected numbers for FP32, got True"),
        ([1.5], "INT32", [1], "expected integers for INT32, got 1.5"),
        ([1, 1.5], "INT32", [2], "expected integers for INT32, got 1.5"),
        ([1, 0], "BOOL", [2], "expected booleans for BOOL, got 1"),
        ([300], "UINT8", [1], "300 is out of range for UINT8, expected 0 to 255"),
        ([-1], "UINT64", [1], "-1 is out of range for UINT64"),
        ([2**63], "INT64", [1], "is out of range for INT64"),
        ([2**64, 0], "UINT64", [2], "18446744073709551616 is out of range for UINT64"),
        ([10**400], "FP64", [1], "an integer is too large for FP64"),
        ([1], "BYTES", [1], "expected strings for BYTES, got 1"),
        ([{"a": 1}], "FP32", [1], "expected numbers for FP32, got {'a': 1}"),
        ([1], "FLOAT", [1], "unknown datatype 'FLOAT', expected one of BOOL, UINT8"),
    ],
)
def test_wrong_values_are_named(data: Any, datatype: str, shape: list[int], text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        array_of(data, "x", datatype, shape)
    assert text in str(caught.value)


def test_nan_and_infinity_are_bare_words() -> None:
    text = "[NaN, Infinity, -Infinity]"
    array = array_of(json.loads(text), "x", "FP32", [3])
    assert np.isnan(array[0])
    assert array[1:].tolist() == [math.inf, -math.inf]
    assert json.dumps(values_of(array, "x")) == text


@pytest.mark.parametrize("datatype", [name for name in DTYPES if name not in ("BYTES", "BOOL")])
def test_values_survive_both_ways(datatype: str) -> None:
    array = np.array([[0, 1], [2, 100]]).astype(DTYPES[datatype])
    values = json.loads(json.dumps(values_of(array, "y")))
    assert array_of(values, "y", datatype, [2, 2]).tolist() == array.tolist()


def test_strings_and_booleans_are_written_plainly() -> None:
    assert values_of(np.array([[b"a", "é".encode()]], object), "y") == ["a", "é"]
    assert values_of(np.array([True, False]), "y") == [True, False]


def test_bytes_that_are_no_text_cannot_be_json() -> None:
    with pytest.raises(InvalidRequest, match="output 'y' holds bytes that are no UTF-8 text"):
        values_of(np.array([b"\xff"], object), "y")


@given(st.lists(st.floats(width=32, allow_nan=False), max_size=20))
def test_every_float32_survives(values: list[float]) -> None:
    array = np.array(values, np.float32)
    read = json.loads(json.dumps(values_of(array, "y")))
    assert array_of(read, "y", "FP32", [len(values)]).tobytes() == array.tobytes()


@example([-(2**63) - 1])
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists))
def test_any_json_is_taken_or_refused(data: Any) -> None:
    for datatype in DTYPES:
        try:
            array_of(data, "x", datatype, [2])
        except InvalidRequest as refusal:
            assert str(refusal).startswith("input 'x': ")
