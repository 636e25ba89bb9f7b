"""The models service over a real registry, whose versions compute with numpy."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from protos import models_pb2 as pb
from server.batch_policy import BatchSettings
from server.errors import (
    InvalidRequest,
    LoadFailed,
    ModelNotFound,
    ModelNotReady,
    ServeError,
)
from server.inference import Inference
from server.loader import LoadedModel
from server.model_config import VersionSource
from server.probe import CurvePoint, Profile
from server.registry import Registry
from server.repository import Repository
from server.request import InferRequest
from server.rpc.control import ModelsService
from server.served import ServedVersion
from server.slots import ComputeSlots
from tests.fakes import FakeBackend, rows
from tests.unit.server.rpc.fakes import FakeCall, Requests, Responses, stream, unary

PATH = "/inflight.v1.Models/"


async def open_version(source: VersionSource) -> ServedVersion:
    """Opens "broken" files never, "alone" files unbatched, all others batched."""
    content = source.path.read_text()
    if content == "broken":
        raise LoadFailed("the file is broken")
    backend = FakeBackend()
    profile = Profile(
        batchable=content != "alone",
        reason="rows influence each other" if content == "alone" else "",
        max_batch=8,
        max_batch_reason="throughput stops growing at 8",
        curve=(CurvePoint(1, 0.001, 0.001), CurvePoint(8, 0.004, 0.004)),
        warm_up_s=0.5,
        load_s=1.5,
        fallback="runs on cpu, since cuda: no driver" if content == "alone" else "",
    )
    settings = BatchSettings(max_batch=8 if profile.batchable else 1)
    loaded = LoadedModel(backend, None, 1, backend.signature, profile, settings, {"x": rows(1)})
    return ServedVersion(source, loaded, ComputeSlots(2))


class Setting:
    """The service with its registry."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.service = ModelsService(registry)

    async def ask(self, method: str, request: Any, response: Any) -> Any:
        handler = unary(self.service.methods(), PATH + method)
        return response.FromString(await handler(FakeCall(), request.SerializeToString()))

    async def models(self) -> list[pb.ModelSummary]:
        answer = await self.ask("ListModels", pb.ListModelsRequest(), pb.ListModelsResponse)
        return [*answer.models]

    async def get(self, **fields: Any) -> pb.GetModelResponse:
        answer: pb.GetModelResponse = await self.ask(
            "GetModel", pb.GetModelRequest(**fields), pb.GetModelResponse
        )
        return answer

    async def latency(self, **fields: Any) -> list[pb.ModelLatency]:
        answer = await self.ask("GetLatency", pb.GetLatencyRequest(**fields), pb.GetLatencyResponse)
        return [*answer.models]

    async def set(self, model: str, version: int = 0, **fields: Any) -> pb.SetBatchingResponse:
        request = pb.SetBatchingRequest(
            model=model, version=version, settings=pb.BatchingSettings(**fields)
        )
        answer: pb.SetBatchingResponse = await self.ask(
            "SetBatching", request, pb.SetBatchingResponse
        )
        return answer

    async def predict(self, model: str, *values: float) -> None:
        await Inference(self.registry).predict(InferRequest(model, {"x": rows(*values)}))


def put(repository: Path, path: str, content: str = "") -> None:
    file = repository / path / "model.onnx"
    file.parent.mkdir(parents=True)
    file.write_text(content)


@asynccontextmanager
async def serving(repository: Path, control: str = "all") -> AsyncIterator[Setting]:
    registry = Registry(Repository([repository]), open_version, control)
    await registry.start()
    try:
        yield Setting(registry)
    finally:
        await registry.close()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two versions of "double", one model that does not batch, one that does not load."""
    put(tmp_path, "double/1")
    put(tmp_path, "double/2")
    (tmp_path / "double" / "config.pbtxt").write_text("version_policy: { all: {} }")
    put(tmp_path, "alone/1", "alone")
    put(tmp_path, "sick/4", "broken")
    return tmp_path


async def test_list_has_every_version_with_state_and_verdict(repository: Path) -> None:
    async with serving(repository) as s:
        models = await s.models()
    assert [(m.model, m.version, m.state) for m in models] == [
        ("alone", 1, pb.STATE_READY),
        ("double", 1, pb.STATE_READY),
        ("double", 2, pb.STATE_READY),
        ("sick", 4, pb.STATE_UNAVAILABLE),
    ]
    alone, double, _, sick = models
    assert (alone.batching, alone.batching_reason) == (False, "rows influence each other")
    assert (double.batching, double.max_batch, double.window_s) == (True, 8, 60)
    assert sick.reason == "the file is broken"


async def test_a_model_is_described(repository: Path) -> None:
    async with serving(repository) as s:
        await s.predict("double", 1, 2)
        answer = await s.get(model="double")
    (first, second) = answer.versions
    assert (first.version, second.version) == (1, 2)
    assert (second.platform, second.artifact_id) == ("fake", "fake-1")
    (x,) = second.inputs
    assert (x.name, x.datatype, [*x.shape], [*x.dimension_names]) == (
        "x",
        "FP32",
        [-1, 2],
        ["n", ""],
    )
    assert [(p.batch, p.latency_ms, p.rows_per_s) for p in second.curve] == [
        (1, 1.0, 1000.0),
        (8, 4.0, 2000.0),
    ]
    assert second.max_batch_reason == "throughput stops growing at 8"
    assert (second.execution.instances, [*second.execution.devices]) == (1, ["cpu"])
    assert (second.load_ms, second.warm_up_ms) == (1500, 500)
    assert second.batching.enabled
    assert (second.latency.successes, second.latency.rows) == (1, 2)
    assert first.latency.successes == 0


async def test_where_a_model_had_to_go_is_a_warning(repository: Path) -> None:
    async with serving(repository) as s:
        (version,) = (await s.get(model="alone")).versions
    assert [*version.warnings] == ["runs on cpu, since cuda: no driver"]


async def test_one_version_of_a_model(repository: Path) -> None:
    async with serving(repository) as s:
        assert [v.version for v in (await s.get(model="double", version=1)).versions] == [1]


async def test_a_model_that_failed_is_described_by_its_reason(repository: Path) -> None:
    async with serving(repository) as s:
        (version,) = (await s.get(model="sick")).versions
    assert (version.state, version.reason) == (pb.STATE_UNAVAILABLE, "the file is broken")
    assert not version.HasField("batching")


async def test_latency_per_stage_and_why_batches_left(repository: Path) -> None:
    async with serving(repository) as s:
        await s.predict("double", 1, 2, 3)
        (one,) = await s.latency(model="double", version=2)
    assert (one.total.count, one.queue.count, one.compute.count) == (1, 1, 1)
    assert one.total.max_ms >= one.compute.p50_ms > 0
    assert (one.batches, one.rows, dict(one.released)) == (1, 3, {"idle_instance": 1})
    assert one.window_s == 10


async def test_latency_of_all_models(repository: Path) -> None:
    async with serving(repository) as s:
        found = [(one.model, one.version) for one in await s.latency()]
    assert found == [("alone", 1), ("double", 1), ("double", 2)]


Question = Callable[[Setting], Coroutine[Any, Any, Any]]


@pytest.mark.parametrize(
    ("question", "error", "text"),
    [
        (lambda s: s.get(), InvalidRequest, "names no model"),
        (lambda s: s.get(model="nope"), ModelNotFound, "'nope' is not found"),
        (lambda s: s.get(model="double", version=9), ModelNotFound, "'double' version 9"),
        (lambda s: s.get(model="double", version=-1), InvalidRequest, "version: expected"),
        (lambda s: s.latency(model="nope"), ModelNotFound, "'nope' is not found"),
        (lambda s: s.latency(model="sick"), ModelNotReady, "the file is broken"),
        (lambda s: s.latency(window_s=7), InvalidRequest, "window_s: expected one of 1, 10"),
        (lambda s: s.set("nope"), ModelNotFound, "'nope' is not found"),
        (lambda s: s.set("sick"), ModelNotReady, "the file is broken"),
        (lambda s: s.set("double", window_ms=-1), InvalidRequest, "window_ms: expected"),
        (lambda s: s.set("alone", max_batch=4), InvalidRequest, "max_batch: expected 1"),
    ],
)
async def test_wrong_questions_are_answered_clearly(
    question: Question, error: type[ServeError], text: str, repository: Path
) -> None:
    async with serving(repository) as s:
        with pytest.raises(error, match=text):
            await question(s)


async def test_set_batching_changes_what_is_named_and_returns_both(repository: Path) -> None:
    async with serving(repository) as s:
        answer = await s.set("double", window_ms=2.5, queue_limit=5)
        assert (answer.model, answer.version) == ("double", 2)
        assert (answer.previous.window_ms, answer.previous.queue_limit) == (0, 1024)
        assert (answer.settings.window_ms, answer.settings.queue_limit) == (2.5, 5)
        assert answer.settings.max_batch == 8
        got = await s.ask(
            "GetBatching", pb.GetBatchingRequest(model="double"), pb.GetBatchingResponse
        )
        assert got.batching.settings == answer.settings
        assert s.registry.resolve("double", None).batcher.settings.window_s == 0.0025
        assert s.registry.resolve("double", 1).batcher.settings.window_s == 0


async def test_a_refused_change_changes_nothing(repository: Path) -> None:
    async with serving(repository) as s:
        before = s.registry.resolve("double", None).batcher.settings
        with pytest.raises(InvalidRequest):
            await s.set("double", window_ms=1.0, max_batch=0)
        assert s.registry.resolve("double", None).batcher.settings == before


async def test_load_and_unload(repository: Path) -> None:
    async with serving(repository, "explicit") as s:
        loaded = await s.ask("LoadModel", pb.LoadModelRequest(model="alone"), pb.LoadModelResponse)
        assert [(v.model, v.version, v.state) for v in loaded.versions] == [
            ("alone", 1, pb.STATE_READY)
        ]
        request = pb.UnloadModelRequest(model="alone")
        await s.ask("UnloadModel", request, pb.UnloadModelResponse)
        with pytest.raises(ServeError, match="loaded"):
            s.registry.resolve("alone", None)


async def test_a_failed_load_says_why(repository: Path) -> None:
    async with serving(repository, "explicit") as s:
        with pytest.raises(LoadFailed, match="the file is broken"):
            await s.ask("LoadModel", pb.LoadModelRequest(model="sick"), pb.LoadModelResponse)


async def test_load_with_files_in_place_of_the_folders(repository: Path) -> None:
    async with serving(repository, "explicit") as s:
        request = pb.LoadModelRequest(model="sent", config="{}", files={"7/model.onnx": b"alone"})
        loaded = await s.ask("LoadModel", request, pb.LoadModelResponse)
    assert [(v.model, v.version, v.batching) for v in loaded.versions] == [("sent", 7, False)]


async def test_loading_by_request_may_be_off(repository: Path) -> None:
    async with serving(repository) as s:
        with pytest.raises(ModelNotReady, match="explicit"):
            await s.ask("LoadModel", pb.LoadModelRequest(model="alone"), pb.LoadModelResponse)
        with pytest.raises(ModelNotReady, match="explicit"):
            await s.ask("UnloadModel", pb.UnloadModelRequest(model="alone"), pb.UnloadModelResponse)


class Watch:
    """One WatchLatency call."""

    def __init__(self, service: ModelsService, **fields: Any) -> None:
        self._responses = Responses()
        requests = Requests(pb.WatchLatencyRequest(**fields).SerializeToString())
        handler = stream(service.methods(), PATH + "WatchLatency")
        self.task = asyncio.ensure_future(
            handler(FakeCall(), requests.__aiter__(), self._responses.send)
        )

    async def next(self) -> list[pb.ModelLatency]:
        return [*pb.GetLatencyResponse.FromString(await self._responses.next()).models]


async def test_watch_sends_now_and_again(repository: Path) -> None:
    async with serving(repository) as s:
        watch = Watch(s.service, model="double", version=2, interval_ms=100, window_s=60)
        assert [one.total.count for one in await watch.next()] == [0]
        await s.predict("double", 1)
        while (await watch.next())[0].total.count == 0:
            pass
        s.service.close()
        await watch.task


async def test_watch_ends_at_once_when_the_service_closes(repository: Path) -> None:
    async with serving(repository) as s:
        watch = Watch(s.service, interval_ms=3_600_000)
        await watch.next()
        s.service.close()
        await asyncio.wait_for(watch.task, 10)


@pytest.mark.parametrize(
    ("fields", "error", "text"),
    [
        ({"interval_ms": 99}, InvalidRequest, "interval_ms: expected at least 100, got 99"),
        ({"window_s": 2}, InvalidRequest, "window_s"),
        ({"model": "nope"}, ModelNotFound, "'nope'"),
    ],
)
async def test_watches_that_make_no_sense_are_refused(
    fields: dict[str, Any], error: type[ServeError], text: str, repository: Path
) -> None:
    async with serving(repository) as s:
        with pytest.raises(error, match=text):
            await Watch(s.service, **fields).task


async def test_a_model_that_is_not_ready_is_waited_for(repository: Path) -> None:
    async with serving(repository, "explicit") as s:
        watch = Watch(s.service, model="alone", interval_ms=100)
        assert await watch.next() == []
        await s.registry.load("alone")
        while not await watch.next():
            pass
        s.service.close()
        await watch.task
