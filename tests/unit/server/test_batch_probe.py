"""Rows that influence each other are found out; rounding and near ties are forgiven."""

from collections.abc import Mapping

import numpy as np
import onnxruntime
import pytest

from optimizer.runner import Run
from protos.signature import Signature, TensorSpec
from protos.tensors import Array
from server.batch_probe import (
    ACCELERATOR,
    CPU,
    DYNAMIC_QUANTIZATION,
    Tolerance,
    is_repeatable,
    mixing_reason,
    shape_reason,
)
from tests import models


def session(content: bytes) -> Run:
    opened = onnxruntime.InferenceSession(content)
    names = [node.name for node in opened.get_outputs()]
    return lambda inputs: dict(zip(names, opened.run(names, dict(inputs)), strict=True))


class Make:
    """Rows of normal numbers named x."""

    def __init__(self, width: int = 4) -> None:
        self.width = width

    def __call__(self, rows: int, seed: int) -> Mapping[str, Array]:
        generator = np.random.default_rng(seed)
        return {"x": generator.standard_normal((rows, self.width)).astype(np.float32)}


MIXING = {
    "softmax over the batch": models.softmax_over_batch(),
    "cumulative sum over the batch": models.cumulative_over_batch(),
    "reversed batch": models.reversed_batch(),
    "mean of the batch": models.minus_batch_mean(),
    "batch normalization as in training": models.batch_norm_training(),
}


@pytest.mark.parametrize("content", MIXING.values(), ids=MIXING)
@pytest.mark.parametrize("rows", [2, 3, 16])
def test_rows_that_influence_each_other_are_found(content: bytes, rows: int) -> None:
    run = session(content)
    for tolerance in (CPU, ACCELERATOR, DYNAMIC_QUANTIZATION):
        reason = mixing_reason(run, Make(), rows, tolerance)
        assert reason.startswith("rows of a batch influence each other: row ")


@pytest.mark.parametrize("rows", [2, 3, 16, 64])
def test_independent_rows_are_safe(rows: int) -> None:
    assert mixing_reason(session(models.mlp()), Make(16), rows, CPU) == ""
    assert mixing_reason(session(models.argmax()), Make(16), rows, CPU) == ""


def test_rows_that_get_lost_are_found() -> None:
    reason = mixing_reason(session(models.rows_lost()), Make(), 2, CPU)
    assert reason == "output 'y' has shape [1, 4] for 2 rows"


def test_a_model_that_takes_one_row_only_is_found() -> None:
    def one_row(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        return {"y": inputs["x"].reshape(1, 4)}

    reason = mixing_reason(one_row, Make(), 2, CPU)
    assert reason.startswith("a batch of 2 rows fails where one row runs: ")


def test_a_row_that_fails_alone_is_no_failure_of_the_load() -> None:
    def never_alone(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        if len(inputs["x"]) == 1:
            raise ValueError("lonely")
        return {"y": inputs["x"]}

    reason = mixing_reason(never_alone, Make(), 2, CPU)
    assert reason == "rows that run together fail alone or in another order: lonely"


def test_dependence_on_the_order_is_found() -> None:
    def position_of_the_largest(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        x = inputs["x"].copy()
        if len(x) > 3:
            x[5] += x[4]  # rows 4 and 5 are not among those run alone
        return {"y": x}

    reason = mixing_reason(position_of_the_largest, Make(), 64, CPU)
    assert reason.endswith("in another order")


def test_random_outputs_are_not_repeatable() -> None:
    inputs = Make()(1, 0)
    assert not is_repeatable(session(models.random_noise()), inputs)
    assert is_repeatable(session(models.minus_batch_mean()), inputs)


def with_noise(relative: float, dtype: str = "f4") -> Run:
    """y = x, off by so much of its range when there is more than one row."""

    def run(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        x = inputs["x"]
        return {"y": (x + (len(x) > 1) * relative * np.abs(x).max()).astype(dtype)}

    return run


ROUNDING = [
    (5e-4, "f4", CPU, True),
    (5e-3, "f4", CPU, False),
    (5e-3, "f4", ACCELERATOR, True),
    (5e-3, "f2", CPU, True),
    (5e-2, "f2", CPU, False),
    (5e-2, "f4", DYNAMIC_QUANTIZATION, True),
]


@pytest.mark.parametrize(("relative", "dtype", "tolerance", "is_safe"), ROUNDING)
def test_rounding_is_told_from_influence(
    relative: float, dtype: str, tolerance: Tolerance, is_safe: bool
) -> None:
    assert (mixing_reason(with_noise(relative, dtype), Make(), 3, tolerance) == "") is is_safe


def test_a_near_tie_is_forgiven_once_but_not_twice() -> None:
    def label(inputs: Mapping[str, Array], wrong_for: set[float]) -> Mapping[str, Array]:
        x = inputs["x"]
        is_wrong = len(x) > 1 and float(x[0, 0]) in wrong_for
        return {"label": np.full(len(x), int(is_wrong))}

    seeds = [float(Make()(2, seed)["x"][0, 0]) for seed in (0, 1)]
    assert mixing_reason(lambda x: label(x, {seeds[0]}), Make(), 2, CPU) == ""
    reason = mixing_reason(lambda x: label(x, {*seeds}), Make(), 2, CPU)
    assert "another 'label' (whole numbers and texts must be equal)" in reason


def test_nan_equals_nan_and_nothing_else() -> None:
    def nan_when_alone(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        x = inputs["x"]
        return {"y": x * np.nan if len(x) == 1 else x}

    assert mixing_reason(lambda x: {"y": x["x"] * np.nan}, Make(), 2, CPU) == ""
    assert mixing_reason(nan_when_alone, Make(), 2, CPU) != ""


def signature(x: tuple[int | str, ...], y: tuple[int | str, ...], *more: TensorSpec) -> Signature:
    return Signature((TensorSpec("x", "FP32", x), *more), (TensorSpec("y", "FP32", y),))


SHAPES = {
    "batch by the same name": (signature(("n", 4), ("n", 4)), ""),
    "batch by another name": (signature(("n", 4), ("m", 4)), ""),
    "fixed input": (
        signature((1, 4), ("n", 4)),
        "input 'x' FP32[1, 4] has no variable dimension 0",
    ),
    "fixed output": (
        signature(("n", 4), (1, 4)),
        "output 'y' FP32[1, 4] has no variable dimension 0",
    ),
    "scalar input": (signature((), ("n",)), "input 'x' FP32[] has no variable dimension 0"),
    "square input": (
        signature(("n", "n"), ("n",)),
        "dimension 'n' is also dimension 1 of input 'x'",
    ),
    "optional input without batch": (
        signature(("n", 4), ("n", 4), TensorSpec("bias", "FP32", (4,), optional=True)),
        "input 'bias' FP32[4] has no variable dimension 0 (it is optional; a config.pbtxt that"
        " does not list it hides it)",
    ),
    "no inputs": (Signature((), ()), "the model has no inputs"),
}


@pytest.mark.parametrize(("given", "reason"), SHAPES.values(), ids=SHAPES)
def test_shapes_that_rule_batching_out(given: Signature, reason: str) -> None:
    assert shape_reason(given) == reason
