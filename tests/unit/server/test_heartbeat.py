"""Hung instances are found for as long as their version is open."""

import asyncio

import pytest

from server.errors import BackendError
from server.heartbeat import Heartbeat
from server.inference import Inference
from server.request import InferRequest
from tests.fakes import FakeBackend, rows
from tests.unit.server.test_served import OneVersion, serve


async def test_a_hang_in_a_version_that_was_replaced_is_found() -> None:
    backend = FakeBackend()
    backend.gate.clear()
    served = serve(backend)
    heartbeat = Heartbeat(hang_timeout_s=0.0)
    followed = asyncio.ensure_future(heartbeat.follow(served))
    stuck = asyncio.ensure_future(
        Inference(OneVersion(served)).predict(InferRequest("m", {"x": rows(1)}))
    )
    await asyncio.to_thread(backend.entered.acquire)
    served.retire()
    heartbeat.beat()
    with pytest.raises(BackendError, match="did not return"):
        await stuck
    await followed
    backend.gate.set()
