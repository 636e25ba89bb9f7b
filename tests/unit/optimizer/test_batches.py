from collections.abc import Mapping

import numpy as np
import pytest

from optimizer.batches import run_in_batches
from optimizer.errors import DataError
from optimizer.samples import Samples
from protos.tensors import Array

ROWS = Samples({"x": np.arange(7, dtype=np.float32)[:, None]})


class Doubles:
    """Doubles its rows; remembers how many came at once."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        self.batches.append(len(inputs["x"]))
        return {"y": inputs["x"] * 2}


def test_answers_come_in_the_order_of_the_rows() -> None:
    run = Doubles()
    assert run_in_batches(run, ROWS, 3)["y"].ravel().tolist() == [0, 2, 4, 6, 8, 10, 12]


def test_a_last_batch_is_filled_up() -> None:
    run = Doubles()
    run_in_batches(run, ROWS, 3)
    assert run.batches == [3, 3, 3]


def test_the_first_batches_may_have_other_sizes() -> None:
    run = Doubles()
    found = run_in_batches(run, ROWS, 3, first=(1, 1, 2))
    assert run.batches == [1, 1, 2, 3]
    assert found["y"].ravel().tolist() == [0, 2, 4, 6, 8, 10, 12]


def test_no_more_is_run_than_time_allows_but_the_least() -> None:
    assert len(run_in_batches(Doubles(), ROWS, 1, limit_s=-1.0, least=4)["y"]) == 4


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        pytest.param(np.float32(1), "got shape \\[\\]", id="a single number"),
        pytest.param(np.zeros((2, 3)), "got shape \\[2, 3\\]", id="other rows"),
    ],
)
def test_outputs_have_to_follow_the_rows(output: Array, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        run_in_batches(lambda inputs: {"y": np.asarray(output)}, ROWS, 3)


def test_outputs_whose_shape_depends_on_values_cannot_be_compared() -> None:
    def run(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        return {"y": np.zeros((3, int(inputs["x"].max()) + 1))}

    with pytest.raises(DataError, match="depends on the values"):
        run_in_batches(run, ROWS, 3)
