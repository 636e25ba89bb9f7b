"""`grpc.health.v1.Health`: what load balancers, Kubernetes and grpc_health_probe ask.

Services that can be asked about: "" (the whole server), each gRPC service by its full name, and
each model by its name.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager

from protos.health import health_pb2 as pb
from server.errors import Code
from server.rpc.call import Call, Method, Send, StatusError, Stream, Unary
from server.rpc.messages import parse

SERVER = ""

Status = pb.HealthCheckResponse.ServingStatus
_SERVING, _NOT_SERVING = pb.HealthCheckResponse.SERVING, pb.HealthCheckResponse.NOT_SERVING
_SERVICE_UNKNOWN = pb.HealthCheckResponse.SERVICE_UNKNOWN


class HealthTable:
    """Who serves. Event loop only.

    After `enter_graceful_shutdown` nothing serves again, whatever is reported later: a model
    that comes up while the server drains must not attract calls.
    """

    def __init__(self) -> None:
        self._serving: dict[str, bool] = {}
        self._watchers: set[asyncio.Event] = set()
        self._is_shutting_down = False
        self.is_closed = False

    def set(self, service: str, serving: bool) -> None:
        """Reports a service, known or new."""
        self._serving[service] = serving and not self._is_shutting_down
        self._wake()

    def forget(self, service: str) -> None:
        """Makes a service unknown: its model is gone."""
        self._serving.pop(service, None)
        self._wake()

    def status(self, service: str) -> Status | None:
        """None: the service is unknown."""
        serving = self._serving.get(service)
        return None if serving is None else _SERVING if serving else _NOT_SERVING

    def is_serving(self, service: str) -> bool:
        return self._serving.get(service, False)

    def services(self) -> list[str]:
        return sorted(self._serving)

    def enter_graceful_shutdown(self) -> None:
        """Everything is NOT_SERVING from now on, and those who watch are told."""
        self._is_shutting_down = True
        self._serving = dict.fromkeys(self._serving, False)
        self._wake()

    def close(self) -> None:
        """Ends all watches, which would otherwise keep a draining server waiting."""
        self.is_closed = True
        self._wake()

    @contextmanager
    def watch(self) -> Iterator[asyncio.Event]:
        """An event set whenever anything may have changed; the watcher clears it."""
        changed = asyncio.Event()
        self._watchers.add(changed)
        try:
            yield changed
        finally:
            self._watchers.discard(changed)

    def _wake(self) -> None:
        for changed in self._watchers:
            changed.set()


class HealthService:
    """The standard service over a `HealthTable`."""

    def __init__(self, table: HealthTable) -> None:
        self._table = table

    def methods(self) -> Sequence[Method]:
        return (
            Unary("/grpc.health.v1.Health/Check", self.check),
            Unary("/grpc.health.v1.Health/List", self.list),
            Stream("/grpc.health.v1.Health/Watch", self.watch),
        )

    async def check(self, _: Call, data: bytes) -> bytes:
        service = parse(pb.HealthCheckRequest, data).service
        status = self._table.status(service)
        if status is None:
            raise StatusError(Code.NOT_FOUND, f"unknown service '{service}'")
        return pb.HealthCheckResponse(status=status).SerializeToString()

    async def list(self, _: Call, data: bytes) -> bytes:
        parse(pb.HealthListRequest, data)
        statuses = {
            service: pb.HealthCheckResponse(status=self._table.status(service))
            for service in self._table.services()
        }
        return pb.HealthListResponse(statuses=statuses).SerializeToString()

    async def watch(self, _: Call, requests: AsyncIterator[bytes], send: Send) -> None:
        """Sends the status now and after each change; changes in quick succession may merge."""
        async for data in requests:
            service = parse(pb.HealthCheckRequest, data).service
            await self._watch(service, send)
            return

    async def _watch(self, service: str, send: Send) -> None:
        table, sent = self._table, None
        with table.watch() as changed:
            while True:
                status = table.status(service)
                status = _SERVICE_UNKNOWN if status is None else status
                if status != sent:
                    await send(pb.HealthCheckResponse(status=status).SerializeToString())
                    sent = status
                if table.is_closed:
                    return
                await changed.wait()
                changed.clear()
