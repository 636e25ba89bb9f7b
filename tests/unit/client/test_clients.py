"""`sync.py` and `aio.py` against one scripted server: the same promises, kept twice."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, closing
from typing import Any

import grpc
import numpy as np
import pytest

from client import AsyncClient, Client, InferenceError, Prediction, Request, RetryPolicy
from protos import models_pb2, predict_pb2
from tests.unit.client.scripted_server import Failure, ScriptedServer, running

PREDICT = "/inflight.v1.Prediction/Predict"
STREAM = "/inflight.v1.Prediction/PredictStream"
MODELS = "/inflight.v1.Models/"
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE

Ask = Callable[..., Any]  # (server, client options, question) -> what the question returned


def echo(data: bytes) -> bytes:
    """Answers with the inputs as outputs."""
    request = predict_pb2.PredictRequest.FromString(data)
    return predict_pb2.PredictResponse(
        model=request.model,
        version=request.version or 1,
        request_id=request.request_id,
        outputs=request.inputs,
        served_by="onnx-0123",
    ).SerializeToString()


def failing_first(*failures: Failure) -> Callable[[bytes], bytes]:
    left = [*failures]

    def handler(data: bytes) -> bytes:
        if left:
            raise left.pop(0)
        return echo(data)

    return handler


class Waits:
    """Takes the place of sleeping: remembers how long, and returns at once."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)

    async def aio(self, seconds: float) -> None:
        self.seconds.append(seconds)


@pytest.fixture(params=["sync", "aio"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Asks one question through either client: `ask(server, "predict", "m", {...})`."""
    return _ask_sync if request.param == "sync" else _ask_aio


async def _ask_sync(
    server: ScriptedServer, method: str, *args: Any, waits: Waits, **kwargs: Any
) -> Any:
    def run() -> Any:
        with Client(server.target, sleep=waits, timeout_s=30.0) as client:
            return getattr(client, method)(*args, **kwargs)

    return await asyncio.to_thread(run)


async def _ask_aio(
    server: ScriptedServer, method: str, *args: Any, waits: Waits, **kwargs: Any
) -> Any:
    async with AsyncClient(server.target, sleep=waits.aio, timeout_s=30.0) as client:
        return await getattr(client, method)(*args, **kwargs)


@pytest.fixture
def waits() -> Waits:
    return Waits()


X = np.arange(4, dtype=np.float32).reshape(1, 4)


async def test_predict_returns_arrays_by_name(ask: Ask, waits: Waits) -> None:
    with running(ScriptedServer({PREDICT: echo})) as server:
        outputs = await ask(server, "predict", "digits", {"x": X}, waits=waits)
    np.testing.assert_array_equal(outputs["x"], X)


async def test_infer_tells_who_answered(ask: Ask, waits: Waits) -> None:
    with running(ScriptedServer({PREDICT: echo})) as server:
        options = {"version": 7, "request_id": "r"}
        prediction = await ask(server, "infer", "digits", {"x": X}, waits=waits, **options)
    assert (prediction.model, prediction.version) == ("digits", 7)
    assert (prediction.request_id, prediction.served_by) == ("r", "onnx-0123")


async def test_retries_after_exactly_the_wait_the_server_asks_for(ask: Ask, waits: Waits) -> None:
    full = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", push_back="130")
    away = Failure(UNAVAILABLE, "starting", push_back="70")
    with running(ScriptedServer({PREDICT: failing_first(full, away)})) as server:
        outputs = await ask(server, "predict", "m", {"x": X}, waits=waits)
    assert waits.seconds == [0.13, 0.07]
    assert "x" in outputs


async def test_gives_up_with_the_last_error(ask: Ask, waits: Waits) -> None:
    failures = [Failure(UNAVAILABLE, f"try {number}") for number in range(9)]
    with (
        running(ScriptedServer({PREDICT: failing_first(*failures)})) as server,
        pytest.raises(InferenceError, match="UNAVAILABLE: try 4") as caught,
    ):
        await ask(server, "predict", "m", {"x": X}, waits=waits)
    assert caught.value.code is UNAVAILABLE
    assert len(server.requests) == RetryPolicy().max_attempts


async def test_does_not_retry_what_the_server_forbids(ask: Ask, waits: Waits) -> None:
    refused = Failure(UNAVAILABLE, "leaving", push_back="-1")
    with (
        running(ScriptedServer({PREDICT: failing_first(refused)})) as server,
        pytest.raises(InferenceError, match="leaving"),
    ):
        await ask(server, "predict", "m", {"x": X}, waits=waits)
    assert (len(server.requests), waits.seconds) == (1, [])


async def test_a_wait_past_the_deadline_is_not_begun(ask: Ask, waits: Waits) -> None:
    full = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", push_back="60000")
    with (
        running(ScriptedServer({PREDICT: failing_first(full)})) as server,
        pytest.raises(InferenceError, match="RESOURCE_EXHAUSTED: full") as caught,
    ):
        await ask(server, "predict", "m", {"x": X}, timeout_s=20.0, waits=waits)
    assert caught.value.retry_after_s == 60.0
    assert waits.seconds == []


async def test_the_deadline_reaches_the_server(ask: Ask, waits: Waits) -> None:
    with running(ScriptedServer({PREDICT: echo})) as server:
        await ask(server, "predict", "m", {"x": X}, timeout_s=20.0, waits=waits)
    (remaining,) = server.remaining_s
    assert remaining is not None
    assert 0 < remaining < 25.0  # gRPC rounds it up on its way


async def test_calls_that_change_something_are_made_once(ask: Ask, waits: Waits) -> None:
    def refuse(data: bytes) -> bytes:
        raise Failure(UNAVAILABLE, "no explicit control", push_back="1")

    with (
        running(ScriptedServer({MODELS + "LoadModel": refuse})) as server,
        pytest.raises(InferenceError, match="no explicit control"),
    ):
        await ask(server, "load", "m", waits=waits)
    assert len(server.requests) == 1


async def test_nobody_listening_is_unavailable(ask: Ask, waits: Waits) -> None:
    with running(ScriptedServer()) as server:
        pass
    with pytest.raises(InferenceError) as caught:
        await ask(server, "models", waits=waits)
    assert caught.value.code is UNAVAILABLE


async def test_set_batching_sends_only_what_is_named(ask: Ask, waits: Waits) -> None:
    def answer(data: bytes) -> bytes:
        return models_pb2.SetBatchingResponse(model="m").SerializeToString()

    with running(ScriptedServer({MODELS + "SetBatching": answer})) as server:
        await ask(server, "set_batching", "m", window_ms=0.0, max_batch=16, waits=waits)
    (sent,) = server.requests
    settings = models_pb2.SetBatchingRequest.FromString(sent).settings
    assert [field.name for field, _ in settings.ListFields()] == ["window_ms", "max_batch"]


async def test_a_setting_there_is_not_is_refused(ask: Ask, waits: Waits) -> None:
    with running(ScriptedServer()) as server, pytest.raises((TypeError, ValueError), match="windw"):
        await ask(server, "set_batching", "m", windw_ms=1.0, waits=waits)


async def test_a_config_that_is_no_text_is_refused(ask: Ask, waits: Waits) -> None:
    expected = r"config: expected JSON text, got \{'name': 'm'\}"
    with running(ScriptedServer()) as server, pytest.raises(TypeError, match=expected):
        await ask(server, "load", "m", config={"name": "m"}, waits=waits)


@pytest.mark.parametrize(
    ("method", "args", "path", "answer", "expected"),
    [
        (
            "models",
            (),
            "ListModels",
            models_pb2.ListModelsResponse(models=[models_pb2.ModelSummary(model="m")]),
            [models_pb2.ModelSummary(model="m")],
        ),
        (
            "model",
            ("m",),
            "GetModel",
            models_pb2.GetModelResponse(model="m"),
            models_pb2.GetModelResponse(model="m"),
        ),
        (
            "load",
            ("m",),
            "LoadModel",
            models_pb2.LoadModelResponse(versions=[models_pb2.ModelSummary(model="m")]),
            [models_pb2.ModelSummary(model="m")],
        ),
        ("unload", ("m",), "UnloadModel", models_pb2.UnloadModelResponse(), None),
        (
            "latency",
            ("m",),
            "GetLatency",
            models_pb2.GetLatencyResponse(models=[models_pb2.ModelLatency(model="m")]),
            [models_pb2.ModelLatency(model="m")],
        ),
        (
            "batching",
            ("m",),
            "GetBatching",
            models_pb2.GetBatchingResponse(model="m", version=2),
            models_pb2.GetBatchingResponse(model="m", version=2),
        ),
    ],
)
async def test_control_calls(  # noqa: PLR0917
    method: str, args: Any, path: str, answer: Any, expected: Any, ask: Ask, waits: Waits
) -> None:
    with running(
        ScriptedServer({MODELS + path: lambda data: answer.SerializeToString()})
    ) as server:
        assert await ask(server, method, *args, waits=waits) == expected


def backwards(requests: Iterator[bytes]) -> Iterator[bytes]:
    """Answers the last request first, and the one called "bad" with an error."""
    for data in reversed([*requests]):
        request = predict_pb2.PredictRequest.FromString(data)
        if request.request_id == "bad":
            status = predict_pb2.Status(code=3, message="no such input")
            yield predict_pb2.PredictResponse(request_id="bad", status=status).SerializeToString()
        else:
            yield echo(data)


REQUESTS = (
    Request("m", {"x": X}),
    Request("m", {}, request_id="bad"),
    Request("m", {"x": X}, request_id="mine"),
)


def check_stream(predictions: list[Prediction]) -> None:
    assert [prediction.request_id for prediction in predictions] == ["mine", "bad", "0"]
    assert [prediction.error is None for prediction in predictions] == [True, False, True]
    np.testing.assert_array_equal(predictions[2].result()["x"], X)


def test_sync_stream_matches_answers_by_id() -> None:
    with (
        running(ScriptedServer(streaming={STREAM: backwards})) as server,
        Client(server.target) as client,
    ):
        check_stream([*client.stream(REQUESTS)])


@pytest.mark.parametrize("kind", ["iterable", "async iterable"])
async def test_aio_stream_matches_answers_by_id(kind: str) -> None:
    async def requests() -> AsyncIterator[Request]:
        for request in REQUESTS:
            yield request

    with running(ScriptedServer(streaming={STREAM: backwards})) as server:
        async with AsyncClient(server.target) as client:
            source = REQUESTS if kind == "iterable" else requests()
            check_stream([prediction async for prediction in client.stream(source)])


BROKEN = (*REQUESTS[:1], Request("m", {"x": [1j]}), *REQUESTS[2:])


def test_sync_stream_answers_what_came_before_a_request_that_cannot_be_sent() -> None:
    seen: list[str] = []
    with (
        running(ScriptedServer(streaming={STREAM: backwards})) as server,
        Client(server.target) as client,
        pytest.raises(ValueError, match='input "x"'),
    ):
        seen.extend(prediction.request_id for prediction in client.stream(BROKEN))
    assert seen == ["0"]


async def test_aio_stream_answers_what_came_before_a_request_that_cannot_be_sent() -> None:
    seen: list[str] = []
    with running(ScriptedServer(streaming={STREAM: backwards})) as server:
        async with AsyncClient(server.target) as client:
            with pytest.raises(ValueError, match='input "x"'):
                async for prediction in client.stream(BROKEN):
                    seen.append(prediction.request_id)
    assert seen == ["0"]


def endless(requests: Iterator[bytes]) -> Iterator[bytes]:
    while True:
        yield models_pb2.GetLatencyResponse(
            models=[models_pb2.ModelLatency(model="m")]
        ).SerializeToString()


def test_sync_watch_can_be_left() -> None:
    with (
        running(ScriptedServer(streaming={MODELS + "WatchLatency": endless})) as server,
        Client(server.target) as client,
        closing(client.watch_latency("m", interval_s=0.25)) as watch,
    ):
        assert [latency.model for latency in next(watch)] == ["m"]


async def test_aio_watch_can_be_left() -> None:
    with running(ScriptedServer(streaming={MODELS + "WatchLatency": endless})) as server:
        async with (
            AsyncClient(server.target) as client,
            aclosing(client.watch_latency("m", interval_s=0.25)) as watch,
        ):
            assert [latency.model for latency in await anext(watch)] == ["m"]


def breaking(requests: Iterator[bytes]) -> Iterator[bytes]:
    yield echo(next(requests))
    raise Failure(UNAVAILABLE, "gone")


def test_sync_stream_that_breaks_raises() -> None:
    with (
        running(ScriptedServer(streaming={STREAM: breaking})) as server,
        Client(server.target) as client,
        pytest.raises(InferenceError, match="UNAVAILABLE: gone"),
    ):
        [*client.stream(REQUESTS)]


async def test_aio_stream_that_breaks_raises() -> None:
    with running(ScriptedServer(streaming={STREAM: breaking})) as server:
        async with AsyncClient(server.target) as client:
            with pytest.raises(InferenceError, match="UNAVAILABLE: gone"):
                [prediction async for prediction in client.stream(REQUESTS)]
