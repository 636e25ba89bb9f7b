"""A thousand clients for minutes: no wrong answer, no lost request, no growth.

Mixed load (see `soak_clients.py`) while models are reloaded with new weights, and at the end a
SIGTERM under full load. Exit code 0 only if every accepted request was answered rightly or ended
in what its client asked for, the server's memory did not grow by more than 5 % after it settled,
and it ended with exit code 0.
"""

import argparse
import asyncio
import json
import resource
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from client import AsyncClient, InferenceError
from loadtests import models
from loadtests.server_process import ServerProcess, serving
from loadtests.soak_clients import SoakClient, Tally, examples

MAX_GROWTH = 0.05
SETTLED_S = 60.0  # memory is compared with what it was then
_SAMPLE_S = 1.0
_RELOAD_S = 2.0
_RAMP_S = 5.0  # over which the clients arrive

VARIANTS: dict[str, list[bytes]] = {
    "tiny": [models.tiny(), models.tiny(seed=1)],
    "mlp": [models.mlp(), models.mlp(seed=1)],
    "embedding": [models.embedding(), models.embedding(seed=1)],
}


@dataclass(slots=True)
class Repository:
    """Models whose versions alternate between two sets of weights: version v has variant v % 2."""

    folder: Path
    versions: dict[str, int] = field(default_factory=dict)

    def advance(self, model: str) -> None:
        """Adds the next version of a model and removes the one before the current."""
        version = self.versions.get(model, 0) + 1
        target = self.folder / model / str(version)
        target.mkdir(parents=True)
        variants = VARIANTS[model]
        (target / "model.onnx").write_bytes(variants[version % len(variants)])
        shutil.rmtree(self.folder / model / str(version - 2), ignore_errors=True)
        self.versions[model] = version


class Soak:
    """One soak against one running server."""

    def __init__(self, server: ServerProcess, repository: Repository, clients: int) -> None:
        self._server, self._repository, self._clients = server, repository, clients
        self._tally = Tally()
        self._samples: list[tuple[float, int]] = []  # (seconds since the start, bytes)
        self._reloads = 0
        self._began = time.monotonic()

    async def run(self, seconds: float) -> dict[str, Any]:
        given, end = examples(VARIANTS), self._began + seconds
        clients = [
            asyncio.create_task(self._client(number, given)) for number in range(self._clients)
        ]
        watchers = [asyncio.create_task(self._watch()), asyncio.create_task(self._reload())]
        done, _ = await asyncio.wait([*clients, *watchers], timeout=end - time.monotonic(),
                                     return_when=asyncio.FIRST_EXCEPTION)  # fmt: skip
        for task in watchers:
            task.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
        for task in done:
            task.result()  # a client or watcher that failed ends the soak with its traceback
        self._tally.is_stopping = True
        self._server.tell_to_stop()
        await asyncio.gather(*clients)
        return self._report(seconds)

    async def _client(self, number: int, given: Any) -> None:
        await asyncio.sleep(_RAMP_S * number / self._clients)
        await SoakClient(self._server.grpc, number, given, self._tally).run(lambda: False)

    async def _watch(self) -> None:
        while True:
            sample = time.monotonic() - self._began, self._server.memory_bytes()
            self._samples.append(sample)
            await asyncio.sleep(_SAMPLE_S)

    async def _reload(self) -> None:
        """A new version of one model after the other, for as long as the soak lasts."""
        async with AsyncClient(self._server.grpc) as client:
            while True:
                for model in VARIANTS:
                    await asyncio.sleep(_RELOAD_S)
                    self._repository.advance(model)
                    try:
                        await client.load(model)
                        self._reloads += 1
                    except InferenceError as error:
                        self._tally.findings[f"reload of {model}: {error}"[:200]] += 1

    def _report(self, seconds: float) -> dict[str, Any]:
        settled = [size for at, size in self._samples if at >= SETTLED_S]
        tenth = max(1, len(settled) // 10)
        growth = median(settled[-tenth:]) / median(settled[:tenth]) - 1 if settled else None
        # Too few samples after settling say nothing about growth.
        if growth is not None and seconds >= 2 * SETTLED_S and growth > MAX_GROWTH:
            self._tally.findings[f"memory grew by {growth:.1%} after {SETTLED_S:.0f} s"] += 1
        return {
            "seconds": seconds,
            "clients": self._clients,
            "turns": self._tally.turns,
            "outcomes": dict(sorted(self._tally.outcomes.items())),
            "findings": dict(self._tally.findings),
            "reloads": self._reloads,
            "memory_mb": [
                size >> 20 for _, size in self._samples[:: max(1, len(self._samples) // 20)]
            ],
            "memory_growth_after_settling": growth,
        }


def run(clients: int, seconds: float) -> dict[str, Any]:
    """Serves, soaks, stops; the report's `findings` are empty when all was well."""
    _allow_connections(clients)
    with tempfile.TemporaryDirectory(prefix="inflight-soak-") as folder:
        repository = Repository(Path(folder))
        for model in VARIANTS:
            repository.advance(model)
        with serving(repository.folder, "--load-control", "explicit") as server:
            return asyncio.run(_load_and_soak(server, repository, clients, seconds))


async def _load_and_soak(
    server: ServerProcess, repository: Repository, clients: int, seconds: float
) -> dict[str, Any]:
    async with AsyncClient(server.grpc) as client:
        for model in VARIANTS:
            await client.load(model)
    return await Soak(server, repository, clients).run(seconds)


def _allow_connections(clients: int) -> None:
    """Raises this process's limit of open files, which the server inherits."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * clients + 1024
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def main() -> int:
    parser = argparse.ArgumentParser(description="A thousand clients for minutes.")
    parser.add_argument("--minutes", type=float, default=10, help="default: 10")
    parser.add_argument("--clients", type=int, default=1000, help="default: 1000")
    arguments = parser.parse_args()
    report = run(arguments.clients, arguments.minutes * 60)
    print(json.dumps(report, indent=2))
    return 1 if report["findings"] else 0


if __name__ == "__main__":
    sys.exit(main())
