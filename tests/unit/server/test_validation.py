"""What a request is refused for, and in which words."""

from typing import Any

import numpy as np
import pytest

from protos.signature import Signature, TensorSpec
from protos.tensors import Array
from server.errors import BackendError, InvalidRequest
from server.probe import PadPlan, Profile
from server.request import InferRequest
from server.validation import Validator

SIGNATURE = Signature(
    (
        TensorSpec("ids", "INT64", ("n", "s")),
        TensorSpec("image", "FP32", ("n", 3, 8)),
        TensorSpec("extra", "FP32", ("n",), optional=True),
    ),
    (TensorSpec("y", "FP32", ("n", 2)), TensorSpec("z", "FP32", ("n",))),
)
BATCHED = Profile(batchable=True, max_batch=4)


def request(output_names: tuple[str, ...] = (), **inputs: Array) -> InferRequest:
    good: dict[str, Array] = {
        "ids": np.zeros((2, 5), np.int64),
        "image": np.zeros((2, 3, 8), np.float32),
    }
    return InferRequest("m", {**good, **inputs}, output_names=output_names)


def check(asked: InferRequest, profile: Profile = BATCHED) -> None:
    Validator("m", SIGNATURE, profile).check(asked)


def test_a_good_request_passes_with_and_without_its_optional_input() -> None:
    check(request())
    check(request(extra=np.zeros(2, np.float32), output_names=("z",)))


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        pytest.param(
            request(surprise=np.zeros(2)),
            "unexpected inference input 'surprise' for model 'm', expected 'ids', 'image', 'extra'",
            id="unknown input",
        ),
        pytest.param(
            InferRequest("m", {"ids": np.zeros((1, 1), np.int64)}),
            "expected 2 inputs but got 1 inputs for model 'm'. Got input(s) ['ids'], but missing"
            " required input(s) ['image']. Please provide all required input(s).",
            id="missing input",
        ),
        pytest.param(
            request(ids=np.zeros((2, 5), np.int32)),
            "inference input 'ids' data-type is 'INT32', but model 'm' expects 'INT64'",
            id="datatype",
        ),
        pytest.param(
            request(image=np.zeros((2, 8, 3), np.float32)),
            "unexpected shape for input 'image' for model 'm'. Expected [-1,3,8], got [2,8,3]",
            id="fixed dimension",
        ),
        pytest.param(
            request(ids=np.zeros(2, np.int64)),
            "unexpected shape for input 'ids' for model 'm'. Expected [-1,-1], got [2]",
            id="number of dimensions",
        ),
        pytest.param(
            request(ids=np.zeros((3, 5), np.int64)),
            "input 'image' batch size does not match other inputs for 'm': it has 2 rows,"
            " 'ids' has 3",
            id="rows differ",
        ),
        pytest.param(
            request(output_names=("y", "w")),
            "unexpected inference output 'w' for model 'm', expected 'y', 'z'",
            id="unknown output",
        ),
    ],
)
def test_refusal(asked: InferRequest, text: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check(asked)
    assert str(refused.value) == text


def test_more_rows_than_max_batch_are_welcome_where_requests_may_be_split() -> None:
    many: dict[str, Any] = {
        "ids": np.zeros((9, 5), np.int64),
        "image": np.zeros((9, 3, 8), np.float32),
    }
    check(InferRequest("m", many))


def test_more_rows_than_declared_are_refused_where_requests_run_as_they_come() -> None:
    with pytest.raises(InvalidRequest, match="inference request batch-size must be <= 1 for 'm'"):
        check(request(), Profile(batchable=False, reason="unsafe", request_rows=1))


def test_the_mask_of_a_padded_model_may_be_left_out() -> None:
    signature = Signature(
        (TensorSpec("ids", "INT64", ("n", "s")), TensorSpec("mask", "INT64", ("n", "s"))),
        (TensorSpec("y", "FP32", ("n", 2)),),
    )
    pad = PadPlan((("ids", 1), ("mask", 1)), (), "mask")
    asked = InferRequest("m", {"ids": np.zeros((2, 3), np.int64)})
    Validator("m", signature, Profile(batchable=True, max_batch=4, pad=pad)).check(asked)
    assert asked.inputs["mask"].tolist() == [[1, 1, 1], [1, 1, 1]]


def test_a_failed_run_is_blamed_on_lengths_that_should_have_been_equal() -> None:
    signature = Signature(
        (TensorSpec("ids", "INT64", ("n", "s")), TensorSpec("mask", "INT64", ("n", "s"))),
        (TensorSpec("y", "FP32", ("n", 2)),),
    )
    validator = Validator("m", signature, BATCHED)
    failure = BackendError("onnxruntime: Mul: shapes do not fit")
    inputs: dict[str, Array] = {"ids": np.ones((1, 3), np.int64), "mask": np.ones((1, 4), np.int64)}
    blamed = validator.blame(InferRequest("m", inputs), failure)
    assert isinstance(blamed, InvalidRequest)
    assert str(blamed) == (
        "input 'mask' for model 'm' has 4 in dimension 1 ('s'), but input 'ids' has 3:"
        " onnxruntime: Mul: shapes do not fit"
    )
    assert validator.blame(InferRequest("m", {**inputs, "mask": inputs["ids"]}), failure) is failure
