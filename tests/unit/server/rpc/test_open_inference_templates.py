"""The shortcut gives what the long way gives, or nothing."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos.inference import grpc_service_pb2 as pb
from protos.tensors import Array, datatype_of, encode
from server.request import InferRequest
from server.rpc.open_inference_codec import decode_request
from server.rpc.open_inference_templates import RequestTemplates
from server.shared_memory import SharedMemoryRegions


def message(
    *arrays: Array,
    request_id: str = "",
    model: str = "m",
    version: str = "",
    outputs: Sequence[str] = (),
) -> pb.ModelInferRequest:
    made = pb.ModelInferRequest(model_name=model, model_version=version, id=request_id)
    for number, array in enumerate(arrays):
        made.inputs.add(name=f"x{number}", datatype=datatype_of(array), shape=array.shape)
        made.raw_input_contents.append(encode(array))
    for name in outputs:
        made.outputs.add(name=name)
    return made


def learned(example: pb.ModelInferRequest) -> RequestTemplates:
    templates = RequestTemplates()
    data = example.SerializeToString()
    parsed = pb.ModelInferRequest.FromString(data)
    templates.learn(data, parsed, decode_request(parsed, None, SharedMemoryRegions()).request)
    return templates


def is_known(templates: RequestTemplates, asked: pb.ModelInferRequest) -> bool:
    return templates.decode(asked.SerializeToString(), None) is not None


X = np.arange(6, dtype=np.float32).reshape(2, 3)
K = np.array([[1], [2]], np.int64)

DTYPES = st.sampled_from(["f2", "f4", "f8", "i1", "i4", "i8", "u1", "?"])
SHAPES = st.lists(st.integers(0, 3), max_size=3).map(tuple)


@given(
    st.lists(st.tuples(DTYPES, SHAPES), min_size=1, max_size=3),
    st.text(max_size=20),
    st.text(max_size=20),
    st.integers(0, 2**32 - 1),
    st.lists(st.sampled_from("ab"), unique=True),
)
def test_a_repeated_request_is_decoded_as_the_long_way_does(
    tensors: list[tuple[str, tuple[int, ...]]],
    first_id: str,
    second_id: str,
    seed: int,
    outputs: list[str],
) -> None:
    values = np.random.default_rng(seed)

    def arrays() -> list[Array]:
        return [values.integers(0, 2, shape).astype(dtype) for dtype, shape in tensors]

    templates = learned(message(*arrays(), request_id=first_id, version="3", outputs=outputs))
    data = message(
        *arrays(), request_id=second_id, version="3", outputs=outputs
    ).SerializeToString()
    parsed = pb.ModelInferRequest.FromString(data)
    expected = decode_request(parsed, 7.0, SharedMemoryRegions()).request
    found = templates.decode(data, 7.0)
    assert found is not None
    assert (found.model, found.version, found.request_id) == ("m", 3, second_id)
    assert (found.output_names, found.deadline) == (expected.output_names, 7.0)
    assert found.inputs.keys() == expected.inputs.keys()
    for name, array in expected.inputs.items():
        assert found.inputs[name].dtype == array.dtype
        assert found.inputs[name].flags.aligned
        np.testing.assert_array_equal(found.inputs[name], array)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(message(X, K, model="n"), id="another model"),
        pytest.param(message(X, K, version="2"), id="another version"),
        pytest.param(message(X.T.copy(), K), id="another shape of the same size"),
        pytest.param(message(X.view(np.int32), K), id="another datatype of the same size"),
        pytest.param(message(X, K, outputs=["y"]), id="outputs named"),
        pytest.param(message(X), id="fewer inputs"),
    ],
)
def test_what_differs_in_more_than_id_and_values_goes_the_long_way(
    other: pb.ModelInferRequest,
) -> None:
    templates = learned(message(X, K))
    assert is_known(templates, message(X + 1, K + 1, request_id="another"))
    assert not is_known(templates, other)


def with_parameter() -> pb.ModelInferRequest:
    made = message(X)
    made.parameters["priority"].int64_param = 1
    return made


def with_shared_memory() -> pb.ModelInferRequest:
    made = message(X)
    made.outputs.add(name="y").parameters["classification"].int64_param = 1
    return made


def with_contents() -> pb.ModelInferRequest:
    made = pb.ModelInferRequest(model_name="m")
    made.inputs.add(name="x", datatype="FP32", shape=[1]).contents.fp32_contents.append(1)
    return made


@pytest.mark.parametrize(
    "special",
    [
        pytest.param(with_parameter(), id="request parameter"),
        pytest.param(with_shared_memory(), id="output parameter"),
        pytest.param(with_contents(), id="typed contents"),
        pytest.param(message(np.array([b"a"], object)), id="BYTES"),
        pytest.param(message(X, model="m" * 200), id="long name"),
        pytest.param(message(X, outputs=["y"] * 10_000), id="too long to be kept a thousand times"),
    ],
)
def test_special_requests_are_not_learned(special: pb.ModelInferRequest) -> None:
    assert not is_known(learned(special), special)


def test_fields_in_an_unusual_order_are_not_learned() -> None:
    data = (
        message(X, request_id="a").SerializeToString()
        + pb.ModelInferRequest(id="b").SerializeToString()
    )
    templates, parsed = RequestTemplates(), pb.ModelInferRequest.FromString(data)
    templates.learn(data, parsed, decode_request(parsed, None, SharedMemoryRegions()).request)
    assert parsed.id == "b"
    assert templates.decode(data, None) is None


@given(st.binary(max_size=60))
def test_any_bytes_are_refused_politely(data: bytes) -> None:
    assert learned(message(X)).decode(data, None) is None


def described(request: InferRequest) -> object:
    """All of a request but when it came."""
    inputs = {name: (array.dtype, array.tolist()) for name, array in request.inputs.items()}
    return request.model, request.version, request.request_id, request.output_names, inputs


@given(st.integers(0, 200), st.integers(0, 255))
def test_a_changed_byte_outside_the_values_is_noticed(position: int, byte: int) -> None:
    data = bytearray(message(X, request_id="id").SerializeToString())
    templates = learned(message(X, request_id="id"))
    position %= len(data) - X.nbytes
    data[position] = byte
    found = templates.decode(bytes(data), None)
    if found is not None:
        parsed = pb.ModelInferRequest.FromString(bytes(data))
        expected = decode_request(parsed, None, SharedMemoryRegions()).request
        assert described(found) == described(expected)
