from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protos import models_pb2 as pb
from server.commands.connection import CommandError
from server.commands.data_files import Data, Table
from server.commands.data_fit import fit


def tensor(
    name: str = "x", datatype: str = "FP32", shape: tuple[int, ...] = (-1, 2)
) -> pb.TensorInfo:
    return pb.TensorInfo(name=name, datatype=datatype, shape=shape)


def table(cells: list[list[str]], *columns: str) -> Table:
    return Table(Path("d.csv"), columns, np.array(cells))


TWO = np.array([[1.0, 2.0], [3.0, 4.0]])


@pytest.mark.parametrize(
    ("data", "wanted", "dtype", "values"),
    [
        pytest.param(TWO, tensor(), "f4", TWO.tolist(), id="float64 becomes FP32"),
        pytest.param(TWO, tensor(datatype="INT64"), "i8", [[1, 2], [3, 4]], id="whole numbers"),
        pytest.param(TWO[0], tensor(), "f4", [[1, 2]], id="one row gets the batch dimension"),
        pytest.param({"arr_0": TWO}, tensor(), "f4", TWO.tolist(), id="any name of one array"),
        pytest.param(
            np.arange(8.0).reshape(2, 4),
            tensor(shape=(-1, 1, 2, 2)),
            "f4",
            [[[[0, 1], [2, 3]]], [[[4, 5], [6, 7]]]],
            id="flat rows are folded",
        ),
        pytest.param(
            table([["1", "2.5"]], "a", "b"), tensor(), "f4", [[1, 2.5]], id="table as one input"
        ),
        pytest.param(
            table([["9007199254740993", "1"]]),
            tensor(datatype="INT64"),
            "i8",
            [[9007199254740993, 1]],
            id="large whole numbers lose nothing",
        ),
        pytest.param(
            table([["1.0", "0"]]), tensor(datatype="INT32"), "i4", [[1, 0]], id="1.0 is whole"
        ),
        pytest.param(
            np.array([["a", "b"]]), tensor(datatype="BYTES"), "O", [["a", "b"]], id="texts"
        ),
        pytest.param(TWO > 2, tensor(datatype="BOOL"), "?", [[0, 0], [1, 1]], id="truth values"),
    ],
)
def test_data_are_brought_into_form(
    data: Data, wanted: pb.TensorInfo, dtype: str, values: list[Any]
) -> None:
    inputs = fit(data, [wanted])
    assert inputs["x"].dtype == np.dtype(dtype)
    assert inputs["x"].tolist() == values


def test_columns_go_to_the_inputs_of_their_name() -> None:
    wanted = [tensor("age", shape=(-1, 1)), tensor("city", "BYTES", (-1, 1))]
    inputs = fit(table([["41", "x", "Rome"]], "age", "other", "city"), wanted)
    assert (inputs["age"].tolist(), inputs["city"].tolist()) == ([[41]], [["Rome"]])


def test_right_answers_beside_the_inputs_are_left_out() -> None:
    assert [*fit({"x": TWO, "label": np.zeros(2)}, [tensor()])] == ["x"]
    assert [*fit({"x": TWO, "y": TWO}, [tensor(), tensor("y")])] == ["x", "y"]
    rows = table([["1", "2", "0"]], "a", "b", "target")
    assert fit(rows, [tensor()])["x"].tolist() == [[1, 2]]


def test_optional_inputs_may_be_missing() -> None:
    bias = pb.TensorInfo(name="bias", datatype="FP32", shape=[2], optional=True)
    assert [*fit(TWO, [tensor(), bias])] == ["x"]


@pytest.mark.parametrize(
    ("data", "wanted", "text"),
    [
        pytest.param(
            {"a": TWO, "b": TWO},
            [tensor()],
            r"the model wants x FP32\[-1, 2\]; the file has a, b",
            id="other names",
        ),
        pytest.param(
            {"x": TWO}, [tensor(), tensor("z")], r"z FP32\[-1, 2\]; the file has x", id="missing"
        ),
        pytest.param(
            TWO, [tensor(), tensor("z")], "the file has one array without a name", id="which one"
        ),
        pytest.param(
            np.array([[0.5, 1]]), [tensor(datatype="INT64")], "wants INT64", id="fractions"
        ),
        pytest.param(
            np.array([[300, 1]]), [tensor(datatype="UINT8")], "wants UINT8", id="too large"
        ),
        pytest.param(
            table([["1", "2"], ["3", "x"]]),
            [tensor()],
            "wants FP32, the file has 'x' in row 2, column 2",
            id="no number",
        ),
    ],
)
def test_what_does_not_fit_is_said(data: Data, wanted: list[pb.TensorInfo], text: str) -> None:
    with pytest.raises(CommandError, match=text):
        fit(data, wanted)
