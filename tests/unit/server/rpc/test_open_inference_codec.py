"""Open Inference messages to requests and back: tables of rules, in Triton's words."""

import struct
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from protos.inference import grpc_service_pb2 as pb
from protos.tensors import Array
from server.errors import Code, InvalidRequest, ServeError
from server.request import InferResponse, Timing
from server.rpc.open_inference_codec import (
    Decoded,
    decode_request,
    encode_response,
    encode_stream_error,
    encode_stream_response,
    parse_version,
)
from server.shared_memory import RegionNotFound, SharedMemoryRegions

NO_REGIONS = SharedMemoryRegions()
Fill = Callable[[pb.ModelInferRequest], object]


def message(
    *tensors: tuple[str, str, Sequence[int]], raw: Sequence[bytes] = ()
) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="m", raw_input_contents=raw)
    for name, datatype, shape in tensors:
        request.inputs.add(name=name, datatype=datatype, shape=shape)
    return request


def one_input(
    datatype: str = "FP32", shape: Sequence[int] = (2,), raw: bytes | None = None
) -> pb.ModelInferRequest:
    return message(("x", datatype, shape), raw=[struct.pack("<2f", 1, 2) if raw is None else raw])


def decode(request: pb.ModelInferRequest, regions: SharedMemoryRegions = NO_REGIONS) -> Decoded:
    parsed = pb.ModelInferRequest.FromString(request.SerializeToString())
    return decode_request(parsed, None, regions)


def refusal(request: pb.ModelInferRequest, regions: SharedMemoryRegions = NO_REGIONS) -> ServeError:
    with pytest.raises(ServeError) as error:
        decode(request, regions)
    return error.value


class TestInputs:
    def test_raw_inputs_are_read_only_views_in_the_order_of_the_inputs(self) -> None:
        request = message(
            ("a", "FP32", [1, 2]),
            ("b", "INT64", [1]),
            raw=[struct.pack("<2f", 1, 2), struct.pack("<q", -3)],
        )
        inputs = decode(request).request.inputs
        assert inputs["a"].tolist() == [[1, 2]]
        assert inputs["b"].tolist() == [-3]
        assert not inputs["a"].flags.owndata
        assert not inputs["a"].flags.writeable

    @pytest.mark.parametrize(
        ("datatype", "raw", "shape", "expected"),
        [
            ("BOOL", b"\x01\x00", [2], [True, False]),
            ("UINT8", b"\xff", [1], [255]),
            ("INT16", b"\xff\xff", [1], [-1]),
            ("FP16", np.array([1.5], "<f2").tobytes(), [1], [1.5]),
            ("BF16", np.array([1.5], ml_dtypes.bfloat16).tobytes(), [1], [1.5]),
            ("BYTES", b"\x02\x00\x00\x00hi\x00\x00\x00\x00", [2], [b"hi", b""]),
            ("FP32", struct.pack("<f", 7), [], 7.0),
            ("FP32", b"", [0, 4], []),
        ],
    )
    def test_raw_of_each_kind(
        self, datatype: str, raw: bytes, shape: list[int], expected: object
    ) -> None:
        array = decode(one_input(datatype, shape, raw)).request.inputs["x"]
        assert array.tolist() == expected
        assert array.shape == tuple(shape)

    @pytest.mark.parametrize(
        ("datatype", "field", "values", "expected"),
        [
            ("BOOL", "bool_contents", [True, False], [True, False]),
            ("INT8", "int_contents", [-1, 300], [-1, 44]),
            ("INT16", "int_contents", [-1, 70000], [-1, 4464]),
            ("INT32", "int_contents", [-1, 2**31 - 1], [-1, 2**31 - 1]),
            ("INT64", "int64_contents", [-(2**63), 1], [-(2**63), 1]),
            ("UINT8", "uint_contents", [255, 256], [255, 0]),
            ("UINT16", "uint_contents", [1, 65536], [1, 0]),
            ("UINT32", "uint_contents", [1, 2**32 - 1], [1, 2**32 - 1]),
            ("UINT64", "uint64_contents", [1, 2**64 - 1], [1, 2**64 - 1]),
            ("FP32", "fp32_contents", [1.5, -2], [1.5, -2]),
            ("FP64", "fp64_contents", [1e300, 0], [1e300, 0]),
            ("BYTES", "bytes_contents", [b"a", b""], [b"a", b""]),
        ],
    )
    def test_typed_contents(
        self, datatype: str, field: str, values: list[Any], expected: list[Any]
    ) -> None:
        request = message(("x", datatype, [1, 2]))
        getattr(request.inputs[0].contents, field).extend(values)
        assert decode(request).request.inputs["x"].tolist() == [expected]

    @pytest.mark.parametrize(
        ("request_", "text"),
        [
            pytest.param(
                one_input(raw=b"1234567"),
                "input byte size mismatch for input 'x' for model 'm'. Expected 8, got 7",
                id="too few bytes",
            ),
            pytest.param(
                one_input(raw=b"123456789"),
                "input byte size mismatch for input 'x' for model 'm'. Expected 8, got 9",
                id="too many bytes",
            ),
            pytest.param(
                one_input(shape=[-1]),
                "All input dimensions should be specified for input 'x' for model 'm', got [-1]",
                id="negative dimension",
            ),
            pytest.param(
                one_input("FLOAT"),
                "inference input 'x' for model 'm': unknown datatype 'FLOAT'",
                id="unknown datatype",
            ),
            pytest.param(
                one_input("BYTES", [1], b"\x05\x00\x00\x00ab"),
                "input byte size mismatch for input 'x' for model 'm': BYTES tensor",
                id="string ends early",
            ),
            pytest.param(
                one_input("BYTES", [2**33, 2], b"\x05\x00\x00\x00ab"),
                "takes at least 68719476736 bytes, got 6 bytes",
                id="shape claims more than there is",
            ),
            pytest.param(
                message(("x", "FP32", [2])),
                "unable to find data for input tensor 'x' for model 'm' in request.",
                id="no data",
            ),
            pytest.param(
                message(("x", "FP32", [2]), ("x", "FP32", [2]), raw=[b"12345678"] * 2),
                "input 'x' already exists in request",
                id="input twice",
            ),
        ],
    )
    def test_refusals(self, request_: pb.ModelInferRequest, text: str) -> None:
        error = refusal(request_)
        assert text in str(error)
        assert error.code == Code.INVALID_ARGUMENT

    @pytest.mark.parametrize(
        ("datatype", "fill", "text"),
        [
            (
                "INT32",
                lambda contents: contents.fp32_contents.append(1),
                "unexpected explicit tensor data for input tensor 'x' for model 'm' of type"
                " 'FP32', expected datatype 'INT32'",
            ),
            (
                "FP16",
                lambda contents: contents.fp32_contents.append(1),
                "of type 'FP32', expected datatype 'FP16'",
            ),
            (
                "FP32",
                lambda contents: (
                    contents.fp32_contents.append(1),
                    contents.int_contents.append(1),
                ),
                "binary data was already supplied.",
            ),
            (
                "FP32",
                lambda contents: contents.fp32_contents.extend([1, 2]),
                "input byte size mismatch for input 'x' for model 'm'. Expected 4, got 8",
            ),
            (
                "BYTES",
                lambda contents: contents.bytes_contents.extend([b"a", b"b"]),
                "expected 1 elements, got 2",
            ),
        ],
        ids=["other type", "raw only", "two fields", "too many", "too many strings"],
    )
    def test_refused_contents(
        self, datatype: str, fill: Callable[[pb.InferTensorContents], object], text: str
    ) -> None:
        request = message(("x", datatype, [1]))
        fill(request.inputs[0].contents)
        assert text in str(refusal(request))

    def test_contents_beside_raw_are_refused(self) -> None:
        request = one_input()
        request.inputs[0].contents.fp32_contents.extend([1, 2])
        assert "contents field must not be specified when using raw_input_contents for 'x'" in str(
            refusal(request)
        )


class TestRequest:
    def test_all_of_a_request_arrives(self) -> None:
        request = one_input()
        request.model_version, request.id = "3", "r-1"
        request.outputs.add(name="y")
        request.outputs.add(name="z")
        request.parameters["priority"].uint64_param = 2
        request.parameters["timeout"].int64_param = 2_500_000
        decoded = decode_request(request, 12.5, NO_REGIONS).request
        assert (decoded.model, decoded.version, decoded.request_id) == ("m", 3, "r-1")
        assert decoded.output_names == ("y", "z")
        assert (decoded.priority, decoded.queue_timeout_s, decoded.deadline) == (2, 2.5, 12.5)

    def test_what_is_not_said_is_left_to_the_server(self) -> None:
        decoded = decode(one_input()).request
        assert (decoded.version, decoded.output_names, decoded.priority) == (None, (), 0)
        assert decoded.queue_timeout_s is None

    def test_an_output_asked_for_twice_is_one(self) -> None:
        request = one_input()
        request.outputs.add(name="y")
        request.outputs.add(name="y")
        assert decode(request).request.output_names == ("y",)

    @pytest.mark.parametrize("text", ["0", "-1", "1.5", "latest", "²", " 1", "9" * 5000])
    def test_a_version_is_a_positive_number(self, text: str) -> None:
        with pytest.raises(InvalidRequest, match="version should be an integral value > 0"):
            parse_version(text)

    @pytest.mark.parametrize(
        "fill",
        [
            lambda p: p["sequence_id"].__setattr__("int64_param", 4),
            lambda p: p["sequence_id"].__setattr__("string_param", "four"),
            lambda p: p["sequence_start"].__setattr__("bool_param", True),
            lambda p: p["sequence_end"].__setattr__("bool_param", False),
            lambda p: p["binary_data_output"].__setattr__("bool_param", False),
            lambda p: p["triton_enable_empty_final_response"].__setattr__("bool_param", True),
            lambda p: p["timeout"].__setattr__("int64_param", 0),
            lambda p: p["priority"].__setattr__("int64_param", 0),
            lambda p: p["my_own"].__setattr__("double_param", 0.5),
            lambda p: p["my_own"].__setattr__("string_param", ""),
        ],
    )
    def test_parameters_without_effect(self, fill: Callable[[Any], object]) -> None:
        request = one_input()
        fill(request.parameters)
        decoded = decode(request).request
        assert (decoded.priority, decoded.queue_timeout_s) == (0, None)

    @pytest.mark.parametrize(
        ("key", "value", "text"),
        [
            (
                "priority",
                pb.InferParameter(int64_param=-1),
                "invalid value for 'priority', expected value >= 0.",
            ),
            (
                "priority",
                pb.InferParameter(string_param="1"),
                "invalid value type for 'priority' parameter, expected int64_param or"
                " uint64_param.",
            ),
            (
                "timeout",
                pb.InferParameter(uint64_param=1),
                "invalid value type for 'timeout' parameter, expected int64_param.",
            ),
            (
                "timeout",
                pb.InferParameter(int64_param=-1),
                "invalid value for 'timeout', expected value >= 0.",
            ),
            (
                "sequence_id",
                pb.InferParameter(bool_param=True),
                "invalid value type for 'sequence_id' parameter, expected int64_param or"
                " string_param.",
            ),
            (
                "sequence_start",
                pb.InferParameter(int64_param=1),
                "invalid value type for 'sequence_start' parameter, expected bool_param.",
            ),
            (
                "triton_enable_empty_final_response",
                pb.InferParameter(int64_param=1),
                "invalid value type for 'triton_enable_empty_final_response' parameter,"
                " expected bool_param.",
            ),
            (
                "triton_other",
                pb.InferParameter(bool_param=True),
                "parameter keys starting with 'triton_' are reserved for Triton usage. Only the"
                " following keys starting with 'triton_' are allowed:"
                " triton_enable_empty_final_response",
            ),
            ("headers", pb.InferParameter(string_param="x"), "'headers' is reserved"),
            ("my_own", pb.InferParameter(), "invalid value type for 'my_own' parameter"),
        ],
    )
    def test_refused_parameters(self, key: str, value: pb.InferParameter, text: str) -> None:
        request = one_input()
        request.parameters[key].CopyFrom(value)
        error = refusal(request)
        assert text in str(error)
        assert error.code == Code.INVALID_ARGUMENT


@pytest.fixture
def regions() -> Iterator[SharedMemoryRegions]:
    """One region "r" of 32 bytes: the numbers 0 to 7 as FP32."""
    path = Path(f"/dev/shm/inflight-test-{uuid.uuid4().hex}")
    path.write_bytes(np.arange(8, dtype="<f4").tobytes())
    registered = SharedMemoryRegions()
    registered.register("r", path.name, 0, 32)
    yield registered
    path.unlink()


def place(
    parameters: Any, region: str = "r", byte_size: int = 8, offset: int | None = None
) -> None:
    parameters["shared_memory_region"].string_param = region
    parameters["shared_memory_byte_size"].int64_param = byte_size
    if offset is not None:
        parameters["shared_memory_offset"].int64_param = offset


def _place_with_a_text_as_offset(parameters: Any) -> None:
    place(parameters)
    parameters["shared_memory_offset"].string_param = "1"


class TestSharedMemory:
    def test_inputs_are_views_and_take_no_raw_entry(self, regions: SharedMemoryRegions) -> None:
        request = message(
            ("a", "FP32", [2]), ("b", "FP32", [2]), ("c", "FP32", [1]), raw=[b"\0" * 8]
        )
        place(request.inputs[0].parameters)
        place(request.inputs[2].parameters, byte_size=4, offset=12)
        inputs = decode(request, regions).request.inputs
        assert [inputs[name].tolist() for name in "abc"] == [[0, 1], [0, 0], [3]]
        regions.view("r", 0, 4)[:] = struct.pack("<f", 9)
        assert inputs["a"].tolist() == [9, 1]

    @pytest.mark.parametrize(
        ("fill", "kind", "text"),
        [
            (
                lambda p: place(p, region="nobody"),
                RegionNotFound,
                "Unable to find shared memory region: 'nobody'",
            ),
            (
                lambda p: place(p, offset=32),
                InvalidRequest,
                "Invalid offset for shared memory region: 'r'",
            ),
            (
                lambda p: place(p, byte_size=40),
                InvalidRequest,
                "Invalid offset + byte size for shared memory region: 'r'",
            ),
            (
                lambda p: place(p, byte_size=12),
                InvalidRequest,
                "input byte size mismatch for input 'x' for model 'm'. Expected 8, got 12",
            ),
            (
                lambda p: p["shared_memory_region"].__setattr__("string_param", "r"),
                InvalidRequest,
                "'shared_memory_byte_size' must be specified along with 'shared_memory_region'"
                " parameter for tensor 'x'",
            ),
            (
                lambda p: p["shared_memory_offset"].__setattr__("int64_param", 1),
                InvalidRequest,
                "'shared_memory_offset' can not be specified without 'shared_memory_region'"
                " parameter for tensor 'x'",
            ),
            (
                _place_with_a_text_as_offset,
                InvalidRequest,
                "invalid value type for 'shared_memory_offset' parameter for tensor 'x',"
                " expected int64_param.",
            ),
        ],
        ids=["unknown", "offset", "size", "shape", "no size", "no region", "type"],
    )
    def test_refusals(
        self,
        regions: SharedMemoryRegions,
        fill: Callable[[Any], object],
        kind: type[ServeError],
        text: str,
    ) -> None:
        request = message(("x", "FP32", [2]))
        fill(request.inputs[0].parameters)
        error = refusal(request, regions)
        assert isinstance(error, kind)
        assert text in str(error)

    def test_contents_beside_a_region_are_refused(self, regions: SharedMemoryRegions) -> None:
        request = message(("x", "FP32", [2]))
        place(request.inputs[0].parameters)
        request.inputs[0].contents.fp32_contents.extend([1, 2])
        text = "unexpected 'content' provided when using shared memory for input tensor 'x'"
        assert text in str(refusal(request, regions))

    def test_outputs_are_written_and_stay_out_of_the_response(
        self, regions: SharedMemoryRegions
    ) -> None:
        request = one_input()
        place(request.outputs.add(name="y").parameters, byte_size=16, offset=4)
        decoded = decode(request, regions)
        assert decoded.request.output_names == ("y",)
        outputs: dict[str, Array] = {
            "y": np.array([[5, 6]], np.float32),
            "z": np.array([1], np.int8),
        }
        encoded = pb.ModelInferResponse.FromString(
            encode_response(response_of(outputs), decoded.places)
        )
        assert list(encoded.raw_output_contents) == [b"", b"\x01"]
        assert list(encoded.outputs[0].shape) == [1, 2]
        assert np.frombuffer(regions.view("r", 0, 32), "<f4").tolist()[:4] == [0, 5, 6, 3]

    def test_strings_are_written_in_wire_form(self, regions: SharedMemoryRegions) -> None:
        outputs: dict[str, Array] = {"y": np.array([b"ab"], object)}
        encode_response(response_of(outputs), {"y": regions.view("r", 0, 8)})
        assert bytes(regions.view("r", 0, 6)) == b"\x02\x00\x00\x00ab"

    def test_an_output_larger_than_its_region_is_an_error(
        self, regions: SharedMemoryRegions
    ) -> None:
        outputs = {"y": np.zeros(3, np.float32)}
        text = (
            r"shared memory size specified with the request for output 'y' \(8 bytes\) should be"
            " at least 12 bytes to hold the results"
        )
        with pytest.raises(ServeError, match=text) as error:
            encode_response(response_of(outputs), {"y": regions.view("r", 0, 8)})
        assert error.value.code == Code.INTERNAL

    def test_no_classes_in_shared_memory(self, regions: SharedMemoryRegions) -> None:
        request = one_input()
        output = request.outputs.add(name="y")
        place(output.parameters)
        output.parameters["classification"].int64_param = 1
        text = "output can't set both 'shared_memory_region' and 'classification'"
        assert text in str(refusal(request, regions))


class TestClassification:
    def test_the_number_of_classes_is_kept_for_the_answer(self) -> None:
        request = one_input()
        request.outputs.add(name="y").parameters["classification"].int64_param = 3
        assert decode(request).classes == {"y": 3}

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (
                pb.InferParameter(int64_param=0),
                "invalid value for 'classification' parameter, expected >= 1",
            ),
            (
                pb.InferParameter(string_param="3"),
                "invalid value type for 'classification' parameter, expected int64_param",
            ),
        ],
    )
    def test_refusals(self, value: pb.InferParameter, text: str) -> None:
        request = one_input()
        request.outputs.add(name="y").parameters["classification"].CopyFrom(value)
        assert text in str(refusal(request))


def response_of(outputs: dict[str, Array]) -> InferResponse:
    return InferResponse("m", 3, "r-1", outputs, "onnx-1", Timing())


class TestResponse:
    def test_all_of_a_response_is_sent(self) -> None:
        outputs: dict[str, Array] = {
            "y": np.array([[1, 2]], np.float32),
            "s": np.array([[b"a", b"bc"]], dtype=object),
        }
        encoded = pb.ModelInferResponse.FromString(encode_response(response_of(outputs)))
        assert (encoded.model_name, encoded.model_version, encoded.id) == ("m", "3", "r-1")
        assert [(o.name, o.datatype, list(o.shape)) for o in encoded.outputs] == [
            ("y", "FP32", [1, 2]),
            ("s", "BYTES", [1, 2]),
        ]
        assert list(encoded.raw_output_contents) == [
            struct.pack("<2f", 1, 2),
            b"\x01\x00\x00\x00a\x02\x00\x00\x00bc",
        ]

    @pytest.mark.parametrize(
        ("array", "expected"),
        [
            (np.zeros((0, 3), np.float32), []),
            (np.array(5, np.int64), 5),
            (np.arange(4, dtype=np.float32).reshape(2, 2).T, [[0, 2], [1, 3]]),
            (np.arange(2, dtype=">f4"), [0, 1]),
            (np.array([True, False]), [True, False]),
            (np.array([1.5], np.float16), [1.5]),
            (np.array([1.5], ml_dtypes.bfloat16), [1.5]),
            (np.array(["é"]), ["é".encode()]),
            (np.zeros(40_000, np.float64), [0] * 40_000),
        ],
        ids=["empty", "scalar", "transposed", "swapped", "BOOL", "FP16", "BF16", "text", "large"],
    )
    def test_every_array_survives(self, array: Array, expected: object) -> None:
        encoded = pb.ModelInferResponse.FromString(encode_response(response_of({"y": array})))
        output = encoded.outputs[0]
        echoed = message(("y", output.datatype, output.shape), raw=encoded.raw_output_contents)
        assert decode(echoed).request.inputs["y"].tolist() == expected

    def test_a_stream_response_is_the_same_and_final(self) -> None:
        response = response_of({"y": np.zeros((2, 50), np.float32), "z": np.array([1])})
        streamed = pb.ModelStreamInferResponse.FromString(encode_stream_response(response))
        assert streamed.error_message == ""
        assert streamed.infer_response.parameters["triton_final_response"].bool_param
        del streamed.infer_response.parameters["triton_final_response"]
        unary = pb.ModelInferResponse.FromString(encode_response(response))
        assert streamed.infer_response == unary

    def test_a_stream_error_says_which_request_failed(self) -> None:
        request = pb.ModelInferRequest(model_name="m", id="r-1")
        failed = pb.ModelStreamInferResponse.FromString(encode_stream_error(request, "why"))
        assert (failed.error_message, failed.infer_response.id) == ("why", "r-1")
        assert failed.infer_response.model_name == "m"
        assert failed.infer_response.parameters["triton_final_response"].bool_param
