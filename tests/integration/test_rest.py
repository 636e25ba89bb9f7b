"""The HTTP front door with real clients: tritonclient.http and plain requests.

Registry, service, batcher and listener are real; the models are computed by numpy.
"""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import numpy as np
import pytest
import tritonclient.http as tritonhttp
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.utils import InferenceServerException

from protos.signature import Signature, TensorSpec
from protos.tensors import Array
from server.batch_policy import BatchSettings, QueuePolicy
from server.inference import Inference
from server.loader import LoadedModel
from server.metrics import Metrics
from server.model_config import VersionSource
from server.probe import Profile
from server.registry import Registry
from server.repository import Repository
from server.rpc.health import HealthTable
from server.rpc.open_inference import OpenInferenceService
from server.rpc.open_inference_settings import LogSettings
from server.served import ServedVersion
from server.settings import SettingsError
from server.shared_memory import SharedMemoryRegions
from server.slots import ComputeSlots
from server.statistics_book import StatisticsBook
from server.web.dashboard import Dashboard
from server.web.gateway import HEADER_LENGTH, Gateway
from server.web.listener import HttpListener
from tests.fakes import FakeBackend

T = TypeVar("T")

MAX_BODY = 100_000
ROWS = np.array([[1, 2], [3, 4]], np.float32)


def spec(name: str, datatype: str) -> TensorSpec:
    return TensorSpec(name, datatype, ("n", 2))


def echo(datatype: str) -> FakeBackend:
    """y = x, of any datatype."""
    signature = Signature((spec("x", datatype),), (spec("y", datatype),))
    return FakeBackend(lambda inputs: {"y": inputs["x"]}, signature)


def failing(_: Mapping[str, Array]) -> dict[str, Array]:
    raise RuntimeError("the operator's secret")


def two_outputs() -> FakeBackend:
    outputs = (spec("double", "FP32"), spec("half", "FP32"))
    signature = Signature((spec("x", "FP32"),), outputs)
    return FakeBackend(lambda i: {"double": i["x"] * 2, "half": i["x"] / 2}, signature)


@dataclass
class Server:
    """What a test may ask and change."""

    url: str
    registry: Registry
    backends: dict[str, FakeBackend]
    session: aiohttp.ClientSession
    health: HealthTable
    listener: HttpListener
    served: dict[str, ServedVersion] = field(default_factory=dict)

    async def get(self, path: str, **more: Any) -> tuple[int, Any]:
        async with self.session.get(f"http://{self.url}{path}", **more) as response:
            text = await response.text()
            return response.status, json.loads(text) if text.startswith(("{", "[")) else text

    async def post(self, path: str, **more: Any) -> tuple[int, Any]:
        async with self.session.post(f"http://{self.url}{path}", **more) as response:
            text = await response.text()
            return response.status, json.loads(text) if text else ""

    async def triton(self, call: Callable[[tritonhttp.InferenceServerClient], T]) -> T:
        """Runs calls of the synchronous client in a thread of their own."""

        def work() -> T:
            client = tritonhttp.InferenceServerClient(self.url)
            try:
                return call(client)
            finally:
                client.close()

        return await asyncio.to_thread(work)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    backends = {
        "double": FakeBackend(),
        "failing": FakeBackend(failing),
        "two": two_outputs(),
        **{f"echo_{name}": echo(name) for name in ("FP16", "BYTES", "INT64", "BOOL", "FP32")},
    }
    for name in backends:
        (tmp_path / name / "1").mkdir(parents=True)
        (tmp_path / name / "1" / "model.onnx").write_bytes(b"computed by the test")
    slots, book, served = ComputeSlots(2), StatisticsBook(), dict[str, ServedVersion]()

    async def open_version(source: VersionSource) -> ServedVersion:
        backend = backends[source.model]
        settings = BatchSettings(max_batch=8, queue=QueuePolicy(queue_limit=2))
        profile = Profile(batchable=True, max_batch=8)
        loaded = LoadedModel(backend, None, 1, backend.signature, profile, settings, {})
        served[source.model] = ServedVersion(source, loaded, slots)
        book.add(source.model, source.version, served[source.model].stats)
        return served[source.model]

    registry = Registry(Repository([tmp_path]), open_version, "explicit")
    await registry.start()
    for name in backends:
        await registry.load(name)
    health = HealthTable()
    health.set("", True)
    service = OpenInferenceService(
        inference=Inference(registry),
        registry=registry,
        health=health,
        regions=SharedMemoryRegions(),
        logs=LogSettings(),
        server_version="1.2.3",
    )
    metrics = Metrics(CollectorRegistry(), book, lambda: ())
    dashboard = Dashboard(registry, "1.2.3")
    app = Gateway(service, metrics, MAX_BODY).application(dashboard.routes())
    listener = HttpListener(app, drain_s=5)
    port = await listener.start("127.0.0.1", 0)
    async with aiohttp.ClientSession() as session:
        yield Server(f"127.0.0.1:{port}", registry, backends, session, health, listener, served)
    await listener.stop()
    await registry.close()


def triton_input(array: Array, datatype: str = "FP32", *, binary: bool = True) -> Any:
    tensor = tritonhttp.InferInput("x", array.shape, datatype)
    tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor


ECHOED: dict[str, Array] = {
    "FP32": ROWS,
    "FP16": ROWS.astype(np.float16),
    "INT64": np.array([[1, -(2**62)]], np.int64),
    "BOOL": np.array([[True, False]]),
    "BYTES": np.array([["é".encode(), b""], [b"abc", b"d"]], object),
}


@pytest.mark.parametrize("binary_out", [True, False], ids=["binary out", "json out"])
@pytest.mark.parametrize("binary_in", [True, False], ids=["binary in", "json in"])
@pytest.mark.parametrize("datatype", ECHOED)
async def test_tritonclient_infers(
    server: Server, datatype: str, binary_in: bool, binary_out: bool
) -> None:
    if datatype == "FP16" and not binary_in:
        pytest.skip("tritonclient sends FP16 as binary data only")
    array = ECHOED[datatype]

    def infer(client: tritonhttp.InferenceServerClient) -> Any:
        return client.infer(
            f"echo_{datatype}",
            [triton_input(array, datatype, binary=binary_in)],
            outputs=[tritonhttp.InferRequestedOutput("y", binary_data=binary_out)],
            request_id="r7",
        )

    result = await server.triton(infer)
    got = result.as_numpy("y")
    if datatype == "BYTES" and not binary_out:
        got = np.vectorize(str.encode, otypes=[object])(got)
    assert got.tolist() == array.tolist()
    response = result.get_response()
    assert (response["model_name"], response["model_version"]) == (f"echo_{datatype}", "1")
    assert response["id"] == "r7"


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
async def test_tritonclient_compresses_both_ways(server: Server, algorithm: str) -> None:
    result = await server.triton(
        lambda client: client.infer(
            "double",
            [triton_input(ROWS)],
            request_compression_algorithm=algorithm,
            response_compression_algorithm=algorithm,
        )
    )
    assert result.as_numpy("y").tolist() == (ROWS * 2).tolist()


async def test_outputs_can_be_chosen_and_ranked(server: Server) -> None:
    wanted = [tritonhttp.InferRequestedOutput("half", class_count=1)]
    result = await server.triton(
        lambda client: client.infer("two", [triton_input(ROWS)], outputs=wanted)
    )
    assert result.as_numpy("half").tolist() == [[b"1.000000:1"], [b"2.000000:1"]]
    assert result.as_numpy("double") is None


async def test_tritonclient_reads_everything_else(server: Server) -> None:
    def read(client: tritonhttp.InferenceServerClient) -> dict[str, Any]:
        client.infer("double", [triton_input(ROWS)], model_version="1")
        return {
            "live": client.is_server_live(),
            "ready": client.is_server_ready(),
            "model ready": client.is_model_ready("double"),
            "version ready": client.is_model_ready("double", "1"),
            "unknown ready": client.is_model_ready("nobody"),
            "server": client.get_server_metadata(),
            "metadata": client.get_model_metadata("double"),
            "config": client.get_model_config("double", "1"),
            "statistics": client.get_inference_statistics("double"),
            "all statistics": client.get_inference_statistics(),
            "index": client.get_model_repository_index(),
            "memory": client.get_system_shared_memory_status(),
            "logging": client.get_log_settings(),
        }

    answers = await server.triton(read)
    readiness = ["live", "ready", "model ready", "version ready", "unknown ready"]
    assert [answers[name] for name in readiness] == [True, True, True, True, False]
    assert answers["server"]["version"] == "1.2.3"
    assert "statistics" in answers["server"]["extensions"]
    assert answers["metadata"]["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]
    assert answers["config"]["max_batch_size"] == 8
    assert answers["config"]["input"][0]["dims"] == [2]
    (statistics,) = answers["statistics"]["model_stats"]
    assert statistics["inference_count"] == 2
    assert statistics["inference_stats"]["success"]["count"] == 1
    assert len(answers["all statistics"]["model_stats"]) == len(server.backends)
    states = {entry["name"]: entry["state"] for entry in answers["index"]}
    assert states == dict.fromkeys(server.backends, "READY")
    assert answers["memory"] == []
    assert answers["logging"]["log_info"] in {True, False}


async def test_models_are_unloaded_and_loaded(server: Server) -> None:
    def reload(client: tritonhttp.InferenceServerClient) -> list[bool]:
        client.unload_model("double")
        unloaded = client.is_model_ready("double")
        client.load_model("double", config=json.dumps({"max_batch_size": 4}))
        return [unloaded, client.is_model_ready("double")]

    assert await server.triton(reload) == [False, True]


async def test_a_failed_call_raises_in_tritonclient(server: Server) -> None:
    with pytest.raises(InferenceServerException, match="unknown model: 'nobody'") as caught:
        await server.triton(lambda client: client.infer("nobody", [triton_input(ROWS)]))
    assert caught.value.status() == "404"


INFER = "/v2/models/double/infer"


def document(**more: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}], **more}


async def test_json_in_json_out(server: Server) -> None:
    status, answer = await server.post(INFER, json=document(id="r1"))
    assert status == 200
    assert answer == {
        "model_name": "double",
        "model_version": "1",
        "id": "r1",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [2.0, 4.0]}],
    }


async def test_nan_passes_through(server: Server) -> None:
    text = json.dumps(document()).replace("[1, 2]}", "[NaN, -Infinity]}")
    async with server.session.post(f"http://{server.url}{INFER}", data=text) as response:
        assert '"data":[NaN,-Infinity]' in await response.text()


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        (INFER, b"{", 400, "the request body is not valid JSON"),
        (INFER, b"{}", 400, "missing required input(s) ['x']"),
        (
            INFER,
            json.dumps(
                {"inputs": [{"name": "x", "datatype": "INT8", "shape": [0, 2], "data": []}]}
            ),
            400,
            "inference input 'x' data-type is 'INT8', but model 'double' expects 'FP32'",
        ),
        ("/v2/models/double/versions/9/infer", json.dumps(document()), 404, "version 9"),
        ("/v2/models/double/versions/x/infer", json.dumps(document()), 400, "version string 'x'"),
        ("/v2/models/failing/infer", json.dumps(document()), 500, "failing"),
        ("/v2/repository/index", b'{"redy": true}', 400, "redy"),
        ("/v2/repository/models/double/load", b'{"parameters": {"file:1/a": "?"}}', 400, "base64"),
        ("/v2/trace/setting", b"{}", 405, "Method Not Allowed"),
        ("/v2/nothing", b"", 404, "Not Found: POST /v2/nothing"),
    ],
)
async def test_failures_have_one_form(
    server: Server, path: str, body: Any, status: int, text: str
) -> None:
    got, answer = await server.post(path, data=body)
    assert got == status
    assert list(answer) == ["error"]
    assert text in answer["error"]
    assert "secret" not in answer["error"]


async def test_a_header_length_that_is_no_number_is_refused(server: Server) -> None:
    headers = {HEADER_LENGTH: "ten"}
    status, answer = await server.post(INFER, data=b"{}", headers=headers)
    assert (status, answer["error"]) == (
        400,
        f"{HEADER_LENGTH}: expected a number of bytes, got 'ten'",
    )


@pytest.mark.parametrize("is_zipped", [False, True], ids=["plain", "unpacked"])
async def test_a_body_over_the_limit_is_refused_by_name(server: Server, is_zipped: bool) -> None:
    body = b" " * (MAX_BODY + 1)
    if is_zipped:
        body, headers = gzip.compress(body), {"Content-Encoding": "gzip"}
    else:
        headers = {}
    status, answer = await server.post(INFER, data=body, headers=headers)
    assert status == 413
    assert answer["error"].startswith(f"the request body is larger than {MAX_BODY} bytes")
    assert "--max-message-mb" in answer["error"]


async def test_a_server_that_is_not_ready_says_so(server: Server) -> None:
    server.health.set("", False)
    assert await server.get("/v2/health/ready") == (400, "")
    assert await server.get("/v2/health/live") == (200, "")


async def test_a_full_queue_is_429_with_a_time_to_retry(server: Server) -> None:
    async def ask() -> tuple[int, str, Any]:
        async with server.session.post(f"http://{server.url}{INFER}", json=document()) as response:
            answer = await response.json()
            return response.status, response.headers.get("Retry-After", ""), answer

    backend = server.backends["double"]
    backend.gate.clear()
    asked = [asyncio.ensure_future(ask()) for _ in range(2 * 8)]
    done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    status, retry_after, answer = done.pop().result()
    assert (status, int(retry_after) >= 1) == (429, True)
    assert "Exceeds maximum queue size" in answer["error"]
    backend.gate.set()
    assert {status for status, _, _ in await asyncio.gather(*asked)} == {200, 429}


async def test_a_caller_that_leaves_is_counted_as_cancelled(server: Server) -> None:
    backend, served = server.backends["double"], server.served["double"]
    backend.gate.clear()
    caller = asyncio.ensure_future(server.post(INFER, json=document()))
    await asyncio.to_thread(backend.entered.acquire)
    await server.registry.unload("double")  # closes when the request lets go of it
    caller.cancel()
    await asyncio.wait_for(served.closed(), 30)
    backend.gate.set()
    assert served.stats.failures == {"CANCELED": 1}


async def test_metrics_are_scraped(server: Server) -> None:
    await server.post(INFER, json=document())
    status, text = await server.get("/metrics")
    assert status == 200
    families = {family.name: family for family in text_string_to_metric_families(text)}
    (sample,) = [
        sample
        for sample in families["inflight_requests"].samples
        if sample.labels["model"] == "double"
    ]
    assert sample.labels == {"model": "double", "version": "1", "code": "OK"}
    assert sample.value == 1


async def test_metrics_speak_openmetrics(server: Server) -> None:
    headers = {"Accept": "application/openmetrics-text; version=1.0.0"}
    _, text = await server.get("/metrics", headers=headers)
    assert text.endswith("# EOF\n")


async def test_the_page_needs_nothing_but_itself(server: Server) -> None:
    async with server.session.get(f"http://{server.url}/") as response:
        assert response.content_type == "text/html"
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        page = await response.text()
    assert "//" not in page.replace("<!doctype html>", "")
    assert "dashboard.json?window_s=" in page


async def test_the_page_shows_every_model(server: Server) -> None:
    await server.post(INFER, json=document())
    await server.triton(lambda client: client.unload_model("failing"))
    status, answer = await server.get("/dashboard.json?window_s=60")
    assert (status, answer["server_version"], answer["window_s"]) == (200, "1.2.3", 60)
    models = {model["model"]: model for model in answer["models"]}
    assert set(models) == set(server.backends)
    used = models["double"]
    assert (used["state"], used["version"], used["answered"], used["failed"]) == ("READY", 1, 1, 0)
    assert (used["max_batch"], used["mean_batch_rows"], used["waiting"]) == (8, 1.0, 0)
    assert 0 < used["p50_s"] <= used["p99_s"] <= used["max_s"]
    assert used["queue_p99_s"] < used["max_s"]
    assert used["rate"] > 0
    assert models["two"]["answered"] == 0
    assert "p50_s" not in models["two"]
    assert models["failing"]["state"] == "UNAVAILABLE"
    assert models["failing"]["reason"]


async def test_the_page_knows_the_windows(server: Server) -> None:
    status, answer = await server.get("/dashboard.json?window_s=5")
    assert (status, answer["error"]) == (400, "window_s: expected one of 1, 10, 60, 300, got '5'")


async def test_stopping_finishes_what_was_accepted(server: Server) -> None:
    backend = server.backends["double"]
    backend.gate.clear()
    asked = asyncio.ensure_future(server.post(INFER, json=document()))
    await asyncio.to_thread(backend.entered.acquire)
    stopping = asyncio.ensure_future(server.listener.stop())
    with pytest.raises(aiohttp.ClientConnectorError):
        while True:  # until the port is closed
            await server.get("/v2/health/live")
    assert not stopping.done()
    backend.gate.set()
    status, _ = await asked
    assert status == 200
    await stopping


@pytest.mark.parametrize(
    ("host", "reason"), [("127.0.0.1", "Address already in use"), ("no such host", "")]
)
async def test_an_address_that_cannot_be_used_is_named(
    server: Server, host: str, reason: str
) -> None:
    port = int(server.url.rpartition(":")[2])
    with pytest.raises(SettingsError) as caught:
        await HttpListener(web.Application(), drain_s=0).start(host, port)
    assert str(caught.value).startswith(f"cannot listen on {host}:{port} for HTTP: {reason}")
    assert str(caught.value).endswith(" (--http-port, --host)")
