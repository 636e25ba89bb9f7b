"""Models on a CUDA device, through the real loader and server: placement, answers, memory.

`make test-gpu` runs them. Where this onnxruntime has no CUDA or there is no NVIDIA device they are
skipped; where both are there and CUDA does not start they fail, and the model's state says why.
"""

import asyncio
import ctypes
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from loadtests.models import VOCABULARY, minilm
from protos.tensors import DTYPES, Array
from server.app import App
from server.backends import providers
from server.errors import BackendError, LoadFailed
from server.repository import Repository
from server.request import InferRequest
from server.served import ServedVersion
from server.settings import ServeSettings
from tests import models


def _reason_to_skip() -> str:
    if providers.NAMES["cuda"] not in onnxruntime.get_available_providers():
        return "this onnxruntime is built without CUDA: install onnxruntime-gpu"
    return "" if providers.has_gpu() else "there is no NVIDIA device here"


pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(bool(_reason_to_skip()), reason=_reason_to_skip() or "none"),
]

ON_GPU = ("cuda:0",)
# Largest difference to the CPU, relative to the output's range. CUDA multiplies FP32 in TF32, which
# keeps 10 of 23 bits; the 16 bit types keep 10 (FP16) and 7 (BF16).
TOLERANCE = {"FP32": 1e-2, "FP16": 1e-2, "BF16": 2e-2}
MIB = 2**20

Files = Mapping[str, bytes | str]
Serve = Callable[..., Awaitable[App]]


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """Starts the server with a repository of these files."""
    apps: list[App] = []

    async def start(files: Files, control: str = "all") -> App:
        for name, content in files.items():
            path = tmp_path / "models" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        settings = ServeSettings(grpc_port=0, http_port=0, load_control=control, threads=2)
        app = App(settings, Repository([tmp_path / "models"]))
        apps.append(app)
        await app.start()
        return app

    yield start
    for app in apps:
        await app.stop()


def served(app: App, model: str = "m") -> ServedVersion:
    (status,) = app.registry.statuses(model)
    assert status.reason == "", status
    return app.registry.resolve(model, None)


async def predict(app: App, inputs: Mapping[str, Array], model: str = "m") -> dict[str, Array]:
    return (await app.inference.predict(InferRequest(model, dict(inputs)))).outputs


def on_cpu(content: bytes, inputs: Mapping[str, Array]) -> dict[str, Array]:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def assert_close(actual: Array, expected: Array, tolerance: float) -> None:
    assert actual.shape == expected.shape
    wanted = expected.astype(np.float64)
    gap = np.abs(actual.astype(np.float64) - wanted).max() / np.abs(wanted).max()
    assert gap <= tolerance, f"differs by {gap:.2g} of the output's range"


def _images(rows: int) -> Mapping[str, Array]:
    return {"image": np.random.default_rng(rows).random((rows, 3, 40, 48), np.float32)}


def _sentences(rows: int) -> Mapping[str, Array]:
    ids = np.random.default_rng(rows).integers(0, VOCABULARY, (rows, 24))
    mask = np.ones_like(ids)
    mask[:, 20:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def _features(rows: int) -> Mapping[str, Array]:
    return {"x": np.random.default_rng(rows).standard_normal((rows, 16)).astype(np.float32)}


ANSWERS = {
    "mlp": (models.mlp(), _features),
    "minilm": (minilm(layers=2), _sentences),
    "convolution": (models.convolution(), _images),
}


@pytest.mark.parametrize(("content", "make"), ANSWERS.values(), ids=ANSWERS)
async def test_a_gpu_is_used_where_nothing_is_said_and_answers_as_the_cpu(
    serve: Serve, content: bytes, make: Callable[[int], Mapping[str, Array]]
) -> None:
    app = await serve({"m/1/model.onnx": content})
    version = served(app)
    assert version.loaded.narrow.devices == ON_GPU
    assert app.registry.statuses("m")[0].notes == ()
    assert (version.profile.batchable, version.profile.reason) == (True, "")
    assert (version.loaded.instances, version.loaded.wide) == (2, None)
    for rows in (1, 3, 8):
        expected = on_cpu(content, make(rows))
        answer = await predict(app, make(rows))
        for name, array in expected.items():
            assert_close(answer[name], array, TOLERANCE["FP32"])


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
async def test_16_bit_models_answer_as_exact_arithmetic(serve: Serve, datatype: str) -> None:
    features, classes = 64, 8
    app = await serve({"m/1/model.onnx": models.product(datatype, features, classes)})
    assert served(app).loaded.narrow.devices == ON_GPU
    assert served(app).profile.batchable
    unit = np.eye(features, dtype=np.float32).astype(DTYPES[datatype])
    weights = (await predict(app, {"x": unit}))["y"].astype(np.float64)
    x = np.random.default_rng(0).standard_normal((5, features)).astype(DTYPES[datatype])
    answer = (await predict(app, {"x": x}))["y"]
    assert answer.dtype == DTYPES[datatype]
    assert_close(answer, x.astype(np.float64) @ weights, TOLERANCE[datatype])


async def test_requests_share_a_batch_and_each_gets_its_own_rows(serve: Serve) -> None:
    content = models.mlp()
    window = "[batching]\nwindow_ms = 50\nmax_batch = 16"
    app = await serve({"m/1/model.onnx": content, "m/model.toml": window})
    requests = [_features(rows) for rows in (1, 2, 3, 4, 1, 2)]
    answers = await asyncio.gather(*(predict(app, inputs) for inputs in requests))
    for inputs, answer in zip(requests, answers, strict=True):
        assert_close(answer["y"], on_cpu(content, inputs)["y"], TOLERANCE["FP32"])
    stats = served(app).stats
    assert (stats.inference_count, stats.execution_count) == (13, 1)


async def test_a_request_that_fails_fails_alone(serve: Serve) -> None:
    window = "[batching]\nwindow_ms = 50\nmax_batch = 8"
    app = await serve({"m/1/model.onnx": models.refusing(), "m/model.toml": window})
    assert served(app).loaded.narrow.devices == ON_GPU

    def request(index: int) -> Mapping[str, Array]:
        flag = np.array([100 if index == 5 else 0])
        return {"x": np.full((1, 4), index, np.float32), "flag": flag}

    answers = await asyncio.gather(
        *(predict(app, request(index)) for index in range(8)), return_exceptions=True
    )
    for index, answer in enumerate(answers):
        if index == 5:
            assert isinstance(answer, BackendError)
            assert "hostname" not in str(answer)
        else:
            assert isinstance(answer, dict)
            assert answer["y"].tolist() == [[index] * 4]


async def test_threads_that_run_at_once_get_their_own_answers(serve: Serve) -> None:
    app = await serve({"m/1/model.onnx": models.identity()})
    backend = served(app).loaded.narrow
    wrong: list[int] = []

    def work(value: int) -> None:
        array = np.full((3, 4), value, np.float32)
        for _ in range(200):
            if not np.array_equal(backend.run({"x": array}, ["y"])[0], array):
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(value,)) for value in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert not wrong


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("model.toml", '[execution]\nproviders = ["cpu"]'),
        ("config.pbtxt", "instance_group { kind: KIND_CPU }"),
    ],
)
async def test_a_model_stays_on_the_cpu_where_that_is_said(
    serve: Serve, file: str, text: str
) -> None:
    app = await serve({"m/1/model.onnx": models.mlp(), f"m/{file}": text})
    assert served(app).loaded.narrow.devices == ("cpu",)
    assert app.registry.statuses("m")[0].notes == ()


async def test_a_gpu_that_is_not_there_is_a_note_or_a_failure(serve: Serve) -> None:
    app = await serve(
        {
            "falls/1/model.onnx": models.mlp(),
            "falls/config.pbtxt": "instance_group { kind: KIND_GPU gpus: 99 }",
            "fails/1/model.onnx": models.mlp(),
            "fails/model.toml": '[execution]\nproviders = ["tensorrt"]',
            "options/1/model.onnx": models.mlp(),
            "options/config.pbtxt": "optimization { execution_accelerators {"
            ' gpu_execution_accelerator { name: "cuda" parameters {'
            ' key: "no_such_option" value: "1" } } } }',
        }
    )
    for model, reason in (("falls", "99"), ("options", "no_such_option")):
        assert served(app, model).loaded.narrow.devices == ("cpu",)
        (note,) = app.registry.statuses(model)[0].notes
        assert note.startswith("runs on cpu, since cuda: ")
        assert reason in note
    assert (await predict(app, _features(2), "falls"))["y"].shape == (2, 4)
    if not _has_tensorrt():
        (status,) = app.registry.statuses("fails")
        assert 'none of [execution] providers = ["tensorrt"] starts' in status.reason
        with pytest.raises(LoadFailed):
            await app.registry.load("fails")


def _has_tensorrt() -> bool:
    return not providers.missing_library("tensorrt", onnxruntime)


async def test_memory_of_the_device_comes_back(serve: Serve) -> None:
    app = await serve({"m/1/model.onnx": minilm()}, "explicit")  # 90 MB of weights
    await app.registry.load("m")
    await unload(app)  # what CUDA itself takes, it takes once
    before = free_bytes()
    for _ in range(3):
        await app.registry.load("m")
        await predict(app, _sentences(4))
        assert free_bytes() < before - 60 * MIB
        await unload(app)
    assert free_bytes() > before - 32 * MIB


async def unload(app: App) -> None:
    version = served(app)
    await app.registry.unload("m")
    await version.closed()


def free_bytes() -> int:
    """Free memory of GPU 0, by the CUDA runtime that ONNX Runtime has loaded."""
    runtime = ctypes.CDLL(f"libcudart.so.{onnxruntime.cuda_version.partition('.')[0]}")
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    assert runtime.cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total)) == 0
    return free.value
