"""The calls the clients make: path and messages of each, and the channel's settings."""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from protos import models_pb2 as models
from protos import optimization_pb2 as optimization
from protos import predict_pb2 as predict

RequestT = TypeVar("RequestT", bound=Message | bytes)
ResponseT = TypeVar("ResponseT", bound=Message)

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    # Tensors are large; the server has a limit of its own.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # gRPC waits a second before it connects again, longer than our first retries.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 2000),
)


@dataclass(frozen=True, slots=True)
class Method(Generic[RequestT, ResponseT]):
    """One method of the server."""

    path: str
    request: type[RequestT]  # bytes: serialized already, since tensors are joined to it uncopied
    response: type[ResponseT]
    retry: bool = True  # asking twice does no harm

    @property
    def codecs(self) -> dict[str, Any]:
        """The keyword arguments of `channel.unary_unary` and its like."""
        return {
            "request_serializer": _serialize,
            "response_deserializer": self.response.FromString,
        }


def _serialize(request: Message | bytes) -> bytes:
    return request if isinstance(request, bytes) else request.SerializeToString()


_PREDICTION = "/inflight.v1.Prediction/"
_MODELS = "/inflight.v1.Models/"
_OPTIMIZATION = "/inflight.v1.Optimization/"

PREDICT = Method(_PREDICTION + "Predict", bytes, predict.PredictResponse)
PREDICT_STREAM = Method(_PREDICTION + "PredictStream", bytes, predict.PredictResponse)
LIST_MODELS = Method(_MODELS + "ListModels", models.ListModelsRequest, models.ListModelsResponse)
GET_MODEL = Method(_MODELS + "GetModel", models.GetModelRequest, models.GetModelResponse)
LOAD_MODEL = Method(
    _MODELS + "LoadModel", models.LoadModelRequest, models.LoadModelResponse, retry=False
)
UNLOAD_MODEL = Method(
    _MODELS + "UnloadModel", models.UnloadModelRequest, models.UnloadModelResponse, retry=False
)
GET_LATENCY = Method(_MODELS + "GetLatency", models.GetLatencyRequest, models.GetLatencyResponse)
WATCH_LATENCY = Method(
    _MODELS + "WatchLatency", models.WatchLatencyRequest, models.GetLatencyResponse
)
GET_BATCHING = Method(
    _MODELS + "GetBatching", models.GetBatchingRequest, models.GetBatchingResponse
)
SET_BATCHING = Method(
    _MODELS + "SetBatching", models.SetBatchingRequest, models.SetBatchingResponse, retry=False
)
OPTIMIZE = Method(
    _OPTIMIZATION + "Optimize",
    optimization.OptimizeRequest,
    optimization.OptimizeResponse,
    retry=False,
)
GET_OPTIMIZATION = Method(
    _OPTIMIZATION + "GetOptimization",
    optimization.GetOptimizationRequest,
    optimization.GetOptimizationResponse,
)
WATCH_OPTIMIZATION = Method(
    _OPTIMIZATION + "WatchOptimization",
    optimization.WatchOptimizationRequest,
    optimization.WatchOptimizationResponse,
)
LIST_OPTIMIZATIONS = Method(
    _OPTIMIZATION + "ListOptimizations",
    optimization.ListOptimizationsRequest,
    optimization.ListOptimizationsResponse,
)
CANCEL_OPTIMIZATION = Method(
    _OPTIMIZATION + "CancelOptimization",
    optimization.CancelOptimizationRequest,
    optimization.CancelOptimizationResponse,
    retry=False,
)
PROMOTE = Method(
    _OPTIMIZATION + "Promote",
    optimization.PromoteRequest,
    optimization.PromoteResponse,
    retry=False,
)
ROLL_BACK = Method(
    _OPTIMIZATION + "RollBack",
    optimization.RollBackRequest,
    optimization.RollBackResponse,
    retry=False,
)
