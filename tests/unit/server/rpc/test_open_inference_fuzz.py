"""Whatever a client sends, the codec answers with a request or a refusal, never with a bug."""

import contextlib

from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from protos.inference import grpc_service_pb2 as pb
from protos.tensors import DTYPES
from server.errors import ServeError
from server.rpc.open_inference_codec import decode_request
from server.shared_memory import SharedMemoryRegions

names = st.sampled_from(["x", "y", ""])
dimensions = st.one_of(
    st.integers(0, 3),
    st.integers(-2, 5),
    st.sampled_from([2**31, 2**40, 2**62, 2**63 - 1, -(2**63)]),
)
parameter_names = st.sampled_from(
    [
        "priority",
        "timeout",
        "classification",
        "sequence_id",
        "triton_x",
        "mine",
        "shared_memory_region",
        "shared_memory_offset",
        "shared_memory_byte_size",
    ]
)
parameters = st.dictionaries(
    parameter_names,
    st.one_of(
        st.builds(lambda v: pb.InferParameter(int64_param=v), st.integers(-(2**63), 2**63 - 1)),
        st.builds(lambda v: pb.InferParameter(uint64_param=v), st.integers(0, 2**64 - 1)),
        st.builds(lambda v: pb.InferParameter(string_param=v), st.sampled_from(["r", ""])),
        st.just(pb.InferParameter(bool_param=True)),
        st.just(pb.InferParameter()),
    ),
    max_size=3,
)
contents = st.one_of(
    st.none(),
    st.just(pb.InferTensorContents()),
    st.builds(
        lambda v: pb.InferTensorContents(int_contents=v),
        st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4),
    ),
    st.builds(
        lambda v: pb.InferTensorContents(fp32_contents=v, bytes_contents=[b"a"]),
        st.lists(st.floats(width=32), max_size=4),
    ),
    st.builds(
        lambda v: pb.InferTensorContents(bytes_contents=v), st.lists(st.binary(), max_size=4)
    ),
)
inputs = st.builds(
    pb.ModelInferRequest.InferInputTensor,
    name=names,
    datatype=st.sampled_from(["BYTES", "FP32", *DTYPES, "", "FLOAT"]),
    shape=st.lists(dimensions, max_size=4),
    parameters=parameters,
    contents=contents,
)
outputs = st.builds(
    pb.ModelInferRequest.InferRequestedOutputTensor, name=names, parameters=parameters
)
requests = st.builds(
    pb.ModelInferRequest,
    model_name=st.just("m"),
    model_version=st.sampled_from(["", "1", "0", "x", "9" * 5000]),
    inputs=st.lists(inputs, max_size=3),
    outputs=st.lists(outputs, max_size=2),
    parameters=parameters,
    raw_input_contents=st.lists(st.binary(max_size=40), max_size=3),
)


@given(requests)
@settings(max_examples=400, deadline=None)
def test_any_request(request: pb.ModelInferRequest) -> None:
    with contextlib.suppress(ServeError):
        decode_request(request, None, SharedMemoryRegions())


@given(requests, st.data())
@settings(max_examples=200, deadline=None)
def test_any_bytes(request: pb.ModelInferRequest, data: st.DataObject) -> None:
    """A request with one byte changed: most are still messages, of another meaning."""
    damaged = bytearray(request.SerializeToString())
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(ServeError, DecodeError):
        parsed = pb.ModelInferRequest.FromString(bytes(damaged))
        decode_request(parsed, None, SharedMemoryRegions())
