"""Handles keep a version alive; a broken instance shows until the model answers again."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from server import served as served_module
from server.batch_policy import BatchSettings
from server.errors import BackendError, Code
from server.inference import Inference
from server.loader import LoadedModel
from server.model_config import ModelConfig, VersionSource
from server.probe import Profile
from server.request import InferRequest
from server.served import ServedVersion
from server.slots import ComputeSlots
from server.statistics import failure_reason
from server.validation import Validator
from tests.fakes import FakeBackend, rows


def serve(backend: FakeBackend, *, has_example: bool = True) -> ServedVersion:
    profile = Profile(batchable=True, max_batch=8)
    example = {"x": rows(1)} if has_example else {}
    settings = BatchSettings(max_batch=8)
    loaded = LoadedModel(backend, None, 1, backend.signature, profile, settings, example)
    source = VersionSource("m", 3, Path("m.onnx"), ModelConfig("m"))
    return ServedVersion(source, loaded, ComputeSlots(2))


class OneVersion:
    """A registry of one."""

    def __init__(self, served: ServedVersion) -> None:
        self.served = served

    def resolve(self, model: str, version: int | None) -> ServedVersion:
        return self.served


async def test_a_version_closes_with_its_last_handle() -> None:
    backend = FakeBackend()
    served = serve(backend)
    served.acquire()
    served.retire()
    assert not backend.is_closed
    served.release()
    await served.closed()
    assert backend.is_closed


async def test_a_request_that_began_on_a_retired_version_ends_on_it() -> None:
    backend = FakeBackend()
    backend.gate.clear()
    served = serve(backend)
    request = InferRequest("m", {"x": rows(1)}, request_id="r1", explain=True)
    running = asyncio.ensure_future(Inference(OneVersion(served)).predict(request))
    await asyncio.to_thread(backend.entered.acquire)
    served.retire()
    backend.gate.set()
    response = await running
    assert (response.model, response.version, response.request_id) == ("m", 3, "r1")
    assert response.outputs["y"].tolist() == [[2, 2]]
    assert response.timing.total_s >= response.timing.compute_s > 0
    await served.closed()
    assert served.stats.success.count == 1


async def test_failures_are_counted_by_their_code() -> None:
    def fail(inputs: object) -> dict[str, object]:
        raise RuntimeError("broken")

    served = serve(FakeBackend(fail))  # type: ignore[arg-type]
    with pytest.raises(BackendError):
        await Inference(OneVersion(served)).predict(InferRequest("m", {"x": rows(1)}))
    assert served.stats.failures[failure_reason(BackendError.code)] == 1
    served.retire()


async def test_a_bug_is_counted_as_an_internal_error() -> None:
    class BrokenValidator(Validator):
        def check(self, request: InferRequest) -> None:
            raise ZeroDivisionError

    served = serve(FakeBackend())
    served.validator = BrokenValidator("m", served.signature, served.profile)
    with pytest.raises(ZeroDivisionError):
        await Inference(OneVersion(served)).predict(InferRequest("m", {"x": rows(1)}))
    assert served.stats.failed_codes == {Code.INTERNAL: 1}
    served.retire()


async def test_a_cancelled_request_gives_its_handle_back() -> None:
    backend = FakeBackend()
    backend.gate.clear()
    served = serve(backend)
    inference = Inference(OneVersion(served))
    running = asyncio.ensure_future(inference.predict(InferRequest("m", {"x": rows(1)})))
    await asyncio.to_thread(backend.entered.acquire)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    backend.gate.set()
    served.retire()
    await served.closed()


async def test_a_version_is_freed_when_the_run_that_nobody_waits_for_has_ended() -> None:
    backend = FakeBackend()
    backend.gate.clear()
    served = serve(backend)
    inference = Inference(OneVersion(served))
    running = asyncio.ensure_future(inference.predict(InferRequest("m", {"x": rows(1)})))
    await asyncio.to_thread(backend.entered.acquire)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    served.retire()
    await asyncio.sleep(0)
    assert not backend.is_closed, "its thread is inside"
    assert len(backend.interrupted) == 1
    backend.gate.set()
    await served.closed()
    assert backend.is_closed


async def test_a_version_with_a_hung_run_closes_and_is_freed_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(served_module, "_LONGEST_END_S", 0.001)
    backend = FakeBackend()
    backend.gate.clear()
    served = serve(backend, has_example=False)
    inference = Inference(OneVersion(served))
    stuck = asyncio.ensure_future(inference.predict(InferRequest("m", {"x": rows(1)})))
    await asyncio.to_thread(backend.entered.acquire)
    served.check(hang_timeout_s=0.0)
    with pytest.raises(BackendError):
        await stuck
    assert len(backend.interrupted) == 1, "the run may be ended"
    served.retire()
    await served.closed()
    assert not backend.is_closed
    backend.gate.set()
    await asyncio.to_thread(backend.closed.wait)


@pytest.mark.parametrize("has_example", [True, False])
async def test_a_hung_instance_shows_until_the_model_answers_again(has_example: bool) -> None:
    backend = FakeBackend()
    backend.gate.clear()
    served = serve(backend, has_example=has_example)
    problems: list[str] = []
    answered = asyncio.Event()

    def note() -> None:
        problems.append(served.problem)
        if not served.problem:
            answered.set()

    served.on_health = note
    inference = Inference(OneVersion(served))
    stuck = asyncio.ensure_future(inference.predict(InferRequest("m", {"x": rows(1)})))
    await asyncio.to_thread(backend.entered.acquire)
    served.check(hang_timeout_s=0.0)
    with pytest.raises(BackendError):
        await stuck
    assert "was replaced" in problems[0]
    backend.gate.set()
    if not has_example:
        await inference.predict(InferRequest("m", {"x": rows(1)}))
    await answered.wait()
    assert problems == [problems[0], ""]
    served.retire()


async def test_a_successor_keeps_what_an_operator_set_and_takes_the_rest_as_it_is() -> None:
    before, after = serve(FakeBackend()), serve(FakeBackend())
    settings = before.batcher.settings
    before.batcher.apply(replace(settings, window_s=0.005))
    after.batcher.apply(replace(settings, max_batch=16))
    after.succeed(before)
    assert after.batcher.settings.window_s == 0.005
    assert after.batcher.settings.max_batch == 16
    assert after.signature is before.signature
    before.retire()
    after.retire()
