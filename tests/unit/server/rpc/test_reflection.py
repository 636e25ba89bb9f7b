"""Server reflection: what grpcurl and grpcio-reflection's client ask."""

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool

import protos.health.health_pb2
import protos.inference.grpc_service_pb2
import protos.predict_pb2  # noqa: F401 - the services asked about must be imported
from protos.reflection.v1 import reflection_pb2 as pb
from protos.reflection.v1alpha import reflection_pb2 as pb_v1alpha
from server.errors import Code
from server.rpc.reflection import ReflectionService
from tests.unit.server.rpc.fakes import FakeCall, Requests, Responses, stream

SERVICES = ["inflight.v1.Prediction", "inference.GRPCInferenceService", "grpc.health.v1.Health"]


@pytest.fixture
def reflection() -> ReflectionService:
    return ReflectionService(SERVICES)


def file_names(response: pb.ServerReflectionResponse) -> list[str]:
    files = response.file_descriptor_response.file_descriptor_proto
    return [FileDescriptorProto.FromString(each).name for each in files]


def test_services_are_listed_in_order_with_reflection_itself(
    reflection: ReflectionService,
) -> None:
    response = reflection.answer(pb.ServerReflectionRequest(host="h", list_services="*"))
    assert [service.name for service in response.list_services_response.service] == [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "inference.GRPCInferenceService",
        "inflight.v1.Prediction",
    ]
    assert (response.valid_host, response.original_request.list_services) == ("h", "*")


@pytest.mark.parametrize(
    ("symbol", "files"),
    [
        ("inference.GRPCInferenceService", ["grpc_service.proto", "model_config.proto"]),
        ("inference.GRPCInferenceService.ModelInfer", ["grpc_service.proto", "model_config.proto"]),
        ("inference.ModelInferRequest.InferInputTensor", None),
        ("inference.ModelConfig", ["model_config.proto"]),
        ("inference.DataType", ["model_config.proto"]),
        ("inflight.v1.Prediction", ["protos/predict.proto"]),
        ("grpc.health.v1.HealthCheckResponse.ServingStatus", ["grpc/health/v1/health.proto"]),
        ("grpc.reflection.v1alpha.ServerReflection", ["grpc/reflection/v1alpha/reflection.proto"]),
    ],
)
def test_a_symbol_is_answered_with_its_file_and_its_imports(
    reflection: ReflectionService, symbol: str, files: list[str] | None
) -> None:
    response = reflection.answer(pb.ServerReflectionRequest(file_containing_symbol=symbol))
    assert file_names(response) == (files or ["grpc_service.proto", "model_config.proto"])


def test_a_file_is_found_by_name(reflection: ReflectionService) -> None:
    request = pb.ServerReflectionRequest(file_by_filename="model_config.proto")
    assert file_names(reflection.answer(request)) == ["model_config.proto"]


@pytest.mark.parametrize(
    "request_",
    [
        pb.ServerReflectionRequest(file_containing_symbol="no.Such"),
        pb.ServerReflectionRequest(file_containing_symbol=""),
        pb.ServerReflectionRequest(file_containing_symbol="inference.GRPCInferenceService.Nope"),
        pb.ServerReflectionRequest(file_containing_symbol="google.protobuf.FileDescriptorProto"),
        pb.ServerReflectionRequest(file_by_filename="/etc/passwd"),
        pb.ServerReflectionRequest(
            file_containing_extension=pb.ExtensionRequest(
                containing_type="inference.ModelConfig", extension_number=9
            )
        ),
        pb.ServerReflectionRequest(all_extension_numbers_of_type="no.Such"),
    ],
    ids=lambda request: request.WhichOneof("message_request") if request else "",
)
def test_what_is_unknown_is_an_error_response(
    reflection: ReflectionService, request_: pb.ServerReflectionRequest
) -> None:
    response = reflection.answer(request_)
    assert response.error_response.error_code == Code.NOT_FOUND
    assert response.original_request == request_


def test_a_message_has_no_extensions(reflection: ReflectionService) -> None:
    request = pb.ServerReflectionRequest(all_extension_numbers_of_type="inference.ModelConfig")
    response = reflection.answer(request).all_extension_numbers_response
    assert (response.base_type_name, list(response.extension_number)) == (
        "inference.ModelConfig",
        [],
    )


def test_an_empty_request_is_an_error_response(reflection: ReflectionService) -> None:
    response = reflection.answer(pb.ServerReflectionRequest())
    assert response.error_response.error_code == Code.INVALID_ARGUMENT


def test_an_unknown_service_cannot_be_offered() -> None:
    with pytest.raises(KeyError, match=r"no\.Such"):
        ReflectionService(["no.Such"])


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_a_client_can_build_the_services_from_one_stream(
    reflection: ReflectionService, version: str
) -> None:
    """What grpcurl does: list, fetch the file of each service, build the descriptors."""
    messages = pb if version == "v1" else pb_v1alpha
    path = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
    requests, responses = Requests(), Responses()
    for service in SERVICES:
        request = messages.ServerReflectionRequest(file_containing_symbol=service)
        requests.put(request.SerializeToString())
    requests.end()
    handler = stream(reflection.methods(), path)
    await handler(FakeCall(), requests.__aiter__(), responses.send)
    pool = DescriptorPool()
    for _ in SERVICES:
        response = messages.ServerReflectionResponse.FromString(await responses.next())
        for file in reversed(response.file_descriptor_response.file_descriptor_proto):
            pool.AddSerializedFile(file)
    assert len(pool.FindServiceByName("inference.GRPCInferenceService").methods) == 20
    assert pool.FindMethodByName("inflight.v1.Prediction.PredictStream").client_streaming
