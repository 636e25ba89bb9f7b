from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.commands.connection import CommandError
from server.commands.data_files import Table, read_data


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_npz_has_names_and_npy_has_none(tmp_path: Path) -> None:
    x = np.arange(6.0).reshape(2, 3)
    np.savez(tmp_path / "d.npz", x=x, y=x * 2)
    np.save(tmp_path / "d.npy", x)
    named: Any = read_data(tmp_path / "d.npz")
    assert {name: array.tolist() for name, array in named.items()} == {
        "x": x.tolist(),
        "y": (x * 2).tolist(),
    }
    assert np.array_equal(np.asarray(read_data(tmp_path / "d.npy")), x)


@pytest.mark.parametrize(
    ("text", "columns", "cells"),
    [
        pytest.param("1,2\n3,4\n", (), [["1", "2"], ["3", "4"]], id="numbers only"),
        pytest.param("a,b\n1,2\n", ("a", "b"), [["1", "2"]], id="header"),
        pytest.param("a, b\r\n1,2\r\n\r\n", ("a", "b"), [["1", "2"]], id="Windows line ends"),
        pytest.param("\ufeffa,b\n1,2\n", ("a", "b"), [["1", "2"]], id="byte order mark"),
        pytest.param("nan,1\n", (), [["nan", "1"]], id="NaN is a number"),
        pytest.param('"x,y",b\n1,2\n', ("x,y", "b"), [["1", "2"]], id="quotes"),
    ],
)
def test_csv(tmp_path: Path, text: str, columns: tuple[str, ...], cells: list[list[str]]) -> None:
    data = read_data(write(tmp_path, "d.csv", text))
    assert isinstance(data, Table)
    assert (data.columns, data.cells.tolist()) == (columns, cells)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        pytest.param("d.json", "[[1, 2], [3, 4]]", [[1, 2], [3, 4]], id="rows"),
        pytest.param("d.json", '{"x": [1], "y": ["a"]}', {"x": [1], "y": ["a"]}, id="by name"),
        pytest.param("d.json", '[{"x": 1}, {"x": 2}]', {"x": [1, 2]}, id="records"),
        pytest.param("d.jsonl", "[1, 2]\n[3, 4]\n\n", [[1, 2], [3, 4]], id="lines of rows"),
        pytest.param("d.jsonl", '{"x": [1]}\n{"x": [2]}\n', {"x": [[1], [2]]}, id="lines by name"),
    ],
)
def test_json(tmp_path: Path, name: str, text: str, expected: Any) -> None:
    data: Any = read_data(write(tmp_path, name, text))
    if isinstance(expected, dict):
        assert {key: array.tolist() for key, array in data.items()} == expected
    else:
        assert data.tolist() == expected


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        pytest.param("d.txt", "1", "expected a file ending in .npz", id="unknown ending"),
        pytest.param("d.csv", "", "'.*d.csv' cannot be understood: the file is empty", id="empty"),
        pytest.param("d.csv", "1,2\n3\n", "row 2 has 1 cells, the first has 2", id="ragged csv"),
        pytest.param("d.npy", b"", "cannot be understood: the file is empty", id="empty npy"),
        pytest.param("d.npy", b"no numpy", "cannot be understood", id="no npy"),
        pytest.param("d.npz", b"PK no zip", "cannot be understood", id="no npz"),
        pytest.param(
            "d.json", "[1,", "cannot be understood: Expecting value: line 1", id="cut off"
        ),
        pytest.param("d.json", "[[1, 2], [3]]", "rows are not of one length", id="ragged json"),
        pytest.param("d.json", '{"x": [null]}', "x: expected numbers or texts", id="null"),
        pytest.param("d.json", b"\xff\xfe", "cannot be understood", id="not UTF-8"),
        pytest.param("d.jsonl", "", "the file is empty", id="empty jsonl"),
        pytest.param(
            "d.jsonl",
            '{"x": 1}\n{"y": 1}\n',
            r"row 2 has \['y'\], the first has \['x'\]",
            id="keys",
        ),
    ],
)
def test_what_cannot_be_read_is_said(
    tmp_path: Path, name: str, content: str | bytes, text: str
) -> None:
    with pytest.raises(CommandError, match=text):
        read_data(write(tmp_path, name, content))


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"cannot read '.*gone\.npy': No such file"):
        read_data(tmp_path / "gone.npy")


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", np.array([{"a": 1}], dtype=object))
    with pytest.raises(CommandError, match="cannot be understood"):
        read_data(tmp_path / "d.npy")
