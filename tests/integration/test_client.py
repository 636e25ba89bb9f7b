"""Our client against a server process: predictions, streams, model control."""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path

import grpc
import numpy as np
import onnxruntime
import pytest

from client import AsyncClient, Client, InferenceError, Request
from protos import models_pb2
from protos.tensors import Array
from tests import models
from tests.integration.server_process import serving, write_models

MLP = models.mlp()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    files = {
        "mlp/1/model.onnx": MLP,
        "mlp/2/model.onnx": MLP,
        "mlp/config.pbtxt": b"version_policy: { all: {} }",
        "text/1/model.onnx": models.identity("BYTES"),
        "half/1/model.onnx": models.identity("FP16"),
        "ids/1/model.onnx": models.embedding(),
        "alone/1/model.onnx": models.softmax_over_batch(),
        "sick/1/model.onnx": b"not a model",
    }
    write_models(folder / "models", files)
    with serving(folder) as address:
        yield address


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address, timeout_s=60.0) as client:
        yield client


def features(rows: int = 3, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(rows, 16)).astype(np.float32)


def expected(x: Array) -> Array:
    session = onnxruntime.InferenceSession(MLP, providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": x})
    return np.asarray(y)


def test_predictions_are_the_models(client: Client) -> None:
    x = features()
    np.testing.assert_allclose(client.predict("mlp", {"x": x})["y"], expected(x), rtol=1e-5)


def test_who_answered_and_where_the_time_went(client: Client) -> None:
    prediction = client.infer("mlp", {"x": features(2)}, version=1, explain=True, request_id="a")
    assert (prediction.version, prediction.request_id) == (1, "a")
    assert prediction.served_by.startswith("onnx-")
    assert prediction.timing is not None
    assert prediction.timing.total_s >= prediction.timing.compute_infer_s > 0
    assert prediction.timing.batch_size >= 2


def test_texts_and_half_precision(client: Client) -> None:
    texts = np.array([["grün", "a", "", "b"]], dtype=object)
    answer = client.predict("text", {"x": texts})["y"]
    assert [text.decode() for text in answer.ravel()] == ["grün", "a", "", "b"]
    half = np.ones((2, 4), np.float16)
    np.testing.assert_array_equal(client.predict("half", {"x": half})["y"], half)


@pytest.mark.parametrize(
    ("model", "inputs", "code", "text"),
    [
        ("nope", {"x": features()}, "NOT_FOUND", "'nope' is not found"),
        ("sick", {"x": features()}, "UNAVAILABLE", "sick"),
        ("mlp", {"z": features()}, "INVALID_ARGUMENT", "'z'"),
        ("mlp", {}, "INVALID_ARGUMENT", "x"),
        ("mlp", {"x": np.zeros((1, 15), np.float32)}, "INVALID_ARGUMENT", "15"),
        ("mlp", {"x": np.zeros((1, 16))}, "INVALID_ARGUMENT", "FP64"),
    ],
)
def test_refusals_are_clear(
    client: Client, model: str, inputs: dict[str, Array], code: str, text: str
) -> None:
    with pytest.raises(InferenceError) as refused:
        client.predict(model, inputs)
    assert refused.value.code.name == code
    assert text in refused.value.message


def test_an_unknown_output_and_priority_are_refused(client: Client) -> None:
    with pytest.raises(InferenceError, match=r"INVALID_ARGUMENT.*nope"):
        client.predict("mlp", {"x": features()}, outputs=["nope"])
    with pytest.raises(InferenceError, match=r"INVALID_ARGUMENT.*priority 9"):
        client.predict("mlp", {"x": features()}, priority=9)


def test_a_framework_failure_is_the_culprits_only(client: Client) -> None:
    good, bad = np.array([[1, 2]]), np.array([[1, 10**6]])
    requests = [
        Request("ids", {"ids": bad if number == 7 else good}, request_id=str(number))
        for number in range(16)
    ]
    failed = {p.request_id: p.error for p in client.stream(requests) if p.error is not None}
    assert [*failed] == ["7"]
    assert failed["7"].code is grpc.StatusCode.INTERNAL


def test_a_large_message_travels(client: Client) -> None:
    x = features(200_000)
    np.testing.assert_allclose(
        client.predict("mlp", {"x": x})["y"][-3:], expected(x[-3:]), rtol=1e-5
    )


def test_a_stream_answers_everything(client: Client) -> None:
    rows = [features(1 + number % 5, number) for number in range(300)]
    requests = (Request("mlp", {"x": x}) for x in rows)
    answers = {p.request_id: p.result()["y"] for p in client.stream(requests)}
    assert len(answers) == 300
    for number, x in enumerate(rows):
        np.testing.assert_allclose(answers[str(number)], expected(x), rtol=1e-4, atol=1e-5)


def test_leaving_a_stream_ends_it(client: Client) -> None:
    def endless() -> Iterator[Request]:
        while True:
            yield Request("mlp", {"x": features()})

    for count, prediction in enumerate(client.stream(endless())):
        prediction.result()
        if count == 20:
            break
    assert client.predict("mlp", {"x": features()})


def test_threads_share_a_client(client: Client) -> None:
    def one(seed: int) -> None:
        x = features(2, seed)
        np.testing.assert_allclose(
            client.predict("mlp", {"x": x})["y"], expected(x), rtol=1e-4, atol=1e-5
        )

    with ThreadPoolExecutor(8) as threads:
        assert len([*threads.map(one, range(100))]) == 100


async def test_many_tasks_share_an_async_client(address: str) -> None:
    async with AsyncClient(address, timeout_s=60.0) as client:

        async def one(seed: int) -> None:
            x = features(2, seed)
            answer = (await client.predict("mlp", {"x": x}))["y"]
            np.testing.assert_allclose(answer, expected(x), rtol=1e-4, atol=1e-5)

        await asyncio.gather(*(one(seed) for seed in range(100)))


async def test_an_async_stream_answers_everything(address: str) -> None:
    async with AsyncClient(address, timeout_s=60.0) as client:
        requests = [Request("mlp", {"x": features(2, seed)}) for seed in range(50)]
        stream = client.stream(requests)
        assert len([p async for p in stream if p.error is None]) == 50


def test_models_are_listed_with_states_and_reasons(client: Client) -> None:
    found = {(m.model, m.version): m for m in client.models()}
    assert found["mlp", 2].state == models_pb2.STATE_READY
    assert found["mlp", 2].batching
    assert not found["alone", 1].batching
    assert "influence" in found["alone", 1].batching_reason
    assert found["sick", 1].state == models_pb2.STATE_UNAVAILABLE
    assert found["sick", 1].reason


def test_a_model_is_described(client: Client) -> None:
    (version,) = client.model("mlp", version=2).versions
    assert [(t.name, [*t.shape]) for t in version.inputs] == [("x", [-1, 16])]
    assert [point.batch for point in version.curve][:3] == [1, 2, 4]
    assert version.max_batch_reason
    assert version.execution.instances >= 1
    assert version.load_ms > 0


def test_latency_counts_what_was_answered(client: Client) -> None:
    before = client.latency("mlp", version=1, window_s=300)[0]
    for _ in range(5):
        client.predict("mlp", {"x": features()}, version=1)
    (after,) = client.latency("mlp", version=1, window_s=300)
    assert after.successes - before.successes == 5
    assert after.rows - before.rows == 15
    assert after.total.p50_ms <= after.total.p99_ms <= after.total.max_ms * 1.01


def test_watching_latency(client: Client) -> None:
    looks = client.watch_latency("mlp", version=2, interval_s=0.1)
    assert [one.version for one in next(looks)] == [2]
    client.predict("mlp", {"x": features()}, version=2)
    assert any(look[0].total.count for look in looks)


async def test_an_async_watch_can_be_left(address: str) -> None:
    async with AsyncClient(address) as client, aclosing(client.watch_latency("mlp")) as looks:
        assert len(await anext(looks)) == 2


def test_batching_changes_while_requests_run(client: Client) -> None:
    stop = threading.Event()

    def load() -> int:
        answered = 0
        while not stop.is_set():
            client.predict("mlp", {"x": features(1)}, version=1)
            answered += 1
        return answered

    with ThreadPoolExecutor(4) as threads:
        loads = [threads.submit(load) for _ in range(4)]
        changed = client.set_batching("mlp", version=1, window_ms=1.0, max_batch=2)
        assert (changed.settings.window_ms, changed.settings.max_batch) == (1.0, 2)
        timing = client.infer("mlp", {"x": features(2)}, version=1, explain=True).timing
        back = client.set_batching("mlp", version=1, window_ms=0.0, max_batch=64)
        stop.set()
        assert all(load.result() > 0 for load in loads)
    assert timing is not None
    assert (timing.batch_size, timing.release_reason) == (2, "full")
    assert back.previous == changed.settings
    assert client.batching("mlp", version=1).batching.settings == back.settings
    assert client.batching("mlp", version=2).batching.settings.window_ms == 0


def test_settings_that_make_no_sense_are_refused(client: Client) -> None:
    with pytest.raises(InferenceError, match="INVALID_ARGUMENT: window_ms: expected 0 to 60000"):
        client.set_batching("mlp", window_ms=-1.0)
    with pytest.raises(InferenceError, match="INVALID_ARGUMENT: max_batch: expected 1 since"):
        client.set_batching("alone", max_batch=2)


def test_a_full_queue_pushes_back_and_the_client_waits_as_told(
    tmp_path: Path,
) -> None:
    write_models(tmp_path / "models", {"slow/1/model.onnx": models.slow()})
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        time.sleep(seconds)

    with serving(tmp_path) as address, Client(address, sleep=sleep, timeout_s=60.0) as client:
        (tensor,) = client.model("slow").versions[0].inputs
        x = np.zeros((1, tensor.shape[1]), np.float32)
        client.set_batching("slow", max_batch=1, queue_limit=1)
        answered = refused = 0
        with ThreadPoolExecutor(12) as threads:
            calls = [threads.submit(client.predict, "slow", {"x": x}) for _ in range(36)]
            for call in calls:
                try:
                    call.result()
                    answered += 1
                except InferenceError as error:
                    assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
                    assert error.retry_after_s is not None
                    refused += 1
        assert answered + refused == 36
        assert answered > 0
        assert waits
        assert all(round(wait * 1e3, 6) % 1 == 0 and wait >= 0.001 for wait in waits)


def test_models_come_and_go(tmp_path: Path) -> None:
    write_models(tmp_path / "models", {"mlp/1/model.onnx": MLP})
    with serving(tmp_path, "--load-control=explicit") as address, Client(address) as client:
        assert [m.version for m in client.load("mlp", timeout_s=60)] == [1]
        x = features()
        np.testing.assert_allclose(client.predict("mlp", {"x": x})["y"], expected(x), rtol=1e-5)
        sent = client.load("sent", config="{}", files={"3/model.onnx": MLP}, timeout_s=60)
        assert [(m.model, m.version) for m in sent] == [("sent", 3)]
        assert client.infer("sent", {"x": x}).version == 3
        with pytest.raises(InferenceError, match=r"INTERNAL: .*sent"):
            client.load("sent", config="{}", files={"3/model.onnx": b"broken"}, timeout_s=60)
        assert client.infer("sent", {"x": x}).version == 3
        client.unload("mlp")
        with pytest.raises(InferenceError, match="loaded"):
            client.predict("mlp", {"x": x}, timeout_s=5)


def test_loading_by_request_is_off_by_default(client: Client) -> None:
    with pytest.raises(InferenceError, match=r"UNAVAILABLE: .*explicit"):
        client.load("mlp")


def test_a_server_that_stops_ends_streams_and_watches(tmp_path: Path) -> None:
    write_models(tmp_path / "models", {"mlp/1/model.onnx": MLP})
    ended = threading.Event()

    def requests() -> Iterator[Request]:
        yield Request("mlp", {"x": features()})
        ended.wait(60)

    with serving(tmp_path) as address:
        client = Client(address)
        watch, stream = client.watch_latency(interval_s=3600), client.stream(requests())
        assert len(next(watch)) == 1
        next(stream).result()
    # The server has drained and ended with both open.
    assert next(watch, None) is None
    with pytest.raises(InferenceError, match="UNAVAILABLE"):
        next(stream)
    ended.set()
    client.close()
