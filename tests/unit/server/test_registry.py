import asyncio
import json
import logging
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from server.errors import InvalidRequest, LoadFailed, ModelNotFound, ModelNotReady, ServeError
from server.model_config import ConfigError
from server.model_versions import ModelState
from server.overrides import Overrides
from server.probe import Profile
from server.registry import Registry
from server.repository import Repository
from tests.fakes import FakeOpener, FakeVersion, fake


class Bench:
    """A registry on a folder, with fake versions."""

    def __init__(
        self,
        folder: Path,
        control: str = "explicit",
        load_timeout_s: float = 60.0,
        loads_at_once: int = 2,
    ) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.opener = FakeOpener()
        self.registry = Registry(
            Repository([folder]), self.opener, control, loads_at_once, load_timeout_s
        )

    def put(self, path: str, content: str = "good") -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)

    def resolve(self, model: str = "a", version: int | None = None) -> FakeVersion:
        return fake(self.registry.resolve(model, version))

    def index(self) -> list[tuple[str, int | None, str, str]]:
        return [(s.model, s.version, s.state, s.reason) for s in self.registry.index()]

    async def end(self) -> None:
        """Lets all requests go and closes the registry."""
        self.opener.gate.set()
        for version in self.opener.opened:
            while version.handles:
                version.release()
        await self.registry.close()

    async def poll(self) -> None:
        """Two looks, so that a change counts as at rest, and what follows from them."""
        await self.registry.poll_once()
        await self.registry.poll_once()
        await self.registry.idle()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path / "repository")
    bench.put("a/1/model.onnx")
    yield bench
    await bench.end()


async def until_ended(bench: Bench) -> None:
    """Lets versions that have no handles finish closing."""
    while bench.registry._endings:
        await asyncio.wait(set(bench.registry._endings))


async def test_start_loads_everything_and_one_failure_leaves_the_others(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "all")
    bench.put("bad/1/model.onnx", "corrupt")
    bench.put("good/1/model.onnx")
    bench.put("mistyped/1/model.onnx")
    bench.put("mistyped/model.toml", "windw = 1")
    bench.put("pickle/1/model.pkl")
    await bench.registry.start()
    assert bench.resolve("good").version == 1
    states = {model: (version, state, reason) for model, version, state, reason in bench.index()}
    assert states["good"] == (1, "READY", "")
    assert states["bad"] == (1, "UNAVAILABLE", "the file is corrupt")
    assert states["mistyped"][:2] == (None, "UNAVAILABLE")
    assert "unknown key" in states["mistyped"][2]
    assert states["pickle"][:2] == (1, "UNAVAILABLE")
    assert "--allow-pickle" in states["pickle"][2]
    assert bench.registry.counts() == (1, 3)


@pytest.mark.parametrize("control", ["all", "explicit"])
async def test_a_failure_is_in_the_log_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, control: str
) -> None:
    bench = Bench(tmp_path, control)
    bench.put("bad/1/model.onnx", "corrupt")
    await bench.registry.start()
    if control == "explicit":
        with pytest.raises(LoadFailed):
            await bench.registry.load("bad")
    assert caplog.messages == ["failed to load 'bad': version 1: the file is corrupt"]


async def test_explicit_control_loads_nothing_but_knows_what_is_there(bench: Bench) -> None:
    await bench.registry.start()
    assert bench.index() == [("a", None, "UNAVAILABLE", "not loaded")]
    assert bench.registry.counts() == (0, 0)
    with pytest.raises(ModelNotFound, match="Request for unknown model: 'a' is not found"):
        bench.resolve()


async def test_the_index_follows_what_could_be_loaded(bench: Bench) -> None:
    await bench.registry.start()
    bench.put("b/1/model.onnx")
    await bench.registry.refresh()
    assert [model for model, *_ in bench.index()] == ["a", "b"]
    await bench.registry.load("a")
    await bench.registry.unload("a")
    shutil.rmtree(bench.folder / "a")
    shutil.rmtree(bench.folder / "b")
    await bench.registry.refresh()
    await until_ended(bench)
    assert bench.index() == [("a", 1, "UNAVAILABLE", "unloaded")]
    bench.folder.rename(bench.folder.with_name("away"))
    await bench.registry.refresh()
    assert bench.index() == [("a", 1, "UNAVAILABLE", "unloaded")]


async def test_the_highest_ready_version_answers_where_none_is_named(bench: Bench) -> None:
    bench.put("a/9/model.onnx")
    bench.put("a/10/model.onnx")
    bench.put("a/11/model.onnx", "corrupt")
    bench.put("a/model.toml", 'versions = "all"')
    with pytest.raises(LoadFailed, match="failed to load 'a': version 11: the file is corrupt"):
        await bench.registry.load("a")
    assert bench.resolve().version == 10
    assert bench.resolve("a", 9).version == 9
    assert bench.registry.versions("a") == [1, 9, 10]
    assert [served.version for served in bench.registry.served()] == [1, 9, 10]
    with pytest.raises(ModelNotReady, match=r"'a' version 11 is not at ready state: .*corrupt"):
        bench.resolve("a", 11)
    with pytest.raises(ModelNotFound, match="unknown model: 'a' version 12 is not found"):
        bench.resolve("a", 12)
    with pytest.raises(ModelNotFound, match="unknown model: 'b' is not found"):
        bench.resolve("b")


async def test_a_model_without_ready_version_says_why(bench: Bench) -> None:
    bench.put("a/1/model.onnx", "corrupt")
    with pytest.raises(LoadFailed):
        await bench.registry.load("a")
    expected = r"'a' has no available versions: version 1 UNAVAILABLE \(the file is corrupt\)"
    with pytest.raises(ModelNotReady, match=expected):
        bench.resolve()


async def test_an_unknown_name_is_not_remembered(bench: Bench) -> None:
    with pytest.raises(ModelNotFound, match=r"failed to load 'b', failed to poll from model rep"):
        await bench.registry.load("b")
    assert bench.index() == []
    with pytest.raises(InvalidRequest, match="cannot be a model's name"):
        await bench.registry.load("../a")
    assert await bench.registry.unload("b") is False


@pytest.mark.parametrize("control", ["all", "poll"])
async def test_requests_change_nothing_unless_control_is_explicit(
    tmp_path: Path, control: str
) -> None:
    registry = Bench(tmp_path, control).registry
    allowed = "explicit model load / unload is not allowed if polling is enabled"
    with pytest.raises(ModelNotReady, match=allowed):
        await registry.load("a")
    with pytest.raises(ModelNotReady, match=allowed):
        await registry.unload("a")


async def test_a_reload_replaces_the_version_once_the_new_one_is_open(bench: Bench) -> None:
    await bench.registry.load("a")
    old = bench.resolve()
    old.acquire()
    bench.put("a/1/model.onnx", "better")
    bench.opener.gate.clear()
    load = asyncio.create_task(bench.registry.load("a"))
    await bench.opener.entered.acquire()
    assert bench.resolve() is old
    assert bench.index() == [("a", 1, "READY", "")]
    bench.opener.gate.set()
    await load
    assert bench.resolve().content == b"better"
    assert old.is_retired
    assert not old.is_closed  # a request is still on it
    old.release()
    assert old.is_closed


async def test_a_reload_of_the_same_files_does_nothing(bench: Bench) -> None:
    await bench.registry.load("a")
    before = bench.resolve()
    await bench.registry.load("a")
    assert bench.resolve() is before


async def test_a_failed_reload_leaves_the_old_version_serving_and_says_why(bench: Bench) -> None:
    await bench.registry.load("a")
    old = bench.resolve()
    bench.put("a/1/model.onnx", "corrupt")
    with pytest.raises(LoadFailed, match="the file is corrupt"):
        await bench.registry.load("a")
    assert bench.resolve() is old
    reason = "reload failed, what was loaded before serves on: the file is corrupt"
    assert bench.index() == [("a", 1, "READY", reason)]
    bench.put("a/1/model.onnx", "mended")
    await bench.registry.load("a")
    assert bench.index() == [("a", 1, "READY", "")]


async def test_a_new_version_that_fails_leaves_the_old_one_serving(bench: Bench) -> None:
    await bench.registry.load("a")
    bench.put("a/2/model.onnx", "corrupt")
    with pytest.raises(LoadFailed, match="version 2: the file is corrupt"):
        await bench.registry.load("a")
    assert bench.resolve().version == 1
    assert bench.index() == [
        ("a", 1, "READY", "serves on because version 2 failed to load"),
        ("a", 2, "UNAVAILABLE", "the file is corrupt"),
    ]
    bench.put("a/2/model.onnx", "mended")
    await bench.registry.load("a")
    await until_ended(bench)
    assert bench.index() == [("a", 2, "READY", "")]
    assert bench.opener.open_now == [("a", 2)]


async def test_a_broken_configuration_leaves_the_old_version_serving(bench: Bench) -> None:
    await bench.registry.load("a")
    old = bench.resolve()
    bench.put("a/config.pbtxt", "max_batchsize: 1")
    with pytest.raises(LoadFailed, match='Did you mean "max_batch_size"'):
        await bench.registry.load("a")
    assert bench.resolve() is old
    ((_, _, state, reason),) = bench.index()
    assert state == "READY"
    assert "config.pbtxt, line 1" in reason


async def test_unload_refuses_new_requests_and_waits_for_old_ones(bench: Bench) -> None:
    await bench.registry.load("a")
    served = bench.resolve()
    served.acquire()
    assert await bench.registry.unload("a") is True
    assert bench.index() == [("a", 1, "UNLOADING", "unloaded")]
    with pytest.raises(ModelNotReady, match="has no available versions"):
        bench.resolve()
    assert not served.is_closed
    served.release()
    await until_ended(bench)
    assert bench.index() == [("a", 1, "UNAVAILABLE", "unloaded")]


async def test_a_load_while_the_old_one_still_unloads(bench: Bench) -> None:
    await bench.registry.load("a")
    old = bench.resolve()
    old.acquire()
    await bench.registry.unload("a")
    await bench.registry.load("a")
    assert bench.resolve() is not old
    old.release()
    await until_ended(bench)
    assert bench.index() == [("a", 1, "READY", "")]


async def test_unloading_twice_is_no_error(bench: Bench) -> None:
    await bench.registry.load("a")
    await bench.registry.unload("a")
    assert await bench.registry.unload("a") is True
    await until_ended(bench)
    assert bench.index() == [("a", 1, "UNAVAILABLE", "unloaded")]


async def test_loads_of_one_model_wait_for_each_other(bench: Bench) -> None:
    bench.opener.gate.clear()
    load = asyncio.create_task(bench.registry.load("a"))
    unload = asyncio.create_task(bench.registry.unload("a"))
    again = asyncio.create_task(bench.registry.load("a"))
    await bench.opener.entered.acquire()
    bench.opener.gate.set()
    await asyncio.gather(load, unload, again)
    assert bench.opener.most_at_once == 1
    assert [version.is_retired for version in bench.opener.opened] == [True, False]
    assert bench.resolve() is bench.opener.opened[1]


async def test_models_load_side_by_side_up_to_the_limit(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "all", loads_at_once=3)
    for number in range(10):
        bench.put(f"m{number}/model.onnx")
    bench.opener.gate.clear()
    start = asyncio.create_task(bench.registry.start())
    for _ in range(3):
        await bench.opener.entered.acquire()
    bench.opener.gate.set()
    await start
    assert bench.opener.most_at_once == 3
    assert bench.registry.counts() == (10, 0)


async def test_a_load_that_takes_too_long_fails_and_makes_room(tmp_path: Path) -> None:
    bench = Bench(tmp_path, load_timeout_s=0.0, loads_at_once=1)
    bench.put("a/model.onnx")
    bench.opener.gate.clear()
    for _ in range(2):
        with pytest.raises(LoadFailed, match="not loaded after 0 s, given up"):
            await bench.registry.load("a")
    bench.opener.gate.set()
    for _ in range(2):
        await bench.opener.done.acquire()
    for version in bench.opener.opened:
        await version.closed()
    assert [version.is_closed for version in bench.opener.opened] == [True, True]
    with pytest.raises(ModelNotReady, match="given up"):
        bench.resolve()


async def test_a_caller_that_leaves_does_not_stop_the_load(bench: Bench) -> None:
    bench.opener.gate.clear()
    load = asyncio.create_task(bench.registry.load("a"))
    await bench.opener.entered.acquire()
    load.cancel()
    bench.opener.gate.set()
    await bench.registry.idle()
    assert bench.resolve().version == 1


async def test_an_unexpected_error_is_a_failed_load(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    async def open_version(_: object) -> FakeVersion:
        raise MemoryError("no memory for 3 GiB")

    registry = Registry(Repository([bench.folder]), open_version, "explicit")  # type: ignore[arg-type]
    with pytest.raises(LoadFailed, match="no memory for 3 GiB"):
        await registry.load("a")
    assert "loading failed unexpectedly" in caplog.text


async def test_the_index_shows_how_long_a_load_takes(bench: Bench) -> None:
    bench.opener.gate.clear()
    load = asyncio.create_task(bench.registry.load("a"))
    await bench.opener.entered.acquire()
    assert bench.index() == [("a", 1, "LOADING", "loading for 0 s")]
    with pytest.raises(ModelNotReady, match="LOADING"):
        bench.resolve()
    bench.opener.gate.set()
    await load


async def test_notes_say_what_an_operator_should_know(bench: Bench) -> None:
    bench.put("a/config.pbtxt", "response_cache { enable: true }")
    await bench.registry.load("a")
    (status,) = bench.registry.index()
    note = "response_cache.enable has no effect: there is no response cache"
    assert status.notes == (note,)
    fallen = "runs on cpu, since cuda: no driver"
    bench.resolve().profile = Profile(batchable=True, fallback=fallen)
    assert bench.registry.index()[0].notes == (fallen, note)
    (status,) = bench.registry.index()
    assert bench.registry.statuses("a") == [status]
    assert bench.registry.statuses("b") == []


CONFIG = json.dumps({"max_batch_size": 7})


async def test_a_configuration_in_the_call_counts_until_the_next_load(bench: Bench) -> None:
    await bench.registry.load("a")
    await bench.registry.load("a", Overrides(CONFIG))
    assert bench.resolve().config.max_batch_size == 7
    await bench.registry.load("a")
    assert bench.resolve().config.max_batch_size is None


async def test_files_in_the_call_stand_for_the_folder_until_the_next_load(bench: Bench) -> None:
    overrides = Overrides(CONFIG, {"5/model.onnx": b"from the call"})
    await bench.registry.load("a", overrides)
    sent = bench.resolve()
    assert (sent.version, sent.content) == (5, b"from the call")
    assert bench.registry.versions("a") == [5]
    folder = bench.registry._models["a"]._versions[5].origin.file.path.parents[2]  # type: ignore
    assert folder.is_dir()
    await bench.registry.load("a")
    await until_ended(bench)
    assert bench.resolve().version == 1
    assert not folder.exists()


async def test_files_in_the_call_may_be_a_new_model(bench: Bench) -> None:
    await bench.registry.load("new", Overrides("{}", {"1/model.onnx": b"x"}))
    assert bench.resolve("new").content == b"x"


@pytest.mark.parametrize(
    "name", ["model.pt2", "a.keras", "net/saved_model.pb", "model.onnx/model.pkl"]
)
async def test_files_of_a_call_that_can_run_code_are_refused(bench: Bench, name: str) -> None:
    with pytest.raises(LoadFailed, match=rf"1/{name}: such a file can run any code"):
        await bench.registry.load("new", Overrides("{}", {f"1/{name}": b"x"}))
    assert bench.registry.versions("new") == []


async def test_files_in_a_call_that_fails_leave_everything_as_it_was(bench: Bench) -> None:
    await bench.registry.load("a")
    with pytest.raises(LoadFailed, match="corrupt"):
        await bench.registry.load("a", Overrides("{}", {"1/model.onnx": b"corrupt"}))
    await until_ended(bench)
    assert bench.resolve().content == b"good"


@pytest.mark.parametrize(
    ("overrides", "error"),
    [
        (Overrides(None, {"1/model.onnx": b""}), InvalidRequest),
        (Overrides("{"), ConfigError),
        (Overrides('{"max_batchsize": 1}', {"1/model.onnx": b""}), ConfigError),
    ],
)
async def test_overrides_that_make_no_sense_are_refused(
    bench: Bench, overrides: Overrides, error: type[ServeError]
) -> None:
    with pytest.raises(error):
        await bench.registry.load("a", overrides)
    await until_ended(bench)
    assert bench.index() == []


async def test_subscribers_hear_of_new_models_and_of_changes(bench: Bench) -> None:
    heard: list[tuple[str, bool]] = []
    bench.registry.subscribe(lambda model, is_ready: heard.append((model, is_ready)))
    await bench.registry.load("a")
    served = bench.resolve()
    assert bench.registry.is_ready("a")
    assert bench.registry.is_ready("a", 1)
    served.problem = "instance 0 hangs"
    served.on_health()
    assert not bench.registry.is_ready("a")
    assert bench.index() == [("a", 1, "READY", "instance 0 hangs")]
    served.problem = ""
    served.on_health()
    await bench.registry.unload("a")
    assert heard == [("a", False), ("a", True), ("a", False), ("a", True), ("a", False)]
    assert not bench.registry.is_ready("a")
    assert not bench.registry.is_ready("b")


async def test_a_version_that_was_replaced_has_no_say_in_health(bench: Bench) -> None:
    await bench.registry.load("a")
    old = bench.resolve()
    old.acquire()
    bench.put("a/1/model.onnx", "better")
    await bench.registry.load("a")
    old.problem = "instance 0 hangs"
    old.on_health()
    assert bench.registry.is_ready("a")
    old.release()


async def test_polling_follows_the_repository(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "poll")
    bench.put("a/1/model.onnx")
    await bench.registry.start()
    bench.put("a/2/model.onnx")
    bench.put("b/1/model.onnx")
    await bench.poll()
    assert bench.registry.versions("a") == [2]
    assert bench.registry.versions("b") == [1]
    (tmp_path / "b" / "1" / "model.onnx").unlink()
    (tmp_path / "b" / "1").rmdir()
    (tmp_path / "b").rmdir()
    await bench.poll()
    await until_ended(bench)
    with pytest.raises(ModelNotFound, match="'b' is not found"):
        bench.resolve("b")
    assert bench.index() == [("a", 2, "READY", "")]
    assert bench.opener.open_now == [("a", 2)]


async def test_a_copy_that_is_still_running_is_left_alone(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "poll")
    await bench.registry.start()
    for content in ("h", "ha", "half", "half a"):
        bench.put("a/1/model.onnx", content)
        await bench.registry.poll_once()
    await bench.registry.idle()
    assert bench.index() == []
    await bench.registry.poll_once()
    await bench.registry.idle()
    assert bench.resolve().content == b"half a"


async def test_a_broken_file_is_tried_once_until_it_changes(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "poll")
    bench.put("a/1/model.onnx", "corrupt")
    await bench.registry.start()
    await bench.poll()
    assert bench.index() == [("a", 1, "UNAVAILABLE", "the file is corrupt")]
    assert bench.opener.opened == []
    bench.put("a/1/model.onnx", "mended")
    await bench.poll()
    assert bench.resolve().content == b"mended"


async def test_a_slow_load_does_not_keep_other_changes_waiting(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "poll")
    await bench.registry.start()
    bench.opener.gate.clear()
    bench.put("slow/model.onnx")
    await bench.registry.poll_once()
    await bench.registry.poll_once()
    bench.put("quick/model.onnx")
    await bench.registry.poll_once()
    await bench.registry.poll_once()
    await bench.opener.entered.acquire()
    await bench.opener.entered.acquire()
    bench.opener.gate.set()
    await bench.registry.idle()
    assert bench.registry.counts() == (2, 0)


async def test_a_repository_that_cannot_be_read_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "repository"
    folder.mkdir()
    bench = Bench(folder, "poll")
    bench.put("a/model.onnx")
    await bench.registry.start()
    folder.rename(tmp_path / "away")
    await bench.poll()
    assert bench.resolve().version == 1
    assert "all models stay as they are" in caplog.text
    (tmp_path / "away").rename(folder)
    await bench.poll()
    assert bench.resolve().version == 1


async def test_close_waits_for_the_last_request(bench: Bench) -> None:
    await bench.registry.load("a")
    served = bench.resolve()
    served.acquire()
    close = asyncio.create_task(bench.registry.close())
    await served.retired.wait()
    assert not close.done()
    served.release()
    await close
    assert served.is_closed


async def test_close_ends_loads_under_way(bench: Bench) -> None:
    bench.opener.gate.clear()
    load = asyncio.create_task(bench.registry.load("a"))
    await bench.opener.entered.acquire()
    await bench.registry.close()
    with pytest.raises(asyncio.CancelledError):
        await load
    assert bench.opener.open_now == []


async def test_many_models_load_in_one_pass(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    bench = Bench(tmp_path, "all")
    for number in range(500):
        bench.put(f"m{number}/model.onnx")
    await bench.registry.start()
    assert bench.registry.counts() == (500, 0)
    states = {state for _, _, state, _ in bench.index()}
    assert states == {ModelState.READY}
    await bench.registry.close()
    assert bench.opener.open_now == []


async def test_two_unloads_each_wait_for_their_own_requests(bench: Bench) -> None:
    held = []
    for _ in range(2):
        await bench.registry.load("a")
        held.append(bench.resolve())
        held[-1].acquire()
        await bench.registry.unload("a")
    held[0].release()
    await asyncio.sleep(0)
    assert bench.index() == [("a", 1, "UNLOADING", "unloaded")]
    held[1].release()
    await until_ended(bench)
    assert bench.index() == [("a", 1, "UNAVAILABLE", "unloaded")]
