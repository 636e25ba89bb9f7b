"""`inflight.v1.Models`: models and their states, live latency, batching settings.

What an operator may see and set. The work is the registry's and the batcher's; the messages are
made in `model_messages.py` and `batching_settings.py`.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence

from protos import models_pb2 as pb
from server.errors import InvalidRequest, ModelNotFound
from server.latency import WINDOWS_S
from server.model_versions import VersionStatus
from server.overrides import Overrides
from server.registry import Registry
from server.rpc import batching_settings, model_messages
from server.rpc.call import Call, Method, Send, Stream, Unary
from server.rpc.messages import parse
from server.served import ServedVersion

logger = logging.getLogger(__name__)

_LIST_WINDOW_S = 60
_LATENCY_WINDOW_S = 10
_MIN_INTERVAL_MS = 100
_INTERVAL_MS = 1000
_SERVICE = "/inflight.v1.Models/"


class ModelsService:
    """The model control service. Event loop only."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._closing = asyncio.Event()

    def methods(self) -> Sequence[Method]:
        return (
            Unary(_SERVICE + "ListModels", self.list_models),
            Unary(_SERVICE + "GetModel", self.get_model),
            Unary(_SERVICE + "LoadModel", self.load_model),
            Unary(_SERVICE + "UnloadModel", self.unload_model),
            Unary(_SERVICE + "GetLatency", self.get_latency),
            Stream(_SERVICE + "WatchLatency", self.watch_latency),
            Unary(_SERVICE + "GetBatching", self.get_batching),
            Unary(_SERVICE + "SetBatching", self.set_batching),
        )

    def close(self) -> None:
        """Ends all watches, which would otherwise keep a draining server waiting."""
        self._closing.set()

    # -- models

    async def list_models(self, _: Call, data: bytes) -> bytes:
        request = parse(pb.ListModelsRequest, data)
        window_s = _window_s(request.window_s, _LIST_WINDOW_S)
        await self._registry.refresh()
        models = self._summaries(self._registry.index(), window_s)
        return pb.ListModelsResponse(models=models).SerializeToString()

    async def get_model(self, _: Call, data: bytes) -> bytes:
        request = parse(pb.GetModelRequest, data)
        window_s = _window_s(request.window_s, _LIST_WINDOW_S)
        serving = self._serving()
        versions = [
            model_messages.detail(
                status, serving.get((status.model, status.version or 0)), window_s
            )
            for status in self._statuses(request.model, request.version)
        ]
        return pb.GetModelResponse(model=request.model, versions=versions).SerializeToString()

    async def load_model(self, _: Call, data: bytes) -> bytes:
        request = parse(pb.LoadModelRequest, data)
        _check_named(request.model)
        overrides = Overrides(request.config or None, dict(request.files))
        await self._registry.load(request.model, overrides)
        statuses = self._registry.statuses(request.model)
        versions = self._summaries(statuses, _LIST_WINDOW_S)
        return pb.LoadModelResponse(versions=versions).SerializeToString()

    async def unload_model(self, _: Call, data: bytes) -> bytes:
        request = parse(pb.UnloadModelRequest, data)
        _check_named(request.model)
        if not await self._registry.unload(request.model):
            raise _unknown(request.model)
        return pb.UnloadModelResponse().SerializeToString()

    # -- latency

    async def get_latency(self, _: Call, data: bytes) -> bytes:
        request = parse(pb.GetLatencyRequest, data)
        window_s = _window_s(request.window_s, _LATENCY_WINDOW_S)
        if request.model:
            version = _version(request.version)
            self._registry.resolve(request.model, version)  # says why where there is none
        return self._latency(request, window_s).SerializeToString()

    async def watch_latency(self, _: Call, requests: AsyncIterator[bytes], send: Send) -> None:
        async for data in requests:
            await self._watch(parse(pb.WatchLatencyRequest, data), send)
            return

    async def _watch(self, request: pb.WatchLatencyRequest, send: Send) -> None:
        window_s = _window_s(request.window_s, _LATENCY_WINDOW_S)
        interval_s = _interval_s(request.interval_ms)
        if request.model:
            self._statuses(request.model, request.version)  # an unknown name is a mistake
        due = time.monotonic()
        while not self._closing.is_set():
            await send(self._latency(request, window_s).SerializeToString())
            # A reader that fell behind gets the newest figures, not the ones it missed.
            due = max(due + interval_s, time.monotonic())
            await self._closed_within(due - time.monotonic())

    async def _closed_within(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        except TimeoutError:
            pass

    def _latency(
        self, request: pb.GetLatencyRequest | pb.WatchLatencyRequest, window_s: int
    ) -> pb.GetLatencyResponse:
        models = [
            model_messages.latency(served, window_s)
            for served in self._registry.served()
            if request.model in ("", served.model) and request.version in (0, served.version)
        ]
        return pb.GetLatencyResponse(models=models)

    # -- batching

    async def get_batching(self, _: Call, data: bytes) -> bytes:
        request = parse(pb.GetBatchingRequest, data)
        served = self._resolve(request.model, request.version)
        return pb.GetBatchingResponse(
            model=served.model, version=served.version, batching=model_messages.batching(served)
        ).SerializeToString()

    async def set_batching(self, call: Call, data: bytes) -> bytes:
        request = parse(pb.SetBatchingRequest, data)
        served = self._resolve(request.model, request.version)
        before = served.batcher.settings
        limit = batching_settings.max_batch_limit(served)
        settings = batching_settings.changed(before, request.settings, limit)
        served.batcher.apply(settings)
        logger.info(
            "model '%s' version %d: batching set by %s to %s, was %s",
            *(served.model, served.version, call.peer, settings, before),
        )
        return pb.SetBatchingResponse(
            model=served.model,
            version=served.version,
            settings=batching_settings.to_message(settings),
            previous=batching_settings.to_message(before),
        ).SerializeToString()

    # -- looking up

    def _resolve(self, model: str, version: int) -> ServedVersion:
        _check_named(model)
        return self._registry.resolve(model, _version(version))

    def _statuses(self, model: str, version: int) -> list[VersionStatus]:
        _check_named(model)
        number = _version(version)
        statuses = self._registry.statuses(model)
        found = [status for status in statuses if number in (None, status.version)]
        if not found:
            raise _unknown(model, number if statuses else None)
        return found

    def _summaries(self, statuses: Sequence[VersionStatus], window_s: int) -> list[pb.ModelSummary]:
        serving = self._serving()
        return [
            model_messages.summary(
                status, serving.get((status.model, status.version or 0)), window_s
            )
            for status in statuses
        ]

    def _serving(self) -> dict[tuple[str, int], ServedVersion]:
        return {(served.model, served.version): served for served in self._registry.served()}


def _check_named(model: str) -> None:
    if not model:
        raise InvalidRequest("the request names no model")


def _unknown(model: str, version: int | None = None) -> ModelNotFound:
    what = f"'{model}'" if version is None else f"'{model}' version {version}"
    return ModelNotFound(f"Request for unknown model: {what} is not found")


def _version(version: int) -> int | None:
    if version < 0:
        raise InvalidRequest(f"version: expected a positive number or 0 for any, got {version}")
    return version or None


def _window_s(asked: int, default: int) -> int:
    if asked and asked not in WINDOWS_S:
        expected = ", ".join(map(str, WINDOWS_S))
        raise InvalidRequest(f"window_s: expected one of {expected}, got {asked}")
    return asked or default


def _interval_s(asked_ms: int) -> float:
    if asked_ms and asked_ms < _MIN_INTERVAL_MS:
        raise InvalidRequest(f"interval_ms: expected at least {_MIN_INTERVAL_MS}, got {asked_ms}")
    return (asked_ms or _INTERVAL_MS) / 1e3
