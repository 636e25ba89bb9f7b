"""The whole server in the test's own process, with an optimizer of a few lines that tests steer."""

import json
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp

from client import AsyncClient
from optimizer import device, keys
from optimizer.artifact import Artifact
from optimizer.candidate import Candidate, Outcome, State
from optimizer.data import DataSpec
from optimizer.errors import Cancelled
from optimizer.goal import Goal
from optimizer.progress import Listener, Progress
from optimizer.report import Report
from optimizer.runner import Opener
from optimizer.source import SourceModel
from optimizer.store import ArtifactStore, key_of
from server.app import App
from server.repository import Repository
from server.settings import ServeSettings

CANDIDATE = Candidate("graph level basic", (), "onnxruntime", techniques=("graph",))


@dataclass
class FakeOptimizer:
    """Takes the source at another graph level for the winner, unless told otherwise.

    While `gate` is closed a job waits in it, or until it is cancelled; `entered` is released once
    per job that began.
    """

    finds: bool = True
    failure: Exception | None = None
    remembers: bool = True
    replacement: bytes | None = None  # the winner's file, where it is not the source's
    gate: threading.Event = field(default_factory=threading.Event)
    entered: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    asked: list[tuple[SourceModel, DataSpec | None, Goal]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gate.set()

    def __call__(
        self,
        source: SourceModel,
        data: DataSpec | None,
        goal: Goal,
        *,
        opener: Opener,
        store: ArtifactStore,
        work: Path,
        databases: Mapping[str, str],
        listener: Listener,
        cancelled: threading.Event,
    ) -> Report:
        self.asked.append((source, data, goal))
        outcome = Outcome(CANDIDATE, State.BUILDING)
        listener(Progress("building", 50.0, (outcome,), "building the only candidate"))
        self.entered.release()
        while not self.gate.wait(0.01):
            if cancelled.is_set():
                raise Cancelled("cancelled")
        if self.failure is not None:
            raise self.failure
        seconds = {"build": 2.0}
        listener(
            Progress("done", 100.0, (replace(outcome, state=State.MEASURED, seconds=seconds),))
        )
        if not self.finds:
            return Report("", "rejected", reason="nothing is better")
        artifact = self._make(source, store, work)
        report = Report("", "completed", artifact_id=artifact.artifact_id, reason="it is faster")
        if self.remembers:
            parts = keys.winner_parts(
                source.fingerprint(), device.read(), goal, keys.data_print(data)
            )
            text = json.dumps(report.to_json())
            store.remember_winner(key_of(parts), artifact.artifact_id, text)
        return report

    def _make(self, source: SourceModel, store: ArtifactStore, work: Path) -> Artifact:
        shutil.copyfile(source.path, work / "model.onnx")
        if self.replacement is not None:
            (work / "model.onnx").write_bytes(self.replacement)
        options = {"graph_level": "basic", "providers": ["cpu"]}
        artifact = Artifact(work, "model.onnx", "onnxruntime", "onnx", ("graph",), options)
        return store.put(work, artifact, {"model": source.fingerprint(), "steps": "[]"})


class Running:
    """A server on free ports, with a client of each kind."""

    def __init__(self, app: App, optimizer: FakeOptimizer, client: AsyncClient, url: str) -> None:
        self.app, self.optimizer, self.client, self.url = app, optimizer, client, url
        self.session = aiohttp.ClientSession()

    async def get(self, path: str) -> tuple[int, Any]:
        async with self.session.get(f"{self.url}{path}") as response:
            return response.status, await _content(response)

    async def post(self, path: str, body: object) -> tuple[int, Any]:
        data = body if isinstance(body, str) else json.dumps(body)
        async with self.session.post(f"{self.url}{path}", data=data) as response:
            return response.status, await _content(response)

    async def served_by(self, model: str = "mlp") -> tuple[str, tuple[str, ...]]:
        """The artifact that answers, and what made it."""
        (version,) = (await self.client.model(model)).versions
        return version.artifact_id, tuple(version.techniques)

    async def until_served(self, is_wanted: Callable[[str], bool], model: str = "mlp") -> str:
        """Waits until the artifact that answers is as wanted."""
        async for models in self.client.watch_latency(model, interval_s=0.1):
            del models
            artifact_id, _ = await self.served_by(model)
            if is_wanted(artifact_id):
                return artifact_id
        raise AssertionError("the server stopped")


async def _content(response: aiohttp.ClientResponse) -> Any:
    text = await response.text()
    return json.loads(text) if response.content_type == "application/json" else text


@asynccontextmanager
async def optimizing(
    folder: Path, optimizer: FakeOptimizer | None = None, **settings: Any
) -> AsyncIterator[Running]:
    """Serves `folder`/models with its state in `folder`/state."""
    asked = {"optimize": "off", "threads": 2, **settings}
    options = ServeSettings(
        models=(folder / "models",), grpc_port=0, http_port=0, state_dir=folder / "state", **asked
    )
    optimizer = optimizer or FakeOptimizer()
    app = App(options, Repository(options.models), optimizer)
    addresses = await app.start()
    async with AsyncClient(addresses.grpc, timeout_s=60) as client:
        running = Running(app, optimizer, client, f"http://{addresses.http}")
        try:
            yield running
        finally:
            await running.session.close()
            await app.stop()
