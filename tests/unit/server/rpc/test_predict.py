"""The native prediction service over a real version with a numpy backend."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from protos import predict_pb2 as pb
from protos.tensors import Array, decode
from server.batch_policy import BatchSettings, QueuePolicy
from server.errors import Code, InvalidRequest, ModelNotReady
from server.inference import Inference
from server.loader import LoadedModel
from server.model_config import ModelConfig, VersionSource
from server.probe import Profile
from server.rpc.messages import parse
from server.rpc.predict import PredictionService, decode_request
from server.served import ServedVersion
from server.slots import ComputeSlots
from tests.fakes import Compute, FakeBackend, double, rows
from tests.unit.server.rpc.fakes import FakeCall, Requests, Responses, stream, unary

PATH = "/inflight.v1.Prediction/"


@dataclass
class OneVersion:
    served: ServedVersion

    def resolve(self, model: str, version: int | None) -> ServedVersion:
        return self.served


@dataclass
class Setting:
    """A service over one version, and what runs it."""

    service: PredictionService
    backend: FakeBackend
    served: ServedVersion

    async def predict(self, message: pb.PredictRequest, call: FakeCall) -> pb.PredictResponse:
        handler = unary(self.service.methods(), PATH + "Predict")
        return pb.PredictResponse.FromString(await handler(call, message.SerializeToString()))


@asynccontextmanager
async def setting(
    compute: Compute = double, settings: BatchSettings | None = None
) -> AsyncIterator[Setting]:
    backend = FakeBackend(compute)
    settings = settings or BatchSettings(max_batch=8)
    profile = Profile(batchable=True, max_batch=8)
    loaded = LoadedModel(backend, None, 1, backend.signature, profile, settings, {"x": rows(1)})
    source = VersionSource("m", 3, Path("m.onnx"), ModelConfig("m"))
    served = ServedVersion(source, loaded, ComputeSlots(2))
    yield Setting(PredictionService(Inference(OneVersion(served))), backend, served)
    backend.gate.set()
    served.retire()
    await served.closed()


def tensor(array: Array, name: str = "x") -> pb.Tensor:
    return pb.Tensor(name=name, datatype="FP32", shape=array.shape, raw=array.tobytes())


def request(*values: float, request_id: str = "") -> pb.PredictRequest:
    return pb.PredictRequest(model="m", request_id=request_id, inputs=[tensor(rows(*values))])


def output(response: pb.PredictResponse) -> list[list[float]]:
    (y,) = response.outputs
    assert y.name == "y"
    values: list[list[float]] = decode(y.raw, y.datatype, tuple(y.shape)).tolist()
    return values


async def test_predict_answers_with_outputs_and_who_made_them() -> None:
    async with setting() as s:
        response = await s.predict(request(1, 2, request_id="r"), FakeCall())
    assert output(response) == [[2, 2], [4, 4]]
    assert (response.model, response.version, response.request_id) == ("m", 3, "r")
    assert response.served_by == "fake-1"
    assert not response.HasField("timing")
    assert not response.HasField("status")


async def test_timing_explains_when_asked() -> None:
    async with setting() as s:
        asked = request(1, 2)
        asked.explain = True
        timing = (await s.predict(asked, FakeCall())).timing
    assert timing.total_ns >= timing.queue_ns + timing.compute_ns > 0
    parts = timing.compute_input_ns + timing.compute_infer_ns + timing.compute_output_ns
    assert parts == pytest.approx(timing.compute_ns, abs=3)
    assert (timing.batch_size, timing.batch_requests, timing.batch_position) == (2, 1, 0)
    assert timing.release_reason == "idle_instance"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        pytest.param({"model": ""}, "names no model", id="no model"),
        pytest.param({"version": -2}, "version: expected a positive", id="negative version"),
        pytest.param({"timeout_ms": -1.0}, "timeout_ms: expected", id="negative timeout"),
        pytest.param({"timeout_ms": float("nan")}, "timeout_ms: expected", id="NaN timeout"),
        pytest.param({"queue_timeout_ms": float("inf")}, "queue_timeout_ms", id="endless timeout"),
    ],
)
def test_bad_request_fields_are_named(change: Mapping[str, object], text: str) -> None:
    message = request(1)
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(InvalidRequest, match=text):
        decode_request(message, None)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        pytest.param(
            pb.Tensor(name="x", datatype="FP32", raw=bytes(8)),
            r'input "x": expected 4 bytes for FP32\[\], got 8 bytes \(the request gives no shape',
            id="no shape",
        ),
        pytest.param(
            pb.Tensor(name="x", datatype="FP32", shape=[2, 2], raw=bytes(15)),
            r'input "x": expected 16 bytes for FP32\[2, 2\], got 15 bytes$',
            id="wrong size",
        ),
        pytest.param(
            pb.Tensor(name="x", datatype="float", shape=[1], raw=bytes(4)),
            "input \"x\": unknown datatype 'float'",
            id="unknown datatype",
        ),
        pytest.param(
            pb.Tensor(name="x", datatype="FP32", shape=[-1, 2], raw=bytes(8)),
            r'input "x": negative dimension in shape \[-1, 2\]',
            id="negative dimension",
        ),
        pytest.param(
            pb.Tensor(name="x", datatype="BYTES", shape=[2], raw=b"\x01\0\0\0a"),
            'input "x": BYTES tensor of 2 elements',
            id="BYTES cut short",
        ),
    ],
)
def test_bad_tensors_are_named(wrong: pb.Tensor, text: str) -> None:
    with pytest.raises(InvalidRequest, match=text):
        decode_request(pb.PredictRequest(model="m", inputs=[wrong]), None)


def test_an_input_given_twice_is_refused() -> None:
    twice = pb.PredictRequest(model="m", inputs=[tensor(rows(1)), tensor(rows(2))])
    with pytest.raises(InvalidRequest, match='input "x" is given twice'):
        decode_request(twice, None)


def test_bytes_that_are_no_message_are_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"not a valid inflight\.v1\.PredictRequest"):
        parse(pb.PredictRequest, b"\xff\xff\xff")


@pytest.mark.parametrize(
    ("call_in_s", "own_ms", "expected_in_s"),
    [
        pytest.param(None, 0, None, id="none"),
        pytest.param(50.0, 0, 50.0, id="the call's"),
        pytest.param(None, 20_000, 20.0, id="its own"),
        pytest.param(50.0, 20_000, 20.0, id="its own is nearer"),
        pytest.param(5.0, 20_000, 5.0, id="the call's is nearer"),
    ],
)
def test_the_nearer_deadline_counts(
    call_in_s: float | None, own_ms: float, expected_in_s: float | None
) -> None:
    now = time.monotonic()
    message = request(1)
    message.timeout_ms = own_ms
    deadline = decode_request(message, None if call_in_s is None else now + call_in_s).deadline
    if expected_in_s is None:
        assert deadline is None
    else:
        assert deadline == pytest.approx(now + expected_in_s, abs=1.0)


def test_what_the_request_names_travels() -> None:
    message = request(1, request_id="r")
    message.version, message.priority, message.explain = 4, 2, True
    message.output_names.append("y")
    message.queue_timeout_ms = 250
    decoded = decode_request(message, None)
    assert (decoded.version, decoded.priority, decoded.explain) == (4, 2, True)
    assert (decoded.output_names, decoded.request_id) == (("y",), "r")
    assert decoded.queue_timeout_s == 0.25


def test_inputs_are_not_copied_after_parsing() -> None:
    inputs = decode_request(request(1), None).inputs
    assert inputs["x"].base is not None
    assert not inputs["x"].flags.writeable


class StreamCall:
    """One PredictStream under way."""

    def __init__(self, service: PredictionService) -> None:
        self.requests, self.responses = Requests(), Responses()
        handler = stream(service.methods(), PATH + "PredictStream")
        self.task = asyncio.ensure_future(
            handler(FakeCall(), self.requests.__aiter__(), self.responses.send)
        )

    def put(self, message: pb.PredictRequest) -> None:
        self.requests.put(message.SerializeToString())

    async def next(self) -> pb.PredictResponse:
        return pb.PredictResponse.FromString(await self.responses.next())


async def waiting(served: ServedVersion, entries: int) -> None:
    """Lets the loop turn until so many requests wait in the queue."""
    while served.stats.queue_depth < entries:  # noqa: ASYNC110 - the queue tells nobody
        await asyncio.sleep(0)


async def test_a_stream_answers_every_request_and_ends() -> None:
    async with setting() as s:
        call = StreamCall(s.service)
        for number in range(20):
            call.put(request(number, request_id=str(number)))
        call.requests.end()
        answers = [await call.next() for _ in range(20)]
        await call.task
    assert {a.request_id: output(a)[0][0] for a in answers} == {
        str(number): 2.0 * number for number in range(20)
    }


async def test_requests_of_one_stream_share_batches() -> None:
    async with setting() as s:
        s.backend.gate.clear()
        call = StreamCall(s.service)
        call.put(request(0))
        await asyncio.to_thread(s.backend.entered.acquire)
        for number in range(4):
            call.put(request(number))
        await waiting(s.served, 4)
        s.backend.gate.set()
        call.requests.end()
        await call.task
    assert s.backend.batches == [1, 4]


async def test_a_failed_request_does_not_end_its_stream() -> None:
    async with setting() as s:
        call = StreamCall(s.service)
        call.put(pb.PredictRequest(model="m", request_id="bad"))
        bad = await call.next()
        call.put(request(5, request_id="good"))
        good = await call.next()
        call.requests.end()
        await call.task
    assert (bad.request_id, bad.model, bad.status.code) == ("bad", "m", Code.INVALID_ARGUMENT)
    assert "'x'" in bad.status.message
    assert output(good) == [[10, 10]]


async def test_garbage_in_a_stream_is_answered_and_the_stream_goes_on() -> None:
    async with setting() as s:
        call = StreamCall(s.service)
        call.requests.put(b"\xff\xff")
        assert (await call.next()).status.code == Code.INVALID_ARGUMENT
        call.put(request(1))
        assert output(await call.next()) == [[2, 2]]
        call.requests.end()
        await call.task


async def test_a_full_queue_is_told_with_the_predicted_wait_inside_a_stream() -> None:
    settings = BatchSettings(max_batch=1, queue=QueuePolicy(queue_limit=1))
    async with setting(settings=settings) as s:
        s.backend.gate.clear()
        call = StreamCall(s.service)
        call.put(request(0))
        await asyncio.to_thread(s.backend.entered.acquire)
        call.put(request(1))
        call.put(request(2, request_id="third"))
        full = await call.next()
        s.backend.gate.set()
        call.requests.end()
        await call.task
    assert (full.request_id, full.status.code) == ("third", Code.RESOURCE_EXHAUSTED)
    assert full.status.retry_after_ms >= 1


async def test_an_unexpected_failure_leaks_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with setting() as s:
        s.served.validator = None  # type: ignore[assignment]
        call = StreamCall(s.service)
        call.put(request(1))
        with caplog.at_level(logging.CRITICAL):
            failed = await call.next()
        call.requests.end()
        await call.task
    assert (failed.status.code, failed.status.message) == (Code.INTERNAL, "internal error")


async def test_leaving_a_stream_drops_what_it_had_queued() -> None:
    async with setting() as s:
        s.backend.gate.clear()
        call = StreamCall(s.service)
        call.put(request(0))
        await asyncio.to_thread(s.backend.entered.acquire)
        for number in range(3):
            call.put(request(number))
        await waiting(s.served, 3)
        call.task.cancel()
        await asyncio.gather(call.task, return_exceptions=True)
        assert s.served.stats.queue_depth == 0
        assert s.served.stats.dropped["cancelled"] == 3


async def test_draining_answers_what_a_stream_has_sent_and_ends_it() -> None:
    async with setting() as s:
        s.backend.gate.clear()
        call = StreamCall(s.service)
        call.put(request(7))
        await asyncio.to_thread(s.backend.entered.acquire)
        s.service.drain()
        s.backend.gate.set()
        assert output(await call.next()) == [[14, 14]]
        with pytest.raises(ModelNotReady, match="shutting down"):
            await call.task


async def test_deadline_of_the_call_is_kept() -> None:
    async with setting() as s:
        handler = unary(s.service.methods(), PATH + "Predict")
        late = FakeCall(deadline=time.monotonic() - 1)
        with pytest.raises(Exception, match="deadline"):
            await handler(late, request(1).SerializeToString())
    assert s.backend.batches == []
