"""The Open Inference service over a real registry whose versions compute with numpy."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from protos.inference import grpc_service_pb2 as pb
from server.batch_policy import BatchSettings
from server.errors import BackendError, Code, InvalidRequest, ModelNotFound, ModelNotReady
from server.inference import Inference
from server.loader import LoadedModel
from server.model_config import VersionSource
from server.probe import Profile
from server.registry import Registry
from server.repository import Repository
from server.rpc import open_inference
from server.rpc.call import StatusError
from server.rpc.health import SERVER, HealthTable
from server.rpc.open_inference import EXTENSIONS, OpenInferenceService
from server.rpc.open_inference_settings import LogSettings
from server.served import ServedVersion
from server.shared_memory import SharedMemoryRegions
from server.slots import ComputeSlots
from tests.fakes import FakeBackend, rows
from tests.unit.server.rpc.fakes import FakeCall, Requests, Responses, stream, unary

PATH = "/inference.GRPCInferenceService/"


class Bench:
    """A service over the models "fast" and "slow" (y = 2 x), each with a gate."""

    def __init__(self, folder: Path) -> None:
        self.backends = {"fast": FakeBackend(), "slow": FakeBackend()}
        for name in self.backends:
            (folder / name / "1").mkdir(parents=True)
            (folder / name / "1" / "model.onnx").touch()
        self.slots = ComputeSlots(4)
        self.registry = Registry(Repository([folder]), self.open, "all")
        self.health = HealthTable()
        self.service = OpenInferenceService(
            inference=Inference(self.registry),
            registry=self.registry,
            health=self.health,
            regions=SharedMemoryRegions(),
            logs=LogSettings(),
            server_version="1.2.3",
        )

    async def open(self, source: VersionSource) -> ServedVersion:
        backend = self.backends[source.model]
        profile, settings = Profile(batchable=True, max_batch=4), BatchSettings(max_batch=4)
        loaded = LoadedModel(backend, None, 1, backend.signature, profile, settings, {"x": rows(1)})
        return ServedVersion(source, loaded, self.slots)

    async def infer(self, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
        handler = unary(self.service.methods(), PATH + "ModelInfer")
        return pb.ModelInferResponse.FromString(
            await handler(FakeCall(), request.SerializeToString())
        )

    async def call(self, method: str, request: bytes = b"") -> bytes:
        return await unary(self.service.methods(), PATH + method)(FakeCall(), request)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    await bench.registry.start()
    yield bench
    for backend in bench.backends.values():
        backend.gate.set()
    await bench.registry.close()


class OpenStream:
    """One ModelStreamInfer call."""

    def __init__(self, bench: Bench, **metadata: str | bytes) -> None:
        self.requests, self.responses = Requests(), Responses()
        handler = stream(bench.service.methods(), PATH + "ModelStreamInfer")
        call = FakeCall(metadata=metadata)
        self.task = asyncio.ensure_future(
            handler(call, self.requests.__aiter__(), self.responses.send)
        )

    def ask(self, model: str, request_id: str) -> None:
        self.requests.put(request(model, request_id).SerializeToString())

    async def next(self) -> pb.ModelStreamInferResponse:
        return pb.ModelStreamInferResponse.FromString(await self.responses.next())

    async def next_ids(self, count: int) -> list[str]:
        return [(await self.next()).infer_response.id for _ in range(count)]


@asynccontextmanager
async def streaming(bench: Bench, **metadata: str | bytes) -> AsyncIterator[OpenStream]:
    opened = OpenStream(bench, **metadata)
    try:
        yield opened
    finally:
        opened.task.cancel()
        await asyncio.gather(opened.task, return_exceptions=True)


def request(model: str = "fast", request_id: str = "", value: float = 1) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name=model, id=request_id)
    array = rows(value)
    message.inputs.add(name="x", datatype="FP32", shape=array.shape)
    message.raw_input_contents.append(array.tobytes())
    return message


async def test_infer_answers_with_the_version_that_served(bench: Bench) -> None:
    response = await bench.infer(request(request_id="r", value=3))
    assert (response.model_name, response.model_version, response.id) == ("fast", "1", "r")
    assert np.frombuffer(response.raw_output_contents[0], "<f4").tolist() == [6, 6]


async def test_infer_turns_scores_into_classes(bench: Bench) -> None:
    message = request(value=3)
    message.outputs.add(name="y").parameters["classification"].int64_param = 1
    response = await bench.infer(message)
    assert response.outputs[0].datatype == "BYTES"
    assert list(response.outputs[0].shape) == [1, 1]
    assert response.raw_output_contents[0][4:] == b"6.000000:0"


async def test_classes_of_an_unknown_model_are_not_found(bench: Bench) -> None:
    message = request("nobody")
    message.outputs.add(name="y").parameters["classification"].int64_param = 1
    with pytest.raises(ModelNotFound):
        await bench.infer(message)


async def test_bytes_that_are_no_message_are_refused(bench: Bench) -> None:
    with pytest.raises(InvalidRequest, match=r"not a valid inference\.ModelInferRequest"):
        await bench.call("ModelInfer", b"\xff")


async def test_stream_responses_keep_the_order_of_their_requests(bench: Bench) -> None:
    bench.backends["slow"].gate.clear()
    async with streaming(bench) as opened:
        opened.ask("slow", "first")
        await asyncio.to_thread(bench.backends["slow"].entered.acquire)
        opened.ask("fast", "second")
        await asyncio.to_thread(bench.backends["fast"].entered.acquire)
        await bench.infer(request("fast"))  # behind "second" in its queue, so that has its answer
        assert opened.responses.waiting == 0
        bench.backends["slow"].gate.set()
        assert await opened.next_ids(2) == ["first", "second"]


async def test_a_failed_request_leaves_its_stream_open(bench: Bench) -> None:
    async with streaming(bench) as opened:
        opened.ask("nobody", "bad")
        opened.requests.put(b"\xff")
        opened.ask("fast", "good")
        bad, garbage, good = [await opened.next() for _ in range(3)]
        assert bad.error_message == "Request for unknown model: 'nobody' is not found"
        assert bad.infer_response.id == "bad"
        assert "not a valid" in garbage.error_message
        assert good.error_message == ""
        assert good.infer_response.parameters["triton_final_response"].bool_param
        opened.requests.end()
        await opened.task


async def test_a_bug_does_not_leak_into_a_stream(bench: Bench) -> None:
    def fail(inputs: object) -> dict[str, object]:
        raise RuntimeError("secret")

    bench.backends["fast"]._compute = fail  # type: ignore[assignment]
    async with streaming(bench) as opened:
        opened.ask("fast", "r")
        assert "secret" not in (await opened.next()).error_message
    with pytest.raises(BackendError):
        await bench.infer(request())


async def test_a_stream_with_grpc_errors_ends_with_the_first_status(bench: Bench) -> None:
    async with streaming(bench, triton_grpc_error="true") as opened:
        opened.ask("fast", "good")
        opened.ask("nobody", "bad")
        opened.ask("fast", "never answered")
        assert await opened.next_ids(1) == ["good"]
        with pytest.raises(StatusError) as error:
            await opened.task
        assert error.value.code == Code.NOT_FOUND
        assert opened.responses.waiting == 0


async def test_a_client_that_leaves_a_stream_withdraws_its_requests(bench: Bench) -> None:
    slow = bench.backends["slow"]
    slow.gate.clear()
    served = bench.registry.resolve("slow", None)
    async with streaming(bench) as opened:
        for number in range(6):
            opened.ask("slow", str(number))
        await asyncio.to_thread(slow.entered.acquire)
    slow.gate.set()
    await bench.infer(request("slow"))
    assert served.stats.failures["CANCELED"] == 6
    assert served.stats.success.count == 1


async def test_a_stream_is_read_no_further_than_its_limit(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_inference, "STREAM_IN_FLIGHT", 3)
    slow = bench.backends["slow"]
    slow.gate.clear()
    async with streaming(bench) as opened:
        for number in range(8):
            opened.ask("slow", str(number))
        await asyncio.to_thread(slow.entered.acquire)
        await bench.infer(request("fast"))  # lets the reader go as far as it can
        assert opened.requests.waiting >= 4
        slow.gate.set()
        assert await opened.next_ids(8) == [str(number) for number in range(8)]


async def test_draining_answers_what_was_read_and_ends_the_stream(bench: Bench) -> None:
    slow = bench.backends["slow"]
    slow.gate.clear()
    async with streaming(bench) as opened, streaming(bench) as idle:
        opened.ask("slow", "read")
        await asyncio.to_thread(slow.entered.acquire)
        bench.service.drain()
        with pytest.raises(ModelNotReady, match="shutting down"):
            await idle.task
        slow.gate.set()
        assert await opened.next_ids(1) == ["read"]
        with pytest.raises(ModelNotReady):
            await opened.task


async def test_server_state_and_metadata(bench: Bench) -> None:
    live = pb.ServerLiveResponse.FromString(await bench.call("ServerLive"))
    assert live.live
    for is_ready in (False, True):
        bench.health.set(SERVER, is_ready)
        ready = pb.ServerReadyResponse.FromString(await bench.call("ServerReady"))
        assert ready.ready is is_ready
    metadata = pb.ServerMetadataResponse.FromString(await bench.call("ServerMetadata"))
    assert (metadata.name, metadata.version) == ("inflight", "1.2.3")
    assert tuple(metadata.extensions) == EXTENSIONS
    assert "statistics" in EXTENSIONS


def test_all_of_tritons_methods_are_there(tmp_path: Path) -> None:
    service = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    paths = [method.path for method in Bench(tmp_path).service.methods()]
    assert sorted(paths) == sorted(PATH + method.name for method in service.methods)
