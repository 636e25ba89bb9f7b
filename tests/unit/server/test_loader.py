"""A whole load: what is opened, on which threads, and that a failure leaves nothing open."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from protos.tensors import Array
from server.backends import FORMATS, Format
from server.backends.artifact import Artifact
from server.backends.base import Backend
from server.batch_policy import QueuePolicy
from server.errors import LoadFailed
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
    """A format whose backends are fakes; notes how they were opened."""

    def __init__(self) -> None:
        self.backends: list[FakeBackend] = []
        self.threads: list[int] = []
        self.niceness: list[int] = []
        self.cost_s: Mapping[int, float] = {}  # threads -> what a run takes

    def open(self, artifact: Artifact, execution: ExecutionConfig, threads: int) -> Backend:
        self.threads.append(threads)
        self.niceness.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        backend = FakeBackend(self._compute(threads), row_signature(), threads)
        self.backends.append(backend)
        return backend

    def _compute(self, threads: int) -> Compute:
        def compute(inputs: Mapping[str, Array]) -> dict[str, Array]:
            time.sleep(self.cost_s.get(threads, 0.0))
            return double(inputs)

        return compute


@pytest.fixture
def opener(monkeypatch: pytest.MonkeyPatch) -> Iterator[Opener]:
    fake = Opener()
    table = Format(lambda path: Artifact(path, "fake-1", path.stat().st_size), fake.open)
    monkeypatch.setitem(FORMATS, ".fake", table)
    yield fake


def source(folder: Path, config: ModelConfig | None = None, content: bytes = b"") -> VersionSource:
    path = folder / ("model.onnx" if content else "model.fake")
    path.write_bytes(content)
    return VersionSource("m", 1, path, config or ModelConfig("m"))


def execution(**said: int) -> ModelConfig:
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
