import json
from typing import Any

import numpy as np
import pytest

from protos.inference import grpc_service_pb2 as pb
from server.errors import InvalidRequest
from server.web.infer_json import Wanted, decode_infer, encode_infer, infer_parameter, parse_json


def body(document: Any, *tails: bytes) -> tuple[bytes, int | None]:
    """A request body and its header length, as a client sends them."""
    head = json.dumps(document).encode()
    return b"".join((head, *tails)), len(head) if tails else None


def decode(document: Any, *tails: bytes) -> tuple[pb.ModelInferRequest, Wanted]:
    return decode_infer(*body(document, *tails), "m", "2")


def x(**more: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "shape": [1, 2], **more}


FLOATS = np.array([1, 2], np.float32).tobytes()


def test_json_data_becomes_raw() -> None:
    message, wanted = decode({"id": "r7", "inputs": [x(data=[[1, 2]])]})
    assert (message.model_name, message.model_version, message.id) == ("m", "2", "r7")
    (tensor,) = message.inputs
    assert (tensor.name, tensor.datatype, list(tensor.shape)) == ("x", "FP32", [1, 2])
    assert list(message.raw_input_contents) == [FLOATS]
    assert not wanted.is_binary("y")


def test_binary_data_follows_the_json_in_the_order_of_the_inputs() -> None:
    first = x(parameters={"binary_data_size": 8, "content": "image"})
    document = {
        "inputs": [
            first,
            {"name": "n", "datatype": "INT32", "shape": [1], "data": [5]},
            {
                "name": "s",
                "datatype": "BYTES",
                "shape": [1],
                "parameters": {"binary_data_size": 5},
            },
        ]
    }
    message, _ = decode(document, FLOATS, b"\x01\0\0\0a")
    assert list(message.raw_input_contents) == [FLOATS, b"\x05\0\0\0", b"\x01\0\0\0a"]
    assert {key: p.string_param for key, p in message.inputs[0].parameters.items()} == {
        "content": "image"
    }


def test_a_tensor_in_shared_memory_brings_no_data() -> None:
    place = {"shared_memory_region": "r", "shared_memory_byte_size": 8}
    message, _ = decode({"inputs": [x(parameters=place)]})
    assert not message.raw_input_contents
    assert message.inputs[0].parameters["shared_memory_byte_size"].int64_param == 8


@pytest.mark.parametrize(
    ("parameters", "outputs", "binary"),
    [
        ({}, [], {"y": False, "z": False}),
        ({"binary_data_output": True}, [], {"y": True, "z": True}),
        ({}, [{"name": "y", "parameters": {"binary_data": True}}], {"y": True}),
        ({}, [{"name": "y", "parameters": {"binary_data": False}}], {"y": False}),
        (
            {"binary_data_output": True},
            [{"name": "y", "parameters": {"binary_data": False}}, {"name": "z"}],
            {"y": False, "z": True},
        ),
    ],
    ids=["neither", "all", "one", "explicitly not", "all but one"],
)
def test_what_is_wanted_binary(
    parameters: dict[str, Any], outputs: list[Any], binary: dict[str, bool]
) -> None:
    message, wanted = decode(
        {"inputs": [x(data=[1, 2])], "parameters": parameters, "outputs": outputs}
    )
    assert {name: wanted.is_binary(name) for name in binary} == binary
    assert [output.name for output in message.outputs] == [output["name"] for output in outputs]
    assert not message.parameters
    assert all(not output.parameters for output in message.outputs)


def test_other_parameters_are_handed_on() -> None:
    message, _ = decode(
        {
            "inputs": [x(data=[1, 2])],
            "parameters": {"priority": 1, "timeout": 5000, "note": "n", "ratio": 0.5, "on": True},
            "outputs": [{"name": "y", "parameters": {"classification": 3}}],
        }
    )
    assert message.parameters["priority"].int64_param == 1
    assert message.parameters["timeout"].int64_param == 5000
    assert message.parameters["note"].string_param == "n"
    assert message.parameters["ratio"].double_param == 0.5
    assert message.parameters["on"].bool_param is True
    assert message.outputs[0].parameters["classification"].int64_param == 3


@pytest.mark.parametrize(
    ("document", "tail", "text"),
    [
        ([], b"", "the request body: expected an object, got []"),
        ({"id": 3}, b"", "'id': expected a string, got 3"),
        ({"inputs": {}}, b"", "'inputs': expected a list, got {}"),
        ({"inputs": ["x"]}, b"", "an entry of 'inputs': expected an object, got 'x'"),
        ({"inputs": [{}]}, b"", "'name' of an input: expected a string, got nothing"),
        ({"inputs": [{"name": "x"}]}, b"", "'datatype' of input 'x': expected a string"),
        ({"inputs": [x(shape=2)]}, b"", "'shape' of input 'x': expected a list, got 2"),
        ({"inputs": [x(shape=[-1])]}, b"", "'shape' of input 'x': expected sizes of 0 or more"),
        ({"inputs": [x(shape=[2**63])]}, b"", "'shape' of input 'x': expected sizes of 0 or more"),
        ({"inputs": [x(shape=[1.5])]}, b"", "a dimension in 'shape' of input 'x'"),
        ({"inputs": [x(shape=[True])]}, b"", "a dimension in 'shape' of input 'x'"),
        ({"inputs": [x()]}, b"", "input 'x': expected a list as data, got None"),
        ({"inputs": [x(data=[1])]}, b"", "expected 2 elements for shape [1, 2], got 1"),
        ({"inputs": [x(parameters=[])]}, b"", "'parameters': expected an object, got []"),
        ({"inputs": [x(parameters={"binary_data_size": "8"})]}, b"1234", "expected an integer"),
        (
            {"inputs": [x(parameters={"binary_data_size": 8})]},
            b"1234",
            "'binary_data_size' of input 'x' is 8, but 4 bytes of binary data are left",
        ),
        (
            {"inputs": [x(parameters={"binary_data_size": 4})]},
            b"12345678",
            "the inputs state 4 bytes of binary data, got 8 bytes after the JSON",
        ),
        ({"parameters": {"binary_data_output": 1}}, b"", "expected true or false, got 1"),
        ({"parameters": {"a": None}}, b"", "parameter 'a': expected a boolean"),
        ({"parameters": {"a": 2**64}}, b"", "parameter 'a': expected a boolean"),
        ({"outputs": [{}]}, b"", "'name' of an output: expected a string, got nothing"),
    ],
)
def test_what_is_wrong_with_a_body_is_said(document: Any, tail: bytes, text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode(document, tail) if tail else decode(document)
    assert text in str(caught.value)


@pytest.mark.parametrize("length", [-1, 3])
def test_a_header_length_beyond_the_body_is_refused(length: int) -> None:
    with pytest.raises(InvalidRequest, match=r"expected 0 to 2 \(the size of the body\), got"):
        decode_infer(b"{}", length, "m", "")


@pytest.mark.parametrize("text", [b"{", b"\xff", b"[" * 100_000], ids=["cut", "latin", "deep"])
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidRequest, match="the request body is not valid JSON"):
        parse_json(text)


def test_no_body_is_an_empty_object() -> None:
    assert parse_json(b"") == {}


def test_a_large_unsigned_parameter_keeps_its_value() -> None:
    assert infer_parameter("p", 2**64 - 1).uint64_param == 2**64 - 1


def answer() -> pb.ModelInferResponse:
    message = pb.ModelInferResponse(model_name="m", model_version="2", id="é")
    message.outputs.add(name="y", datatype="FP32", shape=[1, 2])
    message.outputs.add(name="s", datatype="BYTES", shape=[1])
    message.raw_output_contents.extend([FLOATS, b"\x02\0\0\0\xc3\xa9"])
    return message


def test_an_answer_is_json() -> None:
    data, header_length = encode_infer(answer(), Wanted())
    assert header_length is None
    assert json.loads(data) == {
        "model_name": "m",
        "model_version": "2",
        "id": "é",
        "outputs": [
            {"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]},
            {"name": "s", "datatype": "BYTES", "shape": [1], "data": ["é"]},
        ],
    }


def test_binary_outputs_follow_the_json() -> None:
    data, header_length = encode_infer(answer(), Wanted(by_name={"s": True}))
    assert header_length is not None
    document = json.loads(data[:header_length])
    assert document["outputs"][0]["data"] == [1.0, 2.0]
    assert document["outputs"][1] == {
        "name": "s",
        "datatype": "BYTES",
        "shape": [1],
        "parameters": {"binary_data_size": 6},
    }
    assert data[header_length:] == b"\x02\0\0\0\xc3\xa9"


def test_an_output_written_to_shared_memory_has_no_data() -> None:
    message = pb.ModelInferResponse(model_name="m", model_version="2")
    output = message.outputs.add(name="y", datatype="FP32", shape=[2])
    output.parameters["shared_memory_region"].string_param = "r"
    message.raw_output_contents.append(b"")
    data, _ = encode_infer(message, Wanted())
    (entry,) = json.loads(data)["outputs"]
    assert entry["parameters"] == {"shared_memory_region": "r"}
    assert "data" not in entry
