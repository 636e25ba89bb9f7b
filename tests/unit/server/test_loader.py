"""A whole load: what is opened, on which threads, and that a failure leaves nothing open."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from protos.tensors import Array
from server import latency_curve
from server.backends import FORMATS, Format
from server.backends.base import Backend
from server.backends.model_file import ModelFile
from server.batch_policy import QueuePolicy
from server.errors import BackendError, LoadFailed
from server.loader import NICENESS, LoadPlan, batch_settings, load
from server.memory import MemoryGate
from server.model_config import (
    BatchingConfig,
    ExecutionConfig,
    ModelConfig,
    TensorConfig,
    VersionSource,
)
from server.probe import Profile
from tests import models
from tests.fakes import FakeBackend, double, row_signature

Compute = Callable[[Mapping[str, Array]], dict[str, Array]]


class Opener:
    """A format whose backends are fakes; notes how they were opened.

    With a GPU, models run there unless they are told to stay on the CPU.
    """

    def __init__(self) -> None:
        self.has_gpu = False
        self.fails_on: tuple[str, ...] = ()  # devices that fail at every run
        self.backends: list[FakeBackend] = []
        self.threads: list[int] = []
        self.spins: list[bool] = []
        self.providers: list[tuple[str, ...] | None] = []
        self.niceness: list[int] = []
        self.cost_s: Mapping[int, float] = {}  # threads -> what a run takes

    def open(
        self, file: ModelFile, execution: ExecutionConfig, threads: int, *, spins: bool = False
    ) -> Backend:
        self.threads.append(threads)
        self.spins.append(spins)
        self.providers.append(execution.providers)
        self.niceness.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        device = "cuda:0" if self.has_gpu and execution.providers != ("cpu",) else "cpu"
        backend = FakeBackend(self._compute(threads, device), row_signature(), threads)
        backend.devices = (device,)
        self.backends.append(backend)
        return backend

    def _compute(self, threads: int, device: str) -> Compute:
        def compute(inputs: Mapping[str, Array]) -> dict[str, Array]:
            if device in self.fails_on:
                raise BackendError("cuDNN is not available")
            time.sleep(self.cost_s.get(threads, 0.0))
            return double(inputs)

        return compute


@pytest.fixture
def opener(monkeypatch: pytest.MonkeyPatch) -> Iterator[Opener]:
    fake = Opener()
    table = Format(lambda path: ModelFile(path, "fake-1", path.stat().st_size), fake.open)
    monkeypatch.setitem(FORMATS, ".fake", table)
    yield fake


def source(folder: Path, config: ModelConfig | None = None, content: bytes = b"") -> VersionSource:
    path = folder / ("model.onnx" if content else "model.fake")
    path.write_bytes(content)
    return VersionSource("m", 1, path, config or ModelConfig("m"))


def execution(**said: object) -> ModelConfig:
    return ModelConfig("m", execution=ExecutionConfig(**said))  # type: ignore[arg-type]


def test_a_model_is_opened_probed_and_warm(tmp_path: Path) -> None:
    loaded = load(source(tmp_path, content=models.mlp()), LoadPlan(threads=2))
    assert loaded.profile.batchable
    assert loaded.settings.max_batch == loaded.profile.max_batch
    assert loaded.instances == 2
    assert loaded.wide is None  # far too quick to gain from a second thread
    assert loaded.profile.load_s > loaded.profile.warm_up_s > 0
    assert loaded.narrow.run(loaded.example, ["y"])[0].shape == (1, 4)
    loaded.close()


def test_slow_model_gets_a_wide_session_when_it_pays(tmp_path: Path, opener: Opener) -> None:
    opener.cost_s = {1: 0.004, 3: 0.001}
    loaded = load(source(tmp_path), LoadPlan(threads=3, models=2000))
    assert loaded.wide is opener.backends[1]
    assert opener.spins == [False, True], "only what runs alone may spin"
    assert opener.threads == [1, 3]
    assert loaded.instances == 3
    assert set(opener.backends[1].batches) >= {1, loaded.profile.max_batch}
    loaded.close()
    assert [backend.is_closed for backend in opener.backends] == [True, True]


def test_wide_session_that_does_not_pay_is_closed(tmp_path: Path, opener: Opener) -> None:
    opener.cost_s = {1: 0.004, 3: 0.004}
    loaded = load(source(tmp_path), LoadPlan(threads=3, models=2000))
    assert loaded.wide is None
    assert [backend.is_closed for backend in opener.backends] == [False, True]


SAID = {
    "threads": (execution(threads=2), 2, 2),
    "instances": (execution(instances=3), 1, 3),
    "both": (execution(threads=4, instances=2), 4, 2),
    "more threads than planned": (execution(threads=9), 9, 1),
}


@pytest.mark.parametrize(("config", "threads", "instances"), SAID.values(), ids=SAID)
def test_what_is_said_about_threads_is_done(
    tmp_path: Path, opener: Opener, config: ModelConfig, threads: int, instances: int
) -> None:
    opener.cost_s = {1: 0.004, 4: 0.001}
    loaded = load(source(tmp_path, config), LoadPlan(threads=4, models=2000))
    assert opener.threads == [threads]
    assert loaded.wide is None
    assert loaded.instances == instances


@pytest.mark.skipif(os.uname().sysname != "Linux", reason="threads have no niceness here")
def test_loading_yields_to_serving_but_serving_threads_do_not(
    tmp_path: Path, opener: Opener
) -> None:
    opener.cost_s = {1: 0.004, 2: 0.001}
    own = os.getpriority(os.PRIO_PROCESS, 0)
    load(source(tmp_path), LoadPlan(threads=2, models=2000))
    assert opener.niceness == [min(19, own + NICENESS), own]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == own
    load(source(tmp_path, execution(threads=2)), LoadPlan(threads=2, models=2000))
    assert opener.niceness[2] == own


def test_a_model_on_a_gpu_is_run_as_a_gpu_wants_it(
    tmp_path: Path, opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FORMATS, ".fake", replace(FORMATS[".fake"], is_run_by_caller=True))
    opener.has_gpu, opener.cost_s = True, {1: 0.004}
    loaded = load(source(tmp_path), LoadPlan(threads=8, models=2000))
    (backend,) = opener.backends
    assert loaded.narrow.devices == ("cuda:0",)
    assert (loaded.instances, loaded.wide) == (2, None)
    # Nothing is computed on the thread that calls, so its own time would say 0.
    assert loaded.profile.curve[0].fastest_s >= 0.004
    assert set(backend.batches) >= {*latency_curve.sizes(loaded.profile.max_batch)}
    assert loaded.profile.fallback == ""
    said = source(tmp_path, execution(instances=5))
    assert load(said, LoadPlan(threads=8, models=2000)).instances == 5


def test_a_device_that_fails_at_every_run_is_left_for_the_cpu(
    tmp_path: Path, opener: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    opener.has_gpu, opener.fails_on = True, ("cuda:0",)
    for said in (None, ("cuda", "cpu")):
        given = source(tmp_path, execution(providers=said))
        loaded = load(given, LoadPlan(threads=2, models=2000))
        on_gpu, on_cpu = opener.backends
        assert loaded.narrow is on_cpu
        assert (on_gpu.is_closed, on_cpu.is_closed) == (True, False)
        assert loaded.profile.batchable
        fallback = "runs on cpu, since on cuda:0 it fails: cuDNN is not available"
        assert loaded.profile.fallback == fallback
        assert fallback in caplog.text
        opener.backends.clear()


def test_a_model_that_answers_no_example_anywhere_stays_on_its_device(
    tmp_path: Path, opener: Opener
) -> None:
    opener.has_gpu, opener.fails_on = True, ("cuda:0", "cpu")
    loaded = load(source(tmp_path), LoadPlan(threads=2, models=2000))
    assert loaded.narrow is opener.backends[0]
    assert [backend.is_closed for backend in opener.backends] == [False, True]
    assert loaded.instances == 2
    assert "cuDNN is not available" in loaded.profile.reason


def test_a_model_that_must_run_on_a_gpu_is_not_moved(tmp_path: Path, opener: Opener) -> None:
    opener.has_gpu, opener.fails_on = True, ("cuda:0",)
    given = source(tmp_path, execution(providers=("cuda",)))
    loaded = load(given, LoadPlan(threads=2, models=2000))
    assert loaded.narrow.devices == ("cuda:0",)
    assert len(opener.backends) == 1
    assert "cuDNN is not available" in loaded.profile.reason


def test_after_a_fallback_the_wide_session_is_on_the_cpu_too(
    tmp_path: Path, opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeBackend, "fallback", "runs on cpu, since cuda: no driver")
    opener.cost_s = {1: 0.004, 3: 0.001}
    config = execution(providers=("cuda", "cpu"))
    loaded = load(source(tmp_path, config), LoadPlan(threads=3, models=2000))
    assert loaded.profile.fallback == "runs on cpu, since cuda: no driver"
    assert loaded.wide is opener.backends[1]
    assert opener.providers == [("cuda", "cpu"), ("cpu",)]


def test_failed_load_leaves_nothing_open(tmp_path: Path, opener: Opener) -> None:
    config = ModelConfig("m", inputs=(TensorConfig("x", "INT8", (2,)),), max_batch_size=4)
    with pytest.raises(LoadFailed, match="data_type is INT8, the model has FP32"):
        load(source(tmp_path, config), LoadPlan(threads=2))
    assert [backend.is_closed for backend in opener.backends] == [True]


def test_model_that_does_not_fit_is_refused_before_it_is_opened(
    tmp_path: Path, opener: Opener
) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemAvailable: 1 kB\n")
    given = source(tmp_path)
    given.path.write_bytes(b"x" * 2000)
    plan = LoadPlan(threads=2, memory=MemoryGate(tmp_path))
    with pytest.raises(LoadFailed, match="model 'm' version 1 needs about"):
        load(given, plan)
    assert not opener.backends


def test_unreadable_file_says_so(tmp_path: Path, opener: Opener) -> None:
    missing = VersionSource("m", 1, tmp_path / "gone.fake", ModelConfig("m"))
    with pytest.raises(LoadFailed, match=r"gone.fake' cannot be read: No such file"):
        load(missing, LoadPlan(threads=2))


def test_reshape_is_applied(tmp_path: Path, opener: Opener) -> None:
    tensor = TensorConfig("x", "FP32", (2, 1), reshape=(2,))
    config = ModelConfig("m", inputs=(tensor,), max_batch_size=4)
    loaded = load(source(tmp_path, config), LoadPlan(threads=1))
    assert loaded.signature.inputs[0].shape == ("n", 2, 1)
    assert loaded.profile.batchable
    assert loaded.profile.max_batch <= 4


def test_settings_are_what_was_said_and_what_was_measured() -> None:
    queue = QueuePolicy(queue_limit=5)
    batching = BatchingConfig(
        window_s=0.002, slo_p99_s=0.1, priority_levels=3, default_priority=2, queue=queue
    )
    settings = batch_settings(ModelConfig("m", batching), Profile(True, max_batch=16))
    assert (settings.window_s, settings.max_batch, settings.slo_p99_s) == (0.002, 16, 0.1)
    assert (settings.priority_levels, settings.default_priority) == (3, 2)
    assert settings.queue is queue
    assert batch_settings(ModelConfig("m"), Profile(False)).window_s == 0.0


@pytest.mark.parametrize(("models_loading", "probe_s"), [(1, 1.5), (40, 1.0), (1460, 0.03)])
def test_the_more_models_load_the_less_each_is_measured(
    models_loading: int, probe_s: float
) -> None:
    assert LoadPlan(2, models_loading).probe_s == probe_s
