"""`inference.GRPCInferenceService`: the Open Inference Protocol with Triton's extensions.

All of Triton's 20 calls; those on shared memory, the repository and settings have a file each.
Where the protocol's dialects differ, Triton's is spoken.

Streams: responses leave in the order of their requests, as Triton's do for models that are not
decoupled. Its clients depend on that: a callback of tritonclient has nothing but the order to
go by unless the caller gave ids. Requests of one stream still run side by side. A request that
fails is answered with `error_message` and the stream goes on, unless the caller sent the
metadata `triton_grpc_error: true`: then the first failure ends it with a status.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from protos.inference import grpc_service_pb2 as pb
from protos.signature import TensorSpec
from server.errors import InvalidRequest, ModelNotReady
from server.inference import Inference
from server.registry import Registry
from server.request import InferResponse
from server.rpc.call import Call, Method, Send, StatusError, Stream, Unary, status_of
from server.rpc.health import SERVER, HealthTable
from server.rpc.messages import parse
from server.rpc.open_inference_classification import classify
from server.rpc.open_inference_codec import (
    Decoded,
    decode_request,
    encode_response,
    encode_stream_error,
    encode_stream_response,
    parse_version,
)
from server.rpc.open_inference_config import max_batch_size_of, model_config
from server.rpc.open_inference_memory import SharedMemoryCalls
from server.rpc.open_inference_method import SERVICE, method
from server.rpc.open_inference_repository import RepositoryCalls
from server.rpc.open_inference_settings import LogSettings, SettingsCalls
from server.rpc.open_inference_statistics import model_statistics
from server.rpc.open_inference_templates import RequestTemplates
from server.served import ServedVersion
from server.shared_memory import SharedMemoryRegions

STREAM_IN_FLIGHT = 1024
"""Unanswered requests one stream may have before it is read no further."""

EXTENSIONS = (
    "classification",
    "model_repository",
    "model_repository(unload_dependents)",
    "schedule_policy",
    "model_configuration",
    "system_shared_memory",
    "binary_tensor_data",
    "parameters",
    "statistics",
    "logging",
)
"""Triton's names of what this server does too; perf_analyzer looks for "statistics"."""

_NO_PLACES: Mapping[str, memoryview] = MappingProxyType({})
_Encode = Callable[[InferResponse, Mapping[str, memoryview]], bytes]
_STREAM_PATH = f"/{SERVICE}/ModelStreamInfer"


class OpenInferenceService:
    """The service. Event loop only."""

    def __init__(
        self,
        *,
        inference: Inference,
        registry: Registry,
        health: HealthTable,
        regions: SharedMemoryRegions,
        logs: LogSettings,
        server_version: str,
    ) -> None:
        self._inference = inference
        self._registry = registry
        self._health = health
        self._regions = regions
        self._server_version = server_version
        self._parts = (SharedMemoryCalls(regions), RepositoryCalls(registry), SettingsCalls(logs))
        self._templates = RequestTemplates()
        self._readers: set[asyncio.Task[None]] = set()

    def methods(self) -> Sequence[Method]:
        return (
            Unary(f"/{SERVICE}/ModelInfer", self.model_infer),
            Stream(_STREAM_PATH, self.model_stream_infer),
            method("ServerLive", pb.ServerLiveRequest, self._server_live),
            method("ServerReady", pb.ServerReadyRequest, self._server_ready),
            method("ModelReady", pb.ModelReadyRequest, self._model_ready),
            method("ServerMetadata", pb.ServerMetadataRequest, self._server_metadata),
            method("ModelMetadata", pb.ModelMetadataRequest, self._model_metadata),
            method("ModelConfig", pb.ModelConfigRequest, self._model_config),
            method("ModelStatistics", pb.ModelStatisticsRequest, self._model_statistics),
            *(each for part in self._parts for each in part.methods()),
        )

    def drain(self) -> None:
        """Reads no further from open streams: each ends when its requests are answered."""
        for reader in self._readers:
            reader.cancel()

    async def model_infer(self, call: Call, data: bytes) -> bytes:
        return await self._answer(data, call.deadline, encode_response)

    async def model_stream_infer(
        self, call: Call, requests: AsyncIterator[bytes], send: Send
    ) -> None:
        stops_at_error = call.metadata.get("triton_grpc_error") == "true"
        pending = _Pending()
        try:
            async with asyncio.TaskGroup() as tasks:
                reader = tasks.create_task(self._read(call, requests, pending, tasks))
                self._readers.add(reader)
                reader.add_done_callback(self._readers.discard)
                await _send_in_order(pending, send, stops_at_error=stops_at_error)
        except* StatusError as errors:
            raise errors.exceptions[0] from None
        if reader.cancelled():
            raise ModelNotReady("the server is shutting down")

    async def _read(
        self,
        call: Call,
        requests: AsyncIterator[bytes],
        pending: "_Pending",
        tasks: asyncio.TaskGroup,
    ) -> None:
        """Starts a task for each request; ends the queue however reading ends."""
        try:
            async for data in requests:
                await pending.room.acquire()
                answer = self._stream_answer(data, call.deadline)
                pending.answers.put_nowait(tasks.create_task(answer))
        finally:
            pending.answers.put_nowait(None)

    async def _stream_answer(
        self, data: bytes, deadline: float | None
    ) -> tuple[bytes, StatusError | None]:
        try:
            return await self._answer(data, deadline, encode_stream_response), None
        except Exception as error:
            status = status_of(error, _STREAM_PATH)
            return encode_stream_error(_message_of(data), status.details), status

    async def _answer(self, data: bytes, deadline: float | None, encode: _Encode) -> bytes:
        request = self._templates.decode(data, deadline)
        if request is not None:
            return encode(await self._inference.predict(request), _NO_PLACES)
        message = parse(pb.ModelInferRequest, data)
        decoded = decode_request(message, deadline, self._regions)
        response = await self._predict(decoded)
        self._templates.learn(data, message, decoded.request)
        return encode(response, decoded.places)

    async def _predict(self, decoded: Decoded) -> InferResponse:
        if not decoded.classes:
            return await self._inference.predict(decoded.request)
        # Looked up beforehand: a version that is unloaded meanwhile still has its labels here.
        served = self._registry.resolve(decoded.request.model, decoded.request.version)
        response = await self._inference.predict(decoded.request)
        _classify_outputs(response, decoded, served)
        return response

    async def _server_live(self, _: pb.ServerLiveRequest) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def _server_ready(self, _: pb.ServerReadyRequest) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self._health.is_serving(SERVER))

    async def _model_ready(self, request: pb.ModelReadyRequest) -> pb.ModelReadyResponse:
        version = parse_version(request.version)
        return pb.ModelReadyResponse(ready=self._registry.is_ready(request.name, version))

    async def _server_metadata(self, _: pb.ServerMetadataRequest) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(
            name="inflight", version=self._server_version, extensions=EXTENSIONS
        )

    async def _model_metadata(self, request: pb.ModelMetadataRequest) -> pb.ModelMetadataResponse:
        served = self._registry.resolve(request.name, parse_version(request.version))
        return pb.ModelMetadataResponse(
            name=served.model,
            versions=[str(version) for version in self._registry.versions(served.model)],
            platform=served.platform,
            inputs=[_tensor_metadata(spec) for spec in served.signature.inputs],
            outputs=[_tensor_metadata(spec) for spec in served.signature.outputs],
        )

    async def _model_config(self, request: pb.ModelConfigRequest) -> pb.ModelConfigResponse:
        served = self._registry.resolve(request.name, parse_version(request.version))
        return pb.ModelConfigResponse(config=model_config(served))

    async def _model_statistics(
        self, request: pb.ModelStatisticsRequest
    ) -> pb.ModelStatisticsResponse:
        """An empty name means all models, an empty version all versions that serve."""
        version = parse_version(request.version)
        if request.name:
            self._registry.resolve(request.name, version)  # refuses what is unknown
        return pb.ModelStatisticsResponse(
            model_stats=[
                model_statistics(served.model, served.version, served.stats, served.memory_bytes)
                for served in self._registry.served()
                if request.name in {"", served.model} and version in {None, served.version}
            ]
        )


@dataclass(slots=True)
class _Pending:
    """The requests of one stream that are not answered yet, in their order; None ends it."""

    answers: asyncio.Queue[asyncio.Task[tuple[bytes, StatusError | None]] | None] = field(
        default_factory=asyncio.Queue
    )
    room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(STREAM_IN_FLIGHT))


async def _send_in_order(pending: _Pending, send: Send, *, stops_at_error: bool) -> None:
    while (task := await pending.answers.get()) is not None:
        response, error = await task
        pending.room.release()
        if error is not None and stops_at_error:
            raise error
        await send(response)


def _message_of(data: bytes) -> pb.ModelInferRequest:
    """The message, empty where `data` is none: to name the request that failed."""
    try:
        return parse(pb.ModelInferRequest, data)
    except InvalidRequest:
        return pb.ModelInferRequest()


def _classify_outputs(response: InferResponse, decoded: Decoded, served: ServedVersion) -> None:
    """Replaces scores by their best classes, where the request asked for that."""
    labels = {output.name: output.labels for output in served.config.outputs}
    batched = max_batch_size_of(served.config, served.profile, served.batcher.settings) > 0
    for name, n_classes in decoded.classes.items():
        response.outputs[name] = classify(
            response.outputs[name], n_classes, batched=batched, labels=labels.get(name, ())
        )


def _tensor_metadata(spec: TensorSpec) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(
        name=spec.name, datatype=spec.datatype, shape=spec.wire_shape
    )
