"""Rows made up from a signature."""

from collections.abc import Mapping

import numpy as np
import pytest

from optimizer.data import generate
from optimizer.errors import DataError
from protos.signature import Signature, TensorSpec
from protos.tensors import Array

TOKENS = Signature(
    (TensorSpec("ids", "INT64", ("batch", "seq")), TensorSpec("mask", "INT64", ("batch", "seq"))),
    (),
)


def echo(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    return {"y": inputs["ids"].astype(np.float32)}


def test_rows_are_as_many_as_asked_and_known_to_be_made_up() -> None:
    samples = generate(TOKENS, echo, 40, seed=3)
    assert samples.rows == 40
    assert not samples.is_real
    assert samples.inputs["ids"].shape == samples.inputs["mask"].shape
    assert samples.origin == "40 rows made up from the signature"


def test_the_model_is_asked_with_rows_it_can_take() -> None:
    shapes = []

    def fixed(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        shapes.append(inputs["x"].shape)
        return {"y": inputs["x"]}

    signature = Signature((TensorSpec("x", "FP32", (4, 3)),), ())
    assert generate(signature, fixed, 8, seed=0).inputs["x"].shape == (8, 3)
    assert shapes == [(4, 3)]


def test_a_model_that_answers_nothing_says_why() -> None:
    def refuse(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        raise ValueError("ids have to be prime")

    with pytest.raises(DataError, match="give real rows: ids have to be prime"):
        generate(TOKENS, refuse, 8, seed=0)
