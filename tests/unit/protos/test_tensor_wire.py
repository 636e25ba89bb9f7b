from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from protos import predict_pb2 as pb
from protos.tensor_wire import serialize
from protos.tensors import decode
from protos.wire import varint

LARGE = np.random.default_rng(0).normal(size=(64, 100))


@pytest.mark.parametrize(
    "array",
    [
        pytest.param(np.arange(4, dtype=np.float32), id="small"),
        pytest.param(LARGE, id="large"),
        pytest.param(LARGE.T, id="large, not contiguous"),
        pytest.param(LARGE.astype(">f4"), id="large, big-endian"),
        pytest.param(LARGE.astype(ml_dtypes.bfloat16), id="large BF16"),
        pytest.param(LARGE > 0, id="large BOOL"),
        pytest.param(np.array([b"abc"] * 5000, dtype=object), id="large BYTES"),
        pytest.param(np.zeros((0, 7), np.int8), id="empty"),
    ],
)
def test_tensors_arrive_as_they_were_in_their_order(array: NDArray[Any]) -> None:
    tensors = {"first": np.array([1]), "second": array, "third": np.array(2.5)}
    message = pb.PredictResponse(model="m", timing=pb.Timing(total_ns=5))
    read = pb.PredictResponse.FromString(serialize(message, message.outputs, tensors))
    assert (read.model, read.timing.total_ns) == ("m", 5)
    assert [tensor.name for tensor in read.outputs] == ["first", "second", "third"]
    second = read.outputs[1]
    np.testing.assert_array_equal(decode(second.raw, second.datatype, tuple(second.shape)), array)


def test_requests_are_serialized_alike() -> None:
    message = pb.PredictRequest(model="m")
    read = pb.PredictRequest.FromString(serialize(message, message.inputs, {"x": LARGE}))
    (x,) = read.inputs
    assert x.raw == LARGE.tobytes()


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**31, 2**40])
def test_varint_is_protobufs(value: int) -> None:
    assert pb.PredictRequest.FromString(b"\x10" + varint(value)).version == value
