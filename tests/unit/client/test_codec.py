from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from client import codec
from client.codec import StreamSource, decode_response
from client.values import Request
from protos import predict_pb2 as pb


def encode_request(request: Request) -> pb.PredictRequest:
    return pb.PredictRequest.FromString(codec.encode_request(request))


def test_every_field_of_a_request_travels() -> None:
    request = Request(
        "digits",
        {"x": np.array([[1, 2]], np.float32)},
        version=3,
        outputs=["y"],
        priority=2,
        explain=True,
        request_id="r7",
        timeout_s=0.5,
        queue_timeout_s=0.25,
    )
    assert encode_request(request) == pb.PredictRequest(
        model="digits",
        version=3,
        request_id="r7",
        inputs=[
            pb.Tensor(
                name="x",
                datatype="FP32",
                shape=[1, 2],
                raw=np.array([1, 2], "<f4").tobytes(),
            )
        ],
        output_names=["y"],
        priority=2,
        explain=True,
        timeout_ms=500,
        queue_timeout_ms=250,
    )


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.int64).reshape(2, 3),
        np.arange(6, dtype=">f4").reshape(3, 2),
        np.arange(12, dtype=np.float16)[::2],
        np.array(3.5),
        np.array([True, False]),
        np.zeros((0, 4), np.uint8),
        np.random.default_rng(0).normal(size=(300, 40)),
        np.arange(60_000, dtype=np.int16).reshape(200, 300).T,
        np.arange(60_000, dtype=">i4"),
        np.arange(60_000).astype(ml_dtypes.bfloat16),
    ],
    ids=lambda array: f"{array.dtype.str}{list(array.shape)}",
)
def test_tensors_come_back_as_they_went(array: NDArray[Any]) -> None:
    message = encode_request(Request("m", {"x": array}))
    outputs = decode_response(pb.PredictResponse(outputs=message.inputs)).outputs
    np.testing.assert_array_equal(outputs["x"], array)
    assert outputs["x"].dtype == array.dtype.newbyteorder("<")


def test_strings_travel_as_bytes() -> None:
    message = encode_request(Request("m", {"x": ["grün", "blue"]}))
    outputs = decode_response(pb.PredictResponse(outputs=message.inputs)).outputs
    assert [*outputs["x"]] == ["grün".encode(), b"blue"]


def test_an_input_that_cannot_be_sent_is_named() -> None:
    with pytest.raises(ValueError, match=r'input "x": dtype complex128'):
        encode_request(Request("m", {"x": np.zeros(2, complex)}))


@pytest.mark.parametrize("field", ["timeout_s", "queue_timeout_s"])
@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_a_timeout_that_is_not_positive_is_refused(field: str, seconds: float) -> None:
    with pytest.raises(ValueError, match=f"{field}: expected a positive"):
        encode_request(Request("m", {}, **{field: seconds}))  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["version", "priority"])
def test_a_negative_number_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field}: expected a whole number, 0 or more, got -1"):
        encode_request(Request("m", {}, **{field: -1}))  # type: ignore[arg-type]


def test_timing_arrives_in_seconds() -> None:
    timing = decode_response(
        pb.PredictResponse(
            timing=pb.Timing(
                total_ns=3_000_000, queue_ns=1_000_000, batch_size=4, release_reason="full"
            )
        )
    ).timing
    assert timing is not None
    assert (timing.total_s, timing.queue_s) == (0.003, 0.001)
    assert (timing.batch_size, timing.release_reason) == (4, "full")


def test_a_failed_request_of_a_stream_raises_only_when_its_result_is_taken() -> None:
    status = pb.Status(code=8, message="full", retry_after_ms=20)
    prediction = decode_response(pb.PredictResponse(request_id="a", status=status))
    assert prediction.error is not None
    assert prediction.error.retry_after_s == 0.02
    with pytest.raises(type(prediction.error), match="RESOURCE_EXHAUSTED: full"):
        prediction.result()


def test_a_stream_numbers_requests_without_an_id() -> None:
    requests = [Request("m", {}), Request("m", {}, request_id="mine"), Request("m", {})]
    messages = map(pb.PredictRequest.FromString, StreamSource().messages(requests))
    ids = [message.request_id for message in messages]
    assert ids == ["0", "mine", "2"]


def test_a_stream_ends_at_a_request_that_cannot_be_sent() -> None:
    source = StreamSource()
    requests = [Request("m", {}), Request("m", {"x": [1j]}), Request("m", {})]
    assert len([*source.messages(requests)]) == 1
    assert isinstance(source.failure, ValueError)
