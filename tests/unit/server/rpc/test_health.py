"""The health table and the service over it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from protos.health import health_pb2 as pb
from server.errors import Code
from server.rpc.call import StatusError
from server.rpc.health import SERVER, HealthService, HealthTable
from tests.unit.server.rpc.fakes import FakeCall, Requests, Responses, stream, unary

SERVING, NOT_SERVING = pb.HealthCheckResponse.SERVING, pb.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = pb.HealthCheckResponse.SERVICE_UNKNOWN


async def check(table: HealthTable, service: str) -> int:
    handler = unary(HealthService(table).methods(), "/grpc.health.v1.Health/Check")
    request = pb.HealthCheckRequest(service=service).SerializeToString()
    return pb.HealthCheckResponse.FromString(await handler(FakeCall(), request)).status


class Watch:
    """One Watch call."""

    def __init__(self, responses: Responses, task: "asyncio.Future[None]") -> None:
        self._responses, self.task = responses, task

    async def next(self) -> int:
        return pb.HealthCheckResponse.FromString(await self._responses.next()).status


@asynccontextmanager
async def watching(table: HealthTable, service: str) -> AsyncIterator[Watch]:
    handler = stream(HealthService(table).methods(), "/grpc.health.v1.Health/Watch")
    requests = Requests(pb.HealthCheckRequest(service=service).SerializeToString())
    responses = Responses()
    task = asyncio.ensure_future(handler(FakeCall(), requests.__aiter__(), responses.send))
    try:
        yield Watch(responses, task)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_check_answers_what_was_reported() -> None:
    table = HealthTable()
    table.set(SERVER, True)
    table.set("digits", False)
    assert await check(table, SERVER) == SERVING
    assert await check(table, "digits") == NOT_SERVING


async def test_check_of_an_unknown_service_is_not_found() -> None:
    with pytest.raises(StatusError) as error:
        await check(HealthTable(), "nobody")
    assert error.value.code == Code.NOT_FOUND


async def test_list_has_every_service() -> None:
    table = HealthTable()
    table.set("b", False)
    table.set("a", True)
    handler = unary(HealthService(table).methods(), "/grpc.health.v1.Health/List")
    response = pb.HealthListResponse.FromString(await handler(FakeCall(), b""))
    assert {name: entry.status for name, entry in response.statuses.items()} == {
        "a": SERVING,
        "b": NOT_SERVING,
    }


async def test_watch_sends_the_state_and_each_change() -> None:
    table = HealthTable()
    table.set("digits", True)
    async with watching(table, "digits") as watch:
        assert await watch.next() == SERVING
        table.set("digits", False)
        assert await watch.next() == NOT_SERVING
        table.set("digits", False)  # no change, no message
        table.set("other", True)
        table.set("digits", True)
        assert await watch.next() == SERVING
        table.forget("digits")
        assert await watch.next() == SERVICE_UNKNOWN


async def test_watch_of_an_unknown_service_stays_open_until_it_is_known() -> None:
    table = HealthTable()
    async with watching(table, "later") as watch:
        assert await watch.next() == SERVICE_UNKNOWN
        table.set("later", True)
        assert await watch.next() == SERVING


async def test_shutdown_makes_everything_not_serving_for_good() -> None:
    table = HealthTable()
    table.set(SERVER, True)
    table.set("digits", True)
    async with watching(table, "digits") as watch:
        assert await watch.next() == SERVING
        table.enter_graceful_shutdown()
        assert await watch.next() == NOT_SERVING
        table.set("digits", True)
        table.set("late", True)
        assert await check(table, "digits") == NOT_SERVING
        assert await check(table, "late") == NOT_SERVING
        assert await check(table, SERVER) == NOT_SERVING


async def test_closing_ends_watches() -> None:
    table = HealthTable()
    async with watching(table, SERVER) as watch:
        assert await watch.next() == SERVICE_UNKNOWN
        table.close()
        await asyncio.wait_for(watch.task, 30)


async def test_a_watcher_that_leaves_is_forgotten() -> None:
    table = HealthTable()
    async with watching(table, SERVER) as watch:
        await watch.next()
    assert not table._watchers
