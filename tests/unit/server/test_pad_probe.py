"""Padding is done only where the model hides it."""

from collections.abc import Mapping

import numpy as np
import onnxruntime
import pytest

from optimizer.example_inputs import Recipe
from protos.signature import Signature, TensorSpec
from protos.tensors import Array
from server.backends.ort import read_signature
from server.batch_probe import CPU
from server.pad_probe import pad_plan
from server.probe import PadPlan
from tests import models


def plan_of(content: bytes, mask: str | None = None) -> tuple[PadPlan | None, str]:
    session = onnxruntime.InferenceSession(content)
    names = [node.name for node in session.get_outputs()]

    def run(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        return dict(zip(names, session.run(names, dict(inputs)), strict=True))

    return pad_plan(run, read_signature(session), Recipe(), mask, CPU)


def test_masked_model_is_padded_and_its_outputs_cropped() -> None:
    plan, reason = plan_of(models.masked_mean())
    assert reason == ""
    assert plan == PadPlan(
        inputs=(("ids", 1), ("attention_mask", 1)),
        outputs=(("tokens", 1),),
        mask="attention_mask",
    )


def test_model_that_ignores_its_mask_is_not_padded() -> None:
    plan, reason = plan_of(models.unmasked_mean())
    assert plan is None
    assert reason.startswith("padding changes the answer: another 'y'")
    assert "does not hide what input 'attention_mask' masks" in reason


def test_positions_that_do_not_see_each_other_need_no_mask() -> None:
    plan, reason = plan_of(models.embedding())
    assert reason == ""
    assert plan == PadPlan((("ids", 1),), (("y", 1),), mask="")


def test_texts_are_padded_with_empty_texts() -> None:
    plan, _ = plan_of(models.identity("BYTES", ("n", "s")))
    assert plan == PadPlan((("x", 1),), (("y", 1),))


def test_unnamed_dimensions_go_together() -> None:
    plan, _ = plan_of(models.identity("FP32", (None, None, 3)))
    assert plan == PadPlan((("x", 1),), (("y", 1),))


@pytest.mark.parametrize(
    ("content", "mask", "reason"),
    [
        (models.mlp(), None, "no input has a variable dimension beside the batch"),
        (models.masked_mean(), "no_mask", "pad_mask: the model has no input 'no_mask'"),
    ],
)
def test_what_cannot_be_padded_says_why(content: bytes, mask: str | None, reason: str) -> None:
    assert plan_of(content, mask) == (None, reason)


def test_model_that_fails_on_padded_rows_is_not_padded() -> None:
    signature = Signature(
        (TensorSpec("x", "FP32", ("n", "s")),), (TensorSpec("y", "FP32", ("n", "s")),)
    )

    def fails(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        if len(inputs["x"]) > 1:
            raise ValueError("one row at a time")
        return {"y": np.asarray(inputs["x"])}

    plan, reason = pad_plan(fails, signature, Recipe(), None, CPU)
    assert plan is None
    assert reason == "the model fails on padded rows: one row at a time"
