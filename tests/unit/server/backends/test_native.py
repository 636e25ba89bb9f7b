"""Real child processes, and what becomes of requests when they misbehave."""

import ast
import asyncio
import logging
import os
import pickle
import resource
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from sklearn.dummy import DummyRegressor

from protos.tensors import Array
from server.backends import native_process
from server.backends.model_file import inspect_native
from server.backends.native import NativeBackend, open_native
from server.batch_policy import BatchSettings
from server.errors import BackendError, BackendLost, LoadFailed, ModelNotReady
from server.loader import LoadedModel
from server.model_config import ExecutionConfig, ModelConfig, VersionSource
from server.probe import Profile
from server.request import InferRequest
from server.served import ServedVersion
from server.slots import ComputeSlots
from tests import native_models
from tests.native_models import DIE, HANG, LARGE_BYTES, RAISE

Open = Callable[..., NativeBackend]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Opens a model that does what its file says, and what is asked of it."""
    backends: list[NativeBackend] = []

    def open_(said: str = "", instances: int | None = None, threads: int = 1) -> NativeBackend:
        path = tmp_path / "model.pkl"
        path.write_text(said + "\n")
        execution = ExecutionConfig(instances=instances)
        file = inspect_native(path)
        backends.append(open_native(file, execution, threads, loader=native_models.LOADER))
        return backends[-1]

    yield open_
    for backend in backends:
        backend.close()


def x(*values: float) -> dict[str, Array]:
    return {"x": np.array([values], np.float32)}


def process_of(backend: NativeBackend) -> int:
    return int(backend.run(x(1), ["process"])[0][0])


def test_a_model_answers_in_a_process_of_its_own(opened: Open) -> None:
    backend = opened(threads=3)
    assert [spec.name for spec in backend.signature.inputs] == ["x", "text"]
    assert backend.platform == "sklearn_pickle"
    assert backend.artifact_id.startswith("sklearn-")
    assert backend.memory_bytes > 10 * 2**20
    y, process = backend.run(x(1, 2), ["y", "process"])
    assert y.tolist() == [[2, 4]]
    child, parent, threads, niceness = process.tolist()
    assert child != os.getpid()
    assert (parent, threads) == (os.getpid(), 3)
    assert niceness == os.getpriority(os.PRIO_PROCESS, 0)


def test_texts_and_large_tensors_go_and_come(opened: Open) -> None:
    backend = opened()
    texts = np.array([b"a", "ü".encode(), b""], object)
    large = np.random.default_rng(0).random((3, 500_000), np.float32)
    large.flags.writeable = False  # as a request's are
    y, loud = backend.run({"x": large, "text": texts}, ["y", "loud"])
    assert loud.tolist() == [b"A", "ü".encode(), b""]
    assert np.array_equal(y, large * 2)
    again = backend.run({"x": large[:, ::2]}, ["y"])[0]
    assert np.array_equal(y, large * 2), "the answer before is the caller's own"
    assert np.array_equal(again, large[:, ::2] * 2)


@pytest.mark.parametrize("instances", [None, 2])
def test_several_threads_may_run_it(opened: Open, instances: int | None) -> None:
    backend = opened(instances=instances)
    assert backend.instances == (instances or 1)
    with ThreadPoolExecutor(4) as pool:
        values = range(200)
        answers = list(pool.map(lambda value: backend.run(x(value), ["y", "process"]), values))
    assert [answer[0].item() for answer in answers] == [2 * value for value in values]
    processes = {process.process_id for process in backend.processes}
    assert {answer[1][0] for answer in answers} <= processes
    assert len(processes) == (instances or 1)


def test_what_the_framework_raises_fails_that_run_only(opened: Open) -> None:
    backend = opened()
    before = process_of(backend)
    with pytest.raises(BackendError, match=r"^sklearn: ValueError: x is not to my taste$") as error:
        backend.run(x(RAISE), ["y"])
    assert not isinstance(error.value, BackendLost)
    assert "with much detail" in str(error.value.__cause__)
    with pytest.raises(BackendError, match=r"the model gave no output \['z'\]"):
        backend.run(x(1), ["z"])
    assert process_of(backend) == before


def test_a_child_that_is_killed_fails_what_it_ran_and_is_replaced(
    opened: Open, capture: "Lines"
) -> None:
    backend = opened()
    before = process_of(backend)
    with ThreadPoolExecutor(1) as pool:
        stuck = pool.submit(backend.run, x(HANG), ["y"])
        capture.wait_for("hanging")
        os.kill(before, signal.SIGKILL)
        with pytest.raises(BackendLost, match=r"'model.pkl' ended during this run \(SIGKILL"):
            stuck.result()
    assert backend.run(x(3), ["y"])[0].item() == 6
    assert process_of(backend) != before


def test_the_memory_is_that_of_the_child_that_lives(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "once").touch()
    backend = opened("large but once")
    before = backend.memory_bytes
    with pytest.raises(BackendLost):
        backend.run(x(DIE), ["y"])
    backend.run(x(1), ["y"])
    assert backend.memory_bytes - before > LARGE_BYTES / 2


def test_a_child_that_dies_idle_costs_no_request(opened: Open, capture: "Lines") -> None:
    backend = opened()
    os.kill(process_of(backend), signal.SIGKILL)
    capture.wait_for("ended (SIGKILL")
    capture.wait_for("loading")  # without a request
    assert backend.run(x(3), ["y"])[0].item() == 6


def test_a_request_that_a_dead_child_never_read_goes_to_the_next_one(opened: Open) -> None:
    backend = opened()
    for value in range(5):
        os.kill(process_of(backend), signal.SIGKILL)
        assert backend.run(x(value), ["y"])[0].item() == 2 * value, "however soon it comes"


def test_a_child_that_dies_again_and_again_is_given_pauses(opened: Open) -> None:
    backend = opened()
    for _ in range(2):
        with pytest.raises(BackendLost):
            backend.run(x(DIE), ["y"])
    with pytest.raises(ModelNotReady, match=r"ended 2 times in a row; it is started again in \d"):
        backend.run(x(1), ["y"])


def test_a_child_that_does_not_start_again_says_so(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "once").touch()
    backend = opened("die unless once")
    with pytest.raises(BackendLost):
        backend.run(x(DIE), ["y"])
    with pytest.raises(ModelNotReady, match=r"while sklearn loaded it|ended 2 times in a row"):
        backend.run(x(1), ["y"])


def test_where_no_process_can_be_started_a_later_run_tries_again(
    opened: Open, capture: "Lines"
) -> None:
    backend = opened()
    first = process_of(backend)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))  # the three are open
    try:
        os.kill(first, signal.SIGKILL)
        capture.wait_for("Too many open files")
        with pytest.raises(ModelNotReady, match="Too many open files"):
            backend.run(x(1), ["y"])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert process_of(backend) != first


def test_a_file_that_has_changed_is_not_taken_for_the_model(opened: Open, tmp_path: Path) -> None:
    backend = opened()
    (tmp_path / "model.pkl").write_text("other\n")
    with pytest.raises(BackendLost):
        backend.run(x(DIE), ["y"])
    with pytest.raises(ModelNotReady, match=r"has changed since it was loaded|in a row"):
        backend.run(x(1), ["y"])


def test_an_answer_ends_the_counting_of_deaths(opened: Open) -> None:
    backend = opened()
    for value in range(3):
        with pytest.raises(BackendLost):
            backend.run(x(DIE), ["y"])
        assert backend.run(x(value), ["y"])[0].item() == 2 * value


def test_a_run_that_is_given_up_on_is_ended_alone(opened: Open, capture: "Lines") -> None:
    backend = opened(instances=2)
    threads: list[int] = []
    result: Future[list[Array]] = Future()

    def hang() -> None:
        threads.append(threading.get_ident())
        try:
            result.set_result(backend.run(x(HANG), ["y"]))
        except Exception as error:
            result.set_exception(error)

    thread = threading.Thread(target=hang)
    thread.start()
    capture.wait_for("hanging")
    other = process_of(backend)
    backend.interrupt(threads[0])
    with pytest.raises(BackendLost):
        result.result()
    thread.join()
    assert other in {process_of(backend) for _ in range(2)}


async def test_a_version_whose_child_hangs_gets_another(opened: Open, capture: "Lines") -> None:
    backend = opened()
    profile = Profile(batchable=False, reason="a test")
    loaded = LoadedModel(backend, None, 1, backend.signature, profile, BatchSettings(), x(1))
    source = VersionSource("m", 1, Path("model.pkl"), ModelConfig("m"))
    served = ServedVersion(source, loaded, ComputeSlots(2))
    before = process_of(backend)
    stuck = asyncio.ensure_future(served.batcher.submit(InferRequest("m", x(HANG))))
    await asyncio.to_thread(capture.wait_for, "hanging")
    served.check(hang_timeout_s=0.0)
    with pytest.raises(BackendError, match="did not return within 0 s"):
        await stuck
    outputs, _ = await served.batcher.submit(InferRequest("m", x(3)))
    assert outputs["y"].item() == 6
    assert outputs["process"][0] != before
    served.retire()
    await served.closed()
    assert backend.processes[0].process_id is None


def test_closing_kills_a_child_that_hangs(opened: Open, capture: "Lines") -> None:
    backend = opened()
    child = process_of(backend)
    with ThreadPoolExecutor(1) as pool:
        stuck = pool.submit(backend.run, x(HANG), ["y"])
        capture.wait_for("hanging")
        backend.close()
        with pytest.raises(BackendLost):
            stuck.result()
    assert not is_there(child)
    with pytest.raises(BackendLost, match="is being closed"):
        backend.run(x(1), ["y"])
    backend.close()  # harmless


REASONS = {
    "refuse": "'model.pkl': 'model.pkl' was made by version 0",
    "raise": "'model.pkl': KeyError: 'weights'",
    "die": r"the process ended while sklearn loaded it \(SIGKILL",
}


@pytest.mark.parametrize(("said", "reason"), REASONS.items(), ids=REASONS)
def test_why_a_model_is_not_loaded(opened: Open, said: str, reason: str) -> None:
    with pytest.raises(LoadFailed, match=reason):
        opened(said)


def test_a_load_that_hangs_is_given_up(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_process, "START_S", 0.0001)
    with pytest.raises(LoadFailed, match=r"did not load it in 0\.0001 s"):
        opened()


def test_the_child_survives_the_signals_meant_for_the_server(opened: Open) -> None:
    backend = opened()
    child = process_of(backend)
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(child, number)
    assert process_of(backend) == child
    assert os.getsid(child) == child, "a terminal's Ctrl-C does not reach it"


SERVES = """
import sys
from pathlib import Path
import numpy as np
from optimizer.artifact import Artifact
from server.backends.opener import open_artifact

artifact = Artifact(Path(sys.argv[1]), "model.pkl", "native", "a-1")
opened = open_artifact(artifact, 1)
print(opened.run({"X": np.ones((2, 3), np.float32)}, ["prediction"])[0].ravel().tolist())
opened.close()
print(sorted({name.partition(".")[0] for name in sys.modules}))
"""
TRAINING = {"sklearn", "scipy", "joblib", "skops", "xgboost", "lightgbm", "torch", "tensorflow"}


def test_the_server_imports_nothing_that_its_children_need(tmp_path: Path) -> None:
    mean = DummyRegressor().fit(np.ones((4, 3)), np.full(4, 7.0))
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(mean))
    command = [sys.executable, "-c", SERVES, str(tmp_path)]
    answer, modules = subprocess.check_output(command, text=True).splitlines()
    assert answer == "[7.0, 7.0]"
    assert set(ast.literal_eval(modules)) & TRAINING == set()
    assert "onnxruntime" not in modules, "it is for children that have nothing else, too"


PARENT = """
import sys, threading, time
from pathlib import Path
import numpy as np
from server.backends.model_file import inspect_native
from server.backends.native import open_native
from server.model_config import ExecutionConfig

file = inspect_native(Path(sys.argv[1]))
backend = open_native(file, ExecutionConfig(), 1, loader="tests.native_models:load")
if sys.argv[2] == "busy":
    hang = {"x": np.full((1, 1), 2e6, np.float32)}
    threading.Thread(target=backend.run, args=(hang, ["y"]), daemon=True).start()
print(backend.processes[0].process_id, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("what", ["idle", "busy"])
def test_the_child_dies_with_its_parent_and_takes_along_what_it_started(
    tmp_path: Path, what: str
) -> None:
    path = tmp_path / "model.pkl"
    path.write_text("start a process")
    command = [sys.executable, "-c", PARENT, str(path), what]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pids = [int(parent.stdout.readline()), int((tmp_path / "started").read_text())]
        processes = [os.pidfd_open(pid) for pid in pids]
        parent.kill()
    for process in processes:
        ended, _, _ = select.select([process], [], [], 30)  # readable when it has ended
        os.close(process)
        assert ended


class Lines(logging.Handler):
    """What was logged; waits for more."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[str] = []
        self._changed = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        with self._changed:
            self._lines.append(record.getMessage())
            self._changed.notify_all()

    def wait_for(self, text: str) -> None:
        """Until a line that was not waited for before holds the text."""
        with self._changed:
            assert self._changed.wait_for(lambda: any(text in line for line in self._lines), 30)
            while text not in self._lines.pop(0):
                pass


@pytest.fixture
def capture() -> Iterator[Lines]:
    lines, logger = Lines(), native_process.logger
    level = logger.level
    logger.addHandler(lines)
    logger.setLevel(logging.INFO)
    yield lines
    logger.removeHandler(lines)
    logger.setLevel(level)


def is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
