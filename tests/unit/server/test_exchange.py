"""Another form of a version takes its place: by the registry, with fake versions."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from optimizer.artifact import Artifact
from server.errors import LoadFailed, WrongState
from server.load_plan import Origin
from server.model_config import Optimized
from server.model_versions import ModelState
from server.overrides import Overrides
from server.registry import Registry
from server.repository import Repository
from tests.fakes import FakeOpener, FakeVersion, fake


class Bench:
    """A registry with one model, "a", that serves version 1."""

    def __init__(self, folder: Path, control: str = "explicit") -> None:
        self.folder = folder
        self.opener = FakeOpener()
        self.put("models/a/1/model.onnx", "original")
        self.registry = Registry(Repository([folder / "models"]), self.opener, control)
        self.loaded: list[tuple[str, int]] = []
        self.registry.follow(lambda model, version: self.loaded.append((model, version)))

    def put(self, path: str, content: str) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)

    def optimized(self, content: str = "fast") -> Optimized:
        self.put(f"store/{content}/model.onnx", content)
        folder = self.folder / "store" / content
        techniques = ("graph", "int8_static")
        return Optimized(
            Artifact(folder, "model.onnx", "onnxruntime", f"{content}-1", techniques), "opt-7"
        )

    @property
    def serving(self) -> FakeVersion:
        return fake(self.registry.resolve("a", None))

    @property
    def origin(self) -> Origin:
        origin = self.registry.origin("a", 1)
        assert origin is not None
        return origin

    async def exchange(self, optimized: Optimized | None) -> None:
        await self.registry.exchange("a", 1, self.origin, optimized)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    await bench.registry.start()
    await bench.registry.load("a")
    yield bench
    bench.opener.gate.set()
    for version in bench.opener.opened:
        while version.handles:
            version.release()
    await bench.registry.close()
    assert bench.opener.open_now == []


async def test_an_artifact_takes_the_place_and_the_file_is_put_back(bench: Bench) -> None:
    original = bench.serving
    original.acquire()
    await bench.exchange(bench.optimized())
    assert bench.serving.content == b"fast"
    assert bench.serving.succeeded is original
    assert original.is_retired
    assert not original.is_closed  # a request is still under way on it
    original.release()
    await original.closed()
    await bench.exchange(None)
    assert bench.serving.content == b"original"
    assert bench.serving is not original


async def test_the_index_says_what_serves(bench: Bench) -> None:
    await bench.exchange(bench.optimized())
    (status,) = bench.registry.index()
    assert status.state is ModelState.READY
    assert status.notes == ("optimized by opt-7: graph, int8_static",)
    await bench.exchange(None)
    assert bench.registry.index()[0].notes == ()


async def test_what_serves_goes_on_while_the_other_opens(bench: Bench) -> None:
    bench.opener.gate.clear()
    exchange = asyncio.ensure_future(bench.exchange(bench.optimized()))
    await bench.opener.entered.acquire()  # the load
    await bench.opener.entered.acquire()
    assert bench.serving.content == b"original"
    assert bench.registry.index()[0].state is ModelState.READY
    bench.opener.gate.set()
    await exchange
    assert bench.serving.content == b"fast"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("corrupt", "the file is corrupt"),
        ("wider", r'cannot stand in: input "x": expected FP32\[-1, 2\], got FP32\[-1, 3\]'),
    ],
)
async def test_what_cannot_serve_changes_nothing(bench: Bench, content: str, reason: str) -> None:
    original = bench.serving
    with pytest.raises(LoadFailed, match=reason):
        await bench.exchange(bench.optimized(content))
    assert bench.serving is original
    assert not original.is_retired
    assert bench.opener.open_now == [("a", 1)]
    assert bench.registry.index()[0].reason == ""


async def test_nothing_is_exchanged_in_a_version_that_was_reloaded_meanwhile(bench: Bench) -> None:
    optimized, origin = bench.optimized(), bench.origin
    bench.put("models/a/1/model.onnx", "original, mended")
    await bench.registry.load("a")
    with pytest.raises(WrongState, match="model 'a' version 1 has been changed or unloaded since"):
        await bench.registry.exchange("a", 1, origin, optimized)
    assert bench.serving.content == b"original, mended"


async def test_an_unloaded_version_is_not_brought_back(bench: Bench) -> None:
    optimized, origin = bench.optimized(), bench.origin
    await bench.registry.unload("a")
    for model in ("a", "b"):
        with pytest.raises(WrongState, match="has been changed or unloaded since"):
            await bench.registry.exchange(model, 1, origin, optimized)
    assert [status.model for status in bench.registry.index()] == ["a"]


async def test_an_exchange_waits_for_a_load_under_way_and_finds_it_changed(bench: Bench) -> None:
    optimized, origin = bench.optimized(), bench.origin
    bench.put("models/a/1/model.onnx", "newer")
    bench.opener.gate.clear()
    load = asyncio.ensure_future(bench.registry.load("a"))
    await bench.opener.entered.acquire()
    await bench.opener.entered.acquire()
    exchange = asyncio.ensure_future(bench.registry.exchange("a", 1, origin, optimized))
    bench.opener.gate.set()
    await load
    with pytest.raises(WrongState):
        await exchange
    assert bench.serving.content == b"newer"


async def test_a_file_that_changed_on_disk_is_not_taken_for_the_original(bench: Bench) -> None:
    await bench.exchange(bench.optimized())
    bench.put("models/a/1/model.onnx", "something else")
    with pytest.raises(WrongState, match="are not the ones it was loaded from any more"):
        await bench.exchange(None)
    assert bench.serving.content == b"fast"


async def test_followers_hear_of_loads_and_not_of_exchanges(bench: Bench) -> None:
    assert bench.loaded == [("a", 1)]
    await bench.exchange(bench.optimized())
    await bench.exchange(None)
    assert bench.loaded == [("a", 1)]
    bench.put("models/a/1/model.onnx", "newer")
    await bench.registry.load("a")
    assert bench.loaded == [("a", 1)] * 2


async def test_files_of_a_load_call_stay_while_an_artifact_serves_for_them(bench: Bench) -> None:
    overrides = Overrides('{"backend": "onnxruntime"}', {"1/model.onnx": b"sent"})
    await bench.registry.load("a", overrides)
    sent = bench.origin.file.path
    await bench.exchange(bench.optimized())
    await bench.exchange(None)
    assert bench.serving.content == b"sent"
    await bench.registry.unload("a")
    while bench.registry._endings:
        await asyncio.wait(set(bench.registry._endings))
    assert not sent.exists()


async def test_closing_ends_an_exchange_under_way(bench: Bench) -> None:
    bench.opener.gate.clear()
    exchange = asyncio.ensure_future(bench.exchange(bench.optimized()))
    await bench.opener.entered.acquire()
    await bench.opener.entered.acquire()
    await bench.registry.close()
    with pytest.raises(asyncio.CancelledError):
        await exchange
    assert bench.opener.open_now == []
