"""Whatever is loaded, unloaded, changed and broken in whatever order, nothing gets stuck.

The sequences are random; a model of twenty lines says what must serve after each.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.artifact import Artifact
from server.errors import LoadFailed, ModelNotFound, WrongState
from server.model_config import Optimized
from server.model_versions import ModelState
from server.registry import Registry
from server.repository import Repository
from tests.fakes import FakeOpener, FakeVersion, fake

MODELS = ("a", "b")
ACTIONS = (
    "write",
    "remove",
    "config",
    "load",
    "unload",
    "exchange",
    "hold",
    "release",
    "block",
    "step",
    "wait",
)
Step = tuple[str, str, int, str]

steps = st.lists(
    st.tuples(
        st.sampled_from(ACTIONS),
        st.sampled_from(MODELS),
        st.integers(1, 3),
        st.sampled_from(["good", "better", "corrupt"]),
    ),
    max_size=30,
)


@contextmanager
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="inflight-test-"))
    (path / "models").mkdir()
    try:
        yield path / "models"
    finally:
        shutil.rmtree(path)


@dataclass
class World:
    """A registry on a folder, and the handles that requests hold."""

    folder: Path
    opener: FakeOpener = field(default_factory=FakeOpener)
    held: list[FakeVersion] = field(default_factory=list)

    def write(self, model: str, version: int, content: str) -> None:
        path = self.folder / model / str(version) / "model.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    def remove(self, model: str, version: int) -> None:
        shutil.rmtree(self.folder / model / str(version), ignore_errors=True)

    def configure(self, model: str, content: str) -> None:
        texts = {"good": 'versions = "all"', "better": "versions = 1", "corrupt": "nonsense = 1"}
        (self.folder / model).mkdir(exist_ok=True)
        (self.folder / model / "model.toml").write_text(texts[content])

    def change(self, step: Step) -> None:
        action, model, version, content = step
        if action == "write":
            self.write(model, version, content)
        elif action == "remove":
            self.remove(model, version)
        elif action == "config":
            self.configure(model, content)

    def optimized(self, content: str) -> Optimized | None:
        """An artifact; None, the version's own file, for "good"."""
        if content == "good":
            return None
        folder = self.folder.parent / "store" / content
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.onnx").write_text(content)
        return Optimized(Artifact(folder, "model.onnx", "onnxruntime", content), "opt-1")

    async def exchange(self, registry: Registry, step: Step) -> None:
        _, model, version, content = step
        origin = registry.origin(model, version)
        if origin is not None:
            await registry.exchange(model, version, origin, self.optimized(content))

    def hold(self, registry: Registry, model: str) -> None:
        served = registry._serving.get(model, {}).get(None)
        if served is not None:
            served.acquire()
            self.held.append(fake(served))

    def release(self) -> None:
        if self.held:
            self.held.pop(0).release()


def check(registry: Registry, opener: FakeOpener) -> None:
    """What is true at every moment between two steps."""
    for status in registry.index():
        serves = status.version in registry.versions(status.model)
        assert serves == (status.state is ModelState.READY), status
        assert status.state is ModelState.READY or status.reason, status
    for served in registry.served():
        assert not fake(served).is_retired
        assert registry.resolve(served.model, served.version) is served
    for version in opener.opened:
        if version.is_closed:
            assert version.handles == 0


async def finish(registry: Registry, world: World) -> None:
    """After everything: no load is stuck, nothing that was opened stays open."""
    async with asyncio.timeout(10):
        await registry.idle()
        check(registry, world.opener)
        for model in MODELS:
            world.configure(model, "good")
            for version in (1, 2, 3):
                world.remove(model, version)
            world.write(model, 1, "mended")
    while world.held:
        world.release()


async def run_by_request(sequence: list[Step]) -> None:
    with folder() as path:
        world = World(path)
        registry = Registry(Repository([path]), world.opener, "explicit")
        await registry.start()
        calls: list[asyncio.Task[object]] = []
        for step in sequence:
            action, model, _, _ = step
            world.change(step)
            if action == "load":
                calls.append(asyncio.create_task(registry.load(model)))
            elif action == "unload":
                calls.append(asyncio.create_task(registry.unload(model)))
            elif action == "exchange":
                calls.append(asyncio.create_task(world.exchange(registry, step)))
            elif action == "hold":
                world.hold(registry, model)
            elif action == "release":
                world.release()
            elif action == "block":
                world.opener.gate.clear()
            elif action == "step":
                await asyncio.to_thread(world.opener.gate.is_set)  # loads get on meanwhile
            elif action == "wait":
                world.opener.gate.set()
                await asyncio.gather(*calls, return_exceptions=True)
                before = set(registry.versions(model))
                await expect_failed_load_to_change_nothing(registry, world, model, before)
            check(registry, world.opener)
        world.opener.gate.set()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert all(
            outcome is None or isinstance(outcome, bool | LoadFailed | ModelNotFound | WrongState)
            for outcome in outcomes
        )
        await finish(registry, world)
        for model in MODELS:
            await registry.load(model)
            assert fake(registry.resolve(model, None)).content == b"mended"
        await registry.close()
        assert world.opener.open_now == []


async def expect_failed_load_to_change_nothing(
    registry: Registry, world: World, model: str, before: set[int]
) -> None:
    try:
        await registry.load(model)
    except (LoadFailed, ModelNotFound):
        # Some versions may have opened; none that served was lost.
        assert before <= set(registry.versions(model))
    else:
        assert registry.versions(model)


async def run_by_polling(sequence: list[Step]) -> None:
    with folder() as path:
        world = World(path)
        registry = Registry(Repository([path]), world.opener, "poll")
        await registry.start()
        exchanges: list[asyncio.Task[None]] = []
        for step in sequence:
            action, model, _, _ = step
            world.change(step)
            if action in ("load", "unload"):
                await registry.poll_once()
            elif action == "exchange":
                exchanges.append(asyncio.create_task(world.exchange(registry, step)))
            elif action == "hold":
                world.hold(registry, model)
            elif action == "release":
                world.release()
            elif action == "block":
                world.opener.gate.clear()
            elif action == "wait":
                world.opener.gate.set()
                await registry.idle()
            check(registry, world.opener)
        world.opener.gate.set()
        await finish(registry, world)
        for _ in range(2):
            await registry.poll_once()
        await registry.idle()
        for model in MODELS:
            assert fake(registry.resolve(model, None)).content == b"mended"
        outcomes = await asyncio.gather(*exchanges, return_exceptions=True)
        assert all(isinstance(o, LoadFailed | WrongState | None) for o in outcomes)
        await registry.close()
        assert world.opener.open_now == []


@settings(max_examples=60, deadline=None)
@given(steps)
def test_no_sequence_of_requests_gets_stuck(sequence: list[Step]) -> None:
    asyncio.run(run_by_request(sequence))


@settings(max_examples=40, deadline=None)
@given(steps)
def test_no_sequence_of_changes_gets_stuck_while_polling(sequence: list[Step]) -> None:
    asyncio.run(run_by_polling(sequence))
