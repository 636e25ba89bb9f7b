"""The `parameters` maps of an Open Inference request: what they may hold, and Triton's refusals.

Two kinds: those of the request (priority, timeout, sequence, custom) and those that say where a
tensor lives (shared memory) or how an output is wanted (classification). Pure functions.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from protos.inference import grpc_service_pb2 as pb
from server.errors import InvalidRequest
from server.request import InferRequest

Parameters = Mapping[str, pb.InferParameter]

_FINAL_RESPONSE = "triton_enable_empty_final_response"
_BOOLEAN = {"sequence_start", "sequence_end", "binary_data_output", _FINAL_RESPONSE}
_REGION, _OFFSET = "shared_memory_region", "shared_memory_offset"
_BYTE_SIZE = "shared_memory_byte_size"


@dataclass(frozen=True, slots=True)
class SharedTensor:
    """Where in a registered region a tensor lies."""

    region: str
    offset: int  # bytes
    byte_size: int


def apply_request_parameters(parameters: Parameters, request: InferRequest) -> None:
    """Moves priority and queue timeout to the request and checks all others.

    Accepted without effect, as Triton does for models without a sequence batcher: `sequence_id`,
    `sequence_start`, `sequence_end`; `binary_data_output` (answers are always raw here);
    `triton_enable_empty_final_response` (only decoupled models send empty responses); custom
    parameters (no backend here reads them).

    Raises:
        InvalidRequest: a reserved name, or a value of the wrong type, in Triton's words.
    """
    for key, value in parameters.items():
        choice = value.WhichOneof("parameter_choice")
        if key == "priority":
            request.priority = _priority(choice, value)
        elif key == "timeout":
            request.queue_timeout_s = _timeout_s(choice, value)
        else:
            _check(key, choice)


def classes_of(parameters: Parameters) -> int | None:
    """How many classes an output is wanted as; None: as it is."""
    value = parameters.get("classification")
    if value is None:
        return None
    if value.WhichOneof("parameter_choice") != "int64_param":
        raise InvalidRequest(
            "invalid value type for 'classification' parameter, expected int64_param"
        )
    if value.int64_param <= 0:
        raise InvalidRequest("invalid value for 'classification' parameter, expected >= 1")
    return value.int64_param


def shared_tensor_of(tensor: str, parameters: Parameters) -> SharedTensor | None:
    """Where a tensor lies in shared memory; None: it travels in the message."""
    region, offset = parameters.get(_REGION), parameters.get(_OFFSET)
    byte_size = parameters.get(_BYTE_SIZE)
    if region is None:
        for key, value in ((_OFFSET, offset), (_BYTE_SIZE, byte_size)):
            if value is not None:
                raise InvalidRequest(
                    f"'{key}' can not be specified without '{_REGION}' parameter"
                    f" for tensor '{tensor}'"
                )
        return None
    if byte_size is None:
        raise InvalidRequest(
            f"'{_BYTE_SIZE}' must be specified along with '{_REGION}' parameter"
            f" for tensor '{tensor}'"
        )
    _expect_tensor(tensor, _REGION, region, "string_param")
    _expect_tensor(tensor, _BYTE_SIZE, byte_size, "int64_param")
    if offset is not None:
        _expect_tensor(tensor, _OFFSET, offset, "int64_param")
    start = 0 if offset is None else offset.int64_param
    return SharedTensor(region.string_param, start, byte_size.int64_param)


def _priority(choice: str | None, value: pb.InferParameter) -> int:
    if choice == "uint64_param":
        return value.uint64_param
    _expect("priority", choice, "int64_param", "uint64_param")
    if value.int64_param < 0:
        raise InvalidRequest("invalid value for 'priority', expected value >= 0.")
    return value.int64_param


def _timeout_s(choice: str | None, value: pb.InferParameter) -> float | None:
    """The protocol counts microseconds; 0 is no timeout."""
    _expect("timeout", choice, "int64_param")
    if value.int64_param < 0:
        raise InvalidRequest("invalid value for 'timeout', expected value >= 0.")
    return value.int64_param / 1e6 or None


def _check(key: str, choice: str | None) -> None:
    if key in _BOOLEAN:
        _expect(key, choice, "bool_param")
    elif key == "sequence_id":
        _expect(key, choice, "int64_param", "string_param")
    elif key.startswith("triton_"):
        raise InvalidRequest(
            "parameter keys starting with 'triton_' are reserved for Triton usage. Only the"
            f" following keys starting with 'triton_' are allowed: {_FINAL_RESPONSE}"
        )
    elif key == "headers":
        raise InvalidRequest("parameter key 'headers' is reserved and must not be used")
    elif choice is None:
        raise InvalidRequest(
            f"invalid value type for '{key}' parameter, expected int64_param, bool_param,"
            " string_param or double_param."
        )


def _expect(key: str, choice: str | None, *expected: str) -> None:
    if choice not in expected:
        raise InvalidRequest(
            f"invalid value type for '{key}' parameter, expected {' or '.join(expected)}."
        )


def _expect_tensor(tensor: str, key: str, value: pb.InferParameter, expected: str) -> None:
    if value.WhichOneof("parameter_choice") != expected:
        raise InvalidRequest(
            f"invalid value type for '{key}' parameter for tensor '{tensor}', expected {expected}."
        )
