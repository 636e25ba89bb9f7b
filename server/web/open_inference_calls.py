"""The Open Inference REST calls other than infer, as a table: verb and path -> gRPC call.

Each is the gRPC call of the same meaning in another dress: the variable parts of the path and the
keys of the JSON body are fields of the request message, and the response message is written as
JSON. What a call does is decided in one place, the gRPC service.
"""

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from protos.inference import grpc_service_pb2 as pb
from server.errors import InvalidRequest
from server.web.message_json import message_json

_SERVICE: Final = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]


def _fill_by_name(message: Message, body: dict[str, Any]) -> None:
    try:
        ParseDict(body, message)
    except ParseError as error:
        raise InvalidRequest(str(error)) from None


@dataclass(frozen=True, slots=True)
class RestCall:
    """One REST call. `answer` makes its JSON; a boolean is answered by the HTTP status alone."""

    verb: str
    path: str  # "{field}": a field of the request message
    rpc: str
    answer: Callable[[Any], Any] = message_json
    fill: Callable[[Any, dict[str, Any]], None] = _fill_by_name

    @property
    def rpc_path(self) -> str:
        return f"/{_SERVICE.full_name}/{self.rpc}"

    def encode(self, variables: Mapping[str, str], body: dict[str, Any]) -> bytes:
        """The gRPC request.

        Raises:
            InvalidRequest: the body has a key or a value that the call does not know.
        """
        message = GetMessageClass(_SERVICE.methods_by_name[self.rpc].input_type)()
        self.fill(message, body)
        for field, value in variables.items():
            setattr(message, field, value)
        return message.SerializeToString()

    def decode(self, data: bytes) -> Any:
        """The JSON value of a gRPC response."""
        message = GetMessageClass(_SERVICE.methods_by_name[self.rpc].output_type).FromString(data)
        return self.answer(message)


def rest_calls() -> list[RestCall]:
    """All of them; a fixed path stands before the variable one that it would match."""
    return [*_server_calls(), *_model_calls(), *_repository_calls(), *_memory_calls()]


def _server_calls() -> list[RestCall]:
    return [
        RestCall("GET", "/v2", "ServerMetadata"),
        RestCall("GET", "/v2/health/live", "ServerLive", lambda message: message.live),
        RestCall("GET", "/v2/health/ready", "ServerReady", lambda message: message.ready),
        RestCall("GET", "/v2/models/stats", "ModelStatistics"),
        RestCall("GET", "/v2/logging", "LogSettings", _log_settings_json),
        RestCall("POST", "/v2/logging", "LogSettings", _log_settings_json, _fill_log_settings),
        RestCall("GET", "/v2/trace/setting", "TraceSetting"),
    ]


def _model_calls() -> list[RestCall]:
    calls: list[RestCall] = []
    for path in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        calls += [
            RestCall("GET", path, "ModelMetadata"),
            RestCall("GET", f"{path}/ready", "ModelReady", lambda message: message.ready),
            RestCall("GET", f"{path}/config", "ModelConfig", _config_json),
            RestCall("GET", f"{path}/stats", "ModelStatistics"),
        ]
    return calls


def _repository_calls() -> list[RestCall]:
    model = "/v2/repository/models/{model_name}"
    return [
        RestCall("POST", "/v2/repository/index", "RepositoryIndex", _index_json),
        RestCall("POST", f"{model}/load", "RepositoryModelLoad", fill=_fill_parameters),
        RestCall("POST", f"{model}/unload", "RepositoryModelUnload", fill=_fill_parameters),
    ]


def _memory_calls() -> list[RestCall]:
    calls: list[RestCall] = []
    for root, kind in (
        ("/v2/systemsharedmemory", "SystemSharedMemory"),
        ("/v2/cudasharedmemory", "CudaSharedMemory"),
    ):
        region = f"{root}/region/{{name}}"
        calls += [
            RestCall("GET", f"{root}/status", f"{kind}Status", _regions_json),
            RestCall("GET", f"{region}/status", f"{kind}Status", _regions_json),
            RestCall("POST", f"{root}/unregister", f"{kind}Unregister"),
            RestCall("POST", f"{region}/unregister", f"{kind}Unregister"),
        ]
    register = "/v2/systemsharedmemory/region/{name}/register"
    return [*calls, RestCall("POST", register, "SystemSharedMemoryRegister")]


def _config_json(response: pb.ModelConfigResponse) -> dict[str, Any]:
    return message_json(response.config)


def _index_json(response: pb.RepositoryIndexResponse) -> list[dict[str, Any]]:
    return [message_json(model) for model in response.models]


def _regions_json(response: pb.SystemSharedMemoryStatusResponse) -> list[dict[str, Any]]:
    return [message_json(region) for region in response.regions.values()]


def _log_settings_json(response: pb.LogSettingsResponse) -> dict[str, Any]:
    return {
        name: getattr(value, value.WhichOneof("parameter_choice") or "string_param")
        for name, value in response.settings.items()
    }


def _fill_log_settings(message: pb.LogSettingsRequest, body: dict[str, Any]) -> None:
    for name, value in body.items():
        setting = message.settings[name]
        if isinstance(value, bool):
            setting.bool_param = value
        elif isinstance(value, int) and 0 <= value < 2**32:
            setting.uint32_param = value
        elif isinstance(value, str):
            setting.string_param = value
        else:
            raise InvalidRequest(
                f"log setting '{name}': expected a boolean, an integer of 32 bits or a string,"
                f" got {value!r}"
            )


def _fill_parameters(message: pb.RepositoryModelLoadRequest, body: dict[str, Any]) -> None:
    """`{"parameters": {"config": "<json>", "file:1/model.onnx": "<base64>"}}`."""
    parameters = body.get("parameters", {})
    if not isinstance(parameters, dict):
        raise InvalidRequest(f"'parameters': expected an object, got {parameters!r}")
    for name, value in parameters.items():
        parameter = message.parameters[name]
        if isinstance(value, str) and name.startswith("file:"):
            parameter.bytes_param = _from_base64(name, value)
        elif isinstance(value, bool):
            parameter.bool_param = value
        elif isinstance(value, int) and -(2**63) <= value < 2**63:
            parameter.int64_param = value
        elif isinstance(value, str):
            parameter.string_param = value
        else:
            raise InvalidRequest(
                f"parameter '{name}': expected a boolean, an integer of 64 bits or a string,"
                f" got {value!r}"
            )


def _from_base64(name: str, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest(f"parameter '{name}' is not valid base64: {error}") from None
