from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from optimizer.candidate import Candidate, Step
from optimizer.data import DataSpec
from optimizer.device import Device, Gpu
from optimizer.goal import Goal
from optimizer.keys import artifact_parts, data_print, winner_parts
from optimizer.samples import Samples

DEVICE = Device("EPYC", 2, 24_000, ("avx2",), versions={"onnx": "1.23"})
INT8 = Candidate(
    "int8", (Step("int8_static", {"method": "minmax"}),), "onnxruntime", {}, needs_data=True
)


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        pytest.param(winner_parts("b", DEVICE, Goal(), "d"), "model", id="model"),
        pytest.param(winner_parts("a", DEVICE, Goal(), "e"), "data", id="data"),
        pytest.param(
            winner_parts("a", DEVICE, Goal(precision="int8"), "d"), "goal precision", id="goal"
        ),
        pytest.param(
            winner_parts("a", replace(DEVICE, versions={"onnx": "2"}), Goal(), "d"),
            "libraries",
            id="libraries",
        ),
        pytest.param(
            winner_parts("a", replace(DEVICE, gpus=(Gpu("H200", 1, "9.0", "580"),)), Goal(), "d"),
            "GPUs",
            id="device",
        ),
    ],
)
def test_what_matters_is_another_question(changed: dict[str, str], part: str) -> None:
    before = winner_parts("a", DEVICE, Goal(), "d")
    assert [name for name in before if before[name] != changed[name]] == [part]


@pytest.mark.parametrize(
    "goal", [Goal(time_limit_s=1), Goal(benchmark_s=1), Goal(memory_limit_mb=1)]
)
def test_how_long_it_may_take_is_not(goal: Goal) -> None:
    assert winner_parts("a", DEVICE, goal, "d") == winner_parts("a", DEVICE, Goal(), "d")


def test_a_candidate_depends_on_data_only_where_it_learns_from_them() -> None:
    plain = replace(INT8, needs_data=False)
    for candidate, differs in ((INT8, True), (plain, False)):
        first = artifact_parts("a", candidate, DEVICE, Goal(), "d")
        second = artifact_parts("a", candidate, DEVICE, Goal(), "e")
        assert (first != second) == differs


def test_a_candidate_depends_on_its_settings() -> None:
    other = replace(INT8, steps=(Step("int8_static", {"method": "entropy"}),))
    parts = [artifact_parts("a", c, DEVICE, Goal(), "d") for c in (INT8, other)]
    assert parts[0]["steps"] != parts[1]["steps"]


def test_files_go_by_content_and_queries_by_text(tmp_path: Path) -> None:
    first, second = tmp_path / "a.npy", tmp_path / "b.npy"
    for path in (first, second):
        np.save(path, np.arange(4))
    assert data_print(DataSpec("file", path=first)) == data_print(DataSpec("file", path=second))
    np.save(second, np.arange(5))
    assert data_print(DataSpec("file", path=first)) != data_print(DataSpec("file", path=second))
    queries = [DataSpec("sql", query=f"SELECT {column} FROM t") for column in "ab"]
    assert data_print(queries[0]) != data_print(queries[1])


def test_a_file_that_is_not_there_is_told_by_whoever_reads_it(tmp_path: Path) -> None:
    assert data_print(DataSpec("file", path=tmp_path / "none.npy"))


def test_rows_go_by_their_values_and_labels() -> None:
    rows = Samples({"x": np.zeros((2, 2), np.float32)})
    texts = Samples({"x": np.array([[b"a"], [b"b"]], dtype=object)})
    others = [
        replace(rows, labels=np.zeros(2)),
        replace(rows, inputs={"z": rows.inputs["x"]}),
        replace(rows, inputs={"x": np.ones((2, 2), np.float32)}),
        texts,
    ]
    prints = {data_print(samples) for samples in (rows, *others, None)}
    assert len(prints) == 6
