"""The page at `/`: what every model does right now. It only reads, and needs nothing but itself.

The page (`dashboard.html`) asks `/dashboard.json` every two seconds, which others may do too;
what alerts and graphs hold on to is `/metrics`.
"""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, Final, Protocol

from aiohttp import web

from server.errors import InvalidRequest
from server.latency import WINDOWS_S
from server.model_versions import VersionStatus
from server.served import ServedVersion

_PAGE_HEADERS: Final = {
    "Content-Type": "text/html; charset=utf-8",
    # Nothing is loaded from anywhere else, whatever a model is called.
    "Content-Security-Policy": "default-src 'none'; connect-src 'self';"
    " style-src 'unsafe-inline'; script-src 'unsafe-inline'",
}
_DEFAULT_WINDOW_S: Final = 10


class Versions(Protocol):
    """What the page needs of the registry."""

    def index(self) -> list[VersionStatus]: ...
    def served(self) -> list[ServedVersion]: ...


class Dashboard:
    """The page and its data. Event loop only."""

    def __init__(self, registry: Versions, server_version: str) -> None:
        self._registry, self._server_version = registry, server_version
        self._page = files("server.web").joinpath("dashboard.html").read_bytes()

    def routes(self) -> Sequence[web.RouteDef]:
        return [web.get("/", self._show), web.get("/dashboard.json", self._read)]

    async def _show(self, _: web.Request) -> web.Response:
        return web.Response(body=self._page, headers=_PAGE_HEADERS)

    async def _read(self, request: web.Request) -> web.Response:
        window_s = _window_s(request.query.get("window_s", str(_DEFAULT_WINDOW_S)))
        served: dict[tuple[str, int | None], ServedVersion] = {
            (each.model, each.version): each for each in self._registry.served()
        }
        models = [_row(status, served, window_s) for status in self._registry.index()]
        document = {"server_version": self._server_version, "window_s": window_s, "models": models}
        return web.json_response(document, headers={"Cache-Control": "no-store"})


def _window_s(text: str) -> int:
    if text not in map(str, WINDOWS_S):
        expected = ", ".join(map(str, WINDOWS_S))
        raise InvalidRequest(f"window_s: expected one of {expected}, got '{text}'")
    return int(text)


def _row(
    status: VersionStatus, served: Mapping[tuple[str, int | None], ServedVersion], window_s: int
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "model": status.model,
        "version": status.version,
        "state": status.state,
        "reason": status.reason,
    }
    version = served.get((status.model, status.version))
    return row if version is None else row | _live(version, window_s)


def _live(served: ServedVersion, window_s: int) -> dict[str, Any]:
    """The numbers of a version that serves; those of latency only where it was ever used."""
    stats, batches = served.stats, served.stats.execution_count
    row: dict[str, Any] = {
        "answered": stats.success.count,
        "failed": stats.fail.count,
        "waiting": stats.queue_depth,
        "mean_batch_rows": stats.inference_count / batches if batches else None,
        "max_batch": served.batcher.settings.max_batch,
        "window_s": served.batcher.settings.window_s,
        "memory_bytes": served.memory_bytes,
        "unbatched_because": served.profile.reason,
        "artifact_id": served.artifact_id,
    }
    if served.optimized is not None:
        row["techniques"] = served.optimized.artifact.techniques
        row["optimization_id"] = served.optimized.optimization_id
    if stats.success.count:
        total, queue = stats.latency("total", window_s), stats.latency("queue", window_s)
        row["rate"] = total.rate
        if total.count:
            row |= {"p50_s": total.p50_s, "p95_s": total.p95_s, "p99_s": total.p99_s}
            row |= {"max_s": total.max_s, "queue_p99_s": queue.p99_s}
    return row
