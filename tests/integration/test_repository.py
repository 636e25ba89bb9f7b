"""Repositories of real ONNX models in a real server: what serves, fails and replaces what."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from server.app import App
from server.errors import LoadFailed, ServeError
from server.overrides import Overrides
from server.repository import Repository
from server.request import InferRequest, InferResponse
from server.settings import ServeSettings
from tests import models

StartServer = Callable[[str], Awaitable[App]]


def scale(factor: float) -> bytes:
    """y = factor * x, row by row."""
    return models.build(
        [helper.make_node("Mul", ["x", "w"], ["y"])],
        [models.tensor("x", "FP32", ["n", 2])],
        [models.tensor("y", "FP32", ["n", 2])],
        {"w": np.array([factor], np.float32)},
    )


def put(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    put(folder / "scale" / "1" / "model.onnx", scale(2))
    return folder


@pytest.fixture
async def start(folder: Path) -> AsyncIterator[StartServer]:
    apps: list[App] = []

    async def start_server(control: str) -> App:
        settings = ServeSettings(grpc_port=0, http_port=0, load_control=control, threads=2)
        app = App(settings, Repository([folder]))
        apps.append(app)
        await app.start()
        return app

    yield start_server
    for app in apps:
        await app.stop()


async def predict(app: App, model: str = "scale", version: int | None = None) -> InferResponse:
    x = np.ones((1, 2), np.float32)
    return await app.inference.predict(InferRequest(model, {"x": x}, version))


async def answer(app: App, version: int | None = None) -> float:
    return float((await predict(app, "scale", version)).outputs["y"][0, 0])


@pytest.mark.parametrize(("control", "is_shown"), [("all", True), ("explicit", False)])
async def test_a_mistyped_model_that_was_to_serve_is_in_the_metrics(
    folder: Path, start: StartServer, control: str, is_shown: bool
) -> None:
    put(folder / "mistyped" / "model.toml", "windw = 3")
    put(folder / "mistyped" / "1" / "model.onnx", scale(1))
    app = await start(control)
    text, _ = await app._metrics.render("text/plain")
    assert (b'inflight_model_ready{model="mistyped",version=""} 0.0' in text) is is_shown


async def test_one_bad_model_never_stops_the_others(folder: Path, start: StartServer) -> None:
    put(folder / "corrupt" / "1" / "model.onnx", b"not ONNX at all")
    put(folder / "unknown" / "1" / "model.onnx", models.unknown_operator())
    put(folder / "mistyped" / "1" / "model.onnx", scale(1))
    put(folder / "mistyped" / "config.pbtxt", "max_batchsize: 3")
    put(folder / "pickled" / "1" / "model.pkl", b"")
    put(folder / "empty" / "README.md", "nothing here")
    app = await start("all")
    assert await answer(app) == 2
    reasons = {status.model: status.reason for status in app.registry.index()}
    assert reasons.pop("scale") == ""
    assert "Frobnicate" in reasons["unknown"]
    assert 'Did you mean "max_batch_size"' in reasons["mistyped"]
    assert "--allow-pickle" in reasons["pickled"]
    assert "no model file" in reasons["empty"]
    assert all(reasons.values()), reasons
    for model in reasons:
        with pytest.raises(ServeError):
            await predict(app, model)


async def test_external_data_lies_beside_its_model(folder: Path, start: StartServer) -> None:
    version = folder / "external" / "1"
    version.mkdir(parents=True)
    path = models.with_external_data(version)
    assert len(list(version.iterdir())) == 2
    app = await start("explicit")
    await app.registry.load("external")
    files = {f"1/{file.name}": file.read_bytes() for file in version.iterdir()}
    await app.registry.load("sent", Overrides("{}", files))
    x = np.ones((1, 64), np.float32)
    request = {name: InferRequest(name, {"x": x}) for name in ("external", "sent")}
    one = await app.inference.predict(request["external"])
    other = await app.inference.predict(request["sent"])
    np.testing.assert_array_equal(one.outputs["y"], other.outputs["y"])
    assert path.exists()


async def test_versions_are_served_side_by_side(folder: Path, start: StartServer) -> None:
    put(folder / "scale" / "3" / "model.onnx", scale(3))
    put(folder / "scale" / "model.toml", 'versions = "all"')
    app = await start("all")
    assert [await answer(app, version) for version in (1, 3, None)] == [2, 3, 3]


async def test_a_reload_under_load_fails_no_request(folder: Path, start: StartServer) -> None:
    app = await start("explicit")
    await app.registry.load("scale")
    is_over = False

    async def client() -> list[float]:
        answers = []
        while not is_over:
            answers.append(await answer(app))
            await asyncio.sleep(0)  # a quick model answers at once: the loop gets its turn, too
        return answers

    clients = [asyncio.create_task(client()) for _ in range(2)]
    for factor in (3, 4):
        put(folder / "scale" / "1" / "model.onnx", scale(factor))
        await app.registry.load("scale")
        assert await answer(app) == factor
    put(folder / "scale" / "1" / "model.onnx", b"broken")
    with pytest.raises(LoadFailed):
        await app.registry.load("scale")
    assert await answer(app) == 4
    is_over = True
    for answers in await asyncio.gather(*clients):
        assert set(answers) <= {2, 3, 4}
        assert answers == sorted(answers)  # never back to what was replaced


async def test_an_override_serves_until_the_next_load(folder: Path, start: StartServer) -> None:
    app = await start("explicit")
    files = {"7/model.onnx": scale(7)}
    await app.registry.load("scale", Overrides('{"max_batch_size": 4}', files))
    response = await predict(app)
    assert (response.version, float(response.outputs["y"][0, 0])) == (7, 7)
    await app.registry.load("scale")
    assert await answer(app) == 2
    assert app.registry.versions("scale") == [1]


async def test_polling_follows_new_changed_and_removed_models(
    folder: Path, start: StartServer
) -> None:
    app = await start("poll")

    async def poll() -> None:
        await app.registry.poll_once()
        await app.registry.poll_once()
        await app.registry.idle()

    put(folder / "scale" / "2" / "model.onnx", scale(4))
    put(folder / "other" / "model.onnx", scale(5))
    await poll()
    assert await answer(app) == 4
    assert app.registry.versions("other") == [1]
    put(folder / "scale" / "2" / "model.onnx", b"half a fi")
    shutil.rmtree(folder / "other")
    await poll()
    assert await answer(app) == 4
    assert [status.model for status in app.registry.index()] == ["scale"]
    assert "serves on" in app.registry.index()[0].reason


async def test_an_operator_reads_in_the_state_why_requests_run_one_by_one(
    folder: Path, start: StartServer
) -> None:
    put(folder / "softmax" / "model.onnx", models.softmax_over_batch())
    app = await start("all")
    (status,) = app.registry.statuses("softmax")
    assert status.notes
    assert status.notes[0].startswith("requests run one by one: ")
