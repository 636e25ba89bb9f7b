"""REST infer bodies <-> Open Inference messages, with the binary tensor extension. Pure functions.

A body is JSON, optionally followed by the raw bytes of tensors, in the order of those that
state `binary_data_size`; the length of the JSON is then in a header. Outputs come back raw when
the request says so for one (`binary_data`) or for all (`binary_data_output`). Everything else
(priorities, timeouts, classification, shared memory) is parameters, handed on as they are.

Source: Open Inference Protocol REST, and Triton's extension_binary_data.md.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from protos.inference import grpc_service_pb2 as pb
from protos.tensors import decode, encode
from server.errors import InvalidRequest
from server.web.tensor_json import array_of, values_of

_REGION = "shared_memory_region"
_INT64_MAX = 2**63 - 1
_JSON_NAMES = {dict: "an object", list: "a list", str: "a string", int: "an integer"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which outputs are to come back as binary data."""

    all_binary: bool = False
    by_name: Mapping[str, bool] = field(default_factory=dict)

    def is_binary(self, output: str) -> bool:
        return self.by_name.get(output, self.all_binary)


def parse_json(body: bytes | memoryview, what: str = "the request body") -> dict[str, Any]:
    """A JSON object; an empty body is an empty one.

    Raises:
        InvalidRequest: not JSON, or not an object.
    """
    if not body:
        return {}
    try:
        value = json.loads(bytes(body))
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{what} is not valid JSON: {error}") from None
    document: dict[str, Any] = _expect(value, dict, what)
    return document


def decode_infer(
    body: bytes, header_length: int | None, model: str, version: str
) -> tuple[pb.ModelInferRequest, Wanted]:
    """The message a body stands for. `header_length`: bytes of JSON; None: all of it.

    Raises:
        InvalidRequest: what is wrong with it, naming the input or key.
    """
    if header_length is not None and not 0 <= header_length <= len(body):
        raise InvalidRequest(
            f"Inference-Header-Content-Length: expected 0 to {len(body)} (the size of the body),"
            f" got {header_length}"
        )
    view = memoryview(body)
    document = parse_json(view[:header_length])
    message = pb.ModelInferRequest(model_name=model, model_version=version)
    message.id = _expect(document.get("id", ""), str, "'id'")
    _decode_inputs(document, view[len(body) if header_length is None else header_length :], message)
    by_name = _decode_outputs(document, message)
    parameters = _parameters(document)
    all_binary = _pop_bool(parameters, "binary_data_output", "the request")
    _set_parameters(message.parameters, parameters)
    return message, Wanted(all_binary, by_name)


def encode_infer(message: pb.ModelInferResponse, wanted: Wanted) -> tuple[bytes, int | None]:
    """The body of an answer, and the length of its JSON where raw tensors follow (else None).

    Raises:
        InvalidRequest: an output cannot be carried by JSON.
    """
    document: dict[str, Any] = {
        "model_name": message.model_name,
        "model_version": message.model_version,
    }
    if message.id:
        document["id"] = message.id
    if message.parameters:
        document["parameters"] = _parameters_json(message.parameters)
    tail: list[bytes] = []
    document["outputs"] = [
        _output_json(output, raw, wanted, tail)
        for output, raw in zip(message.outputs, message.raw_output_contents, strict=True)
    ]
    head = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    return b"".join((head, *tail)), len(head) if tail else None


def _decode_inputs(
    document: dict[str, Any], raw: memoryview, message: pb.ModelInferRequest
) -> None:
    offset = 0
    for entry in _entries(document, "inputs"):
        parameters = _parameters(entry)
        size = parameters.pop("binary_data_size", None)
        name = _expect(entry.get("name"), str, "'name' of an input")
        tensor = message.inputs.add(
            name=name, datatype=_expect(entry.get("datatype"), str, f"'datatype' of input '{name}'")
        )
        tensor.shape.extend(_shape(entry.get("shape"), name))
        if size is not None:
            end = offset + _byte_size(size, name, len(raw) - offset)
            message.raw_input_contents.append(bytes(raw[offset:end]))
            offset = end
        elif _REGION not in parameters:
            data = array_of(entry.get("data"), name, tensor.datatype, tensor.shape)
            message.raw_input_contents.append(encode(data))
        _set_parameters(tensor.parameters, parameters)
    if offset != len(raw):
        raise InvalidRequest(
            f"the inputs state {offset} bytes of binary data, got {len(raw)} bytes after the JSON"
        )


def _byte_size(size: Any, name: str, left: int) -> int:
    _expect(size, int, f"'binary_data_size' of input '{name}'")
    if not 0 <= size <= left:
        raise InvalidRequest(
            f"'binary_data_size' of input '{name}' is {size}, but {left} bytes of binary data are"
            " left in the body"
        )
    return int(size)


def _shape(value: Any, name: str) -> list[int]:
    what = f"'shape' of input '{name}'"
    for size in _expect(value, list, what):
        if not 0 <= _expect(size, int, f"a dimension in {what}") <= _INT64_MAX:
            raise InvalidRequest(f"{what}: expected sizes of 0 or more, got {value}")
    return list(value)


def _decode_outputs(document: dict[str, Any], message: pb.ModelInferRequest) -> dict[str, bool]:
    """Adds the requested outputs; returns what is said of each: binary or not."""
    by_name: dict[str, bool] = {}
    for entry in _entries(document, "outputs"):
        name = _expect(entry.get("name"), str, "'name' of an output")
        parameters = _parameters(entry)
        if "binary_data" in parameters:
            by_name[name] = _pop_bool(parameters, "binary_data", f"output '{name}'")
        _set_parameters(message.outputs.add(name=name).parameters, parameters)
    return by_name


def _output_json(
    output: pb.ModelInferResponse.InferOutputTensor, raw: bytes, wanted: Wanted, tail: list[bytes]
) -> dict[str, Any]:
    """One output's entry; its bytes go to `tail` where they are wanted raw."""
    entry: dict[str, Any] = {
        "name": output.name,
        "datatype": output.datatype,
        "shape": list(output.shape),
    }
    parameters = _parameters_json(output.parameters)
    if wanted.is_binary(output.name):
        parameters["binary_data_size"] = len(raw)
        tail.append(raw)
    elif _REGION not in parameters:
        array = decode(raw, output.datatype, output.shape)
        entry["data"] = values_of(array, output.name)
    if parameters:
        entry["parameters"] = parameters
    return entry


def _entries(document: dict[str, Any], key: str) -> list[dict[str, Any]]:
    entries = _expect(document.get(key, []), list, f"'{key}'")
    return [_expect(entry, dict, f"an entry of '{key}'") for entry in entries]


def _parameters(holder: dict[str, Any]) -> dict[str, Any]:
    """A copy, for what concerns only this form of the request is taken out of it."""
    return dict(_expect(holder.get("parameters", {}), dict, "'parameters'"))


def _pop_bool(parameters: dict[str, Any], key: str, where: str) -> bool:
    value = parameters.pop(key, False)
    if not isinstance(value, bool):
        raise InvalidRequest(f"'{key}' of {where}: expected true or false, got {value!r}")
    return value


def _set_parameters(target: Any, parameters: Mapping[str, Any]) -> None:
    for key, value in parameters.items():
        target[key].CopyFrom(infer_parameter(key, value))


def infer_parameter(key: str, value: Any) -> pb.InferParameter:
    """A JSON value as a protocol parameter."""
    if isinstance(value, bool):
        return pb.InferParameter(bool_param=value)
    if isinstance(value, int) and -_INT64_MAX - 1 <= value <= _INT64_MAX:
        return pb.InferParameter(int64_param=value)
    if isinstance(value, int) and 0 <= value < 2**64:
        return pb.InferParameter(uint64_param=value)
    if isinstance(value, float):
        return pb.InferParameter(double_param=value)
    if isinstance(value, str):
        return pb.InferParameter(string_param=value)
    raise InvalidRequest(
        f"parameter '{key}': expected a boolean, an integer of 64 bits, a number or a string,"
        f" got {value!r}"
    )


def _parameters_json(parameters: Mapping[str, pb.InferParameter]) -> dict[str, Any]:
    return {
        key: getattr(value, value.WhichOneof("parameter_choice") or "string_param")
        for key, value in parameters.items()
    }


def _expect(value: Any, kind: type, what: str) -> Any:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        got = "nothing" if value is None else repr(value)[:40]
        raise InvalidRequest(f"{what}: expected {_JSON_NAMES[kind]}, got {got}")
    return value
