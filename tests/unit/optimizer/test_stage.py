import contextlib
import gc
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optimizer import process_tree, stage
from optimizer.errors import Cancelled, ConversionError, StageFailed, StageTimeout
from optimizer.passes.contract import PassResult
from optimizer.stage import Limits
from tests.unit.optimizer import stage_functions as functions


def wait_for_end(pid: int) -> None:
    """Returns when a process, of whomever, is gone; fails after a long while."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = select.poll()
    ended.register(fd, select.POLLIN)
    try:
        assert ended.poll(30_000), f"{pid} still runs"
    finally:
        os.close(fd)


@contextlib.contextmanager
def cancelled_at_progress() -> Iterator[dict[str, Any]]:
    """Arguments for `run` that cancel it at its first progress value, which is noted."""
    cancelled, values = threading.Event(), []

    def note(value: Any) -> None:
        values.append(value)
        cancelled.set()

    yield {"cancelled": cancelled, "on_progress": note}
    for pid in np.ravel(values):
        wait_for_end(int(pid))


def test_result_of_another_process() -> None:
    assert stage.run(functions.add, 1, 2) == 3


def test_values_and_arrays_both_ways(tmp_path: Path) -> None:
    array = np.arange(3_000_000, dtype=np.float32)  # far more than a pipe holds
    np.testing.assert_array_equal(stage.run(functions.double, array), array * 2)
    made = stage.run(functions.make_value, tmp_path)
    assert made == PassResult(tmp_path / "model.onnx", True, ("note",))


def test_child_has_our_paths_and_a_low_priority(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "random.py").write_text("raise RuntimeError('shadowed')")
    monkeypatch.chdir(tmp_path)
    facts = stage.run(functions.facts, limits=Limits(niceness=7, scheduling="batch"))
    assert facts["cwd"] == tmp_path
    assert facts["path"] == sys.path
    assert facts["niceness"] == max(7, os.nice(0))
    assert facts["policy"] == os.SCHED_BATCH
    assert facts["oom_score_adj"] == "1000"
    assert facts["session"]


def test_threads_of_libraries_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    assert stage.run(functions.environment, "OMP_NUM_THREADS", limits=Limits(threads=3)) == "3"


def test_lines_of_every_kind() -> None:
    lines: list[str] = []
    stage.run(functions.speak, on_line=lines.append)
    assert sorted(lines) == sorted(["one", "two", "three", "four", "no end of line"])


def test_much_output_blocks_nothing() -> None:
    lines: list[str] = []
    stage.run(functions.speak_at_length, 2000, on_line=lines.append)
    assert len(lines) == 2000


def test_progress_comes_in_order() -> None:
    values: list[Any] = []
    stage.run(functions.count, 3, on_progress=values.append)
    assert values == [{"done": 0}, {"done": 1}, {"done": 2}]


def test_progress_of_many_threads() -> None:
    values: list[Any] = []
    stage.run(functions.count_on_threads, 200, on_progress=values.append)
    assert sorted(value["done"] for value in values) == sorted([*range(200)] * 4)


def test_progress_outside_of_a_stage_is_nothing() -> None:
    functions.count(3)


def test_own_errors_keep_their_class() -> None:
    with pytest.raises(ConversionError, match=r"^no such operator: Foo$"):
        stage.run(functions.refuse)


def test_own_errors_that_cannot_travel_keep_their_text() -> None:
    with pytest.raises(StageFailed, match="TwoArguments: this and that"):
        stage.run(functions.refuse_unpicklably)


def test_other_errors_come_with_their_traceback() -> None:
    with pytest.raises(StageFailed) as caught:
        stage.run(functions.fail)
    first, *others = str(caught.value).splitlines()
    assert first == "fail failed: ValueError: expected 3, got 4"
    assert "in fail" in "".join(others)


@pytest.mark.parametrize(
    ("function", "arguments", "says"),
    [
        (functions.crash, (signal.SIGABRT,), "was ended by SIGABRT"),
        (functions.crash, (signal.SIGKILL,), "was ended by SIGKILL: memory ran out"),
        (functions.crash_natively, (), "was ended by SIGSEGV"),
        (functions.leave, (3,), "failed: SystemExit: 3"),
        (functions.leave_at_once, (0,), "ended with exit code 0 before it returned"),
    ],
)
def test_death(function: Callable[..., Any], arguments: tuple[Any, ...], says: str) -> None:
    with pytest.raises(StageFailed, match=says):
        stage.run(function, *arguments)


def test_death_comes_with_last_words() -> None:
    with pytest.raises(StageFailed) as caught:
        stage.run(functions.leave_at_once, 3)
    assert str(caught.value).splitlines()[1:] == ["leaving"]


def test_crash_after_the_answer_does_not_matter() -> None:
    assert stage.run(functions.answer_and_crash) == "fine"


def test_stays_after_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "_EXIT_S", 0.0)
    assert stage.run(functions.answer_and_stay) == "fine"


def test_result_that_cannot_be_sent() -> None:
    with pytest.raises(StageFailed, match="its result, a lock, cannot be sent"):
        stage.run(functions.return_lock)


def test_result_that_would_import_what_the_server_must_not() -> None:
    with pytest.raises(StageFailed, match=r"plain values only.*fractions\.Fraction"):
        stage.run(functions.return_foreign)


@pytest.mark.parametrize("function", [lambda: None, functions.TwoArguments, len])
def test_what_is_no_function_of_a_module_is_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="has to be a function of a module"):
        stage.run(function)


def test_functions_of_a_script_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions.add, "__module__", "__main__")
    with pytest.raises(ValueError, match="add is defined in the script"):
        stage.run(functions.add, 1, 2)


def test_arguments_of_a_script_are_refused(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from optimizer import stage\n"
        "from tests.unit.optimizer import stage_functions\n"
        "class Own: pass\n"
        "stage.run(stage_functions.take, Own())\n"
    )
    done = subprocess.run(
        [sys.executable, script],
        stderr=subprocess.PIPE,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(functions.__file__).parents[3])},
    )
    assert b"has to be defined in a module, not in the script" in done.stderr


def test_time_limit() -> None:
    values: list[int] = []
    with pytest.raises(StageTimeout, match=r"wait_after_progress took longer than 0\.\d+ s"):
        stage.run(
            functions.wait_after_progress, limits=Limits(time_s=0.5), on_progress=values.append
        )
    for pid in values:
        wait_for_end(pid)


def test_memory_limit() -> None:
    with pytest.raises(StageFailed, match=r"use_memory used more than 200 MB of memory: \d{3}"):
        stage.run(functions.use_memory, 400, limits=Limits(memory_mb=200))


def test_memory_of_grandchildren_counts() -> None:
    with pytest.raises(StageFailed, match="used more than 200 MB"):
        stage.run(functions.use_memory_in_grandchild, 400, limits=Limits(memory_mb=200))


def test_mapped_files_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"\1" * (300 << 20))
    assert stage.run(functions.map_file, path, limits=Limits(memory_mb=200)) == 1


def test_cancelled_before_it_begins() -> None:
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(Cancelled):
        stage.run(functions.crash, signal.SIGKILL, cancelled=cancelled)


@pytest.mark.parametrize("function", [functions.wait_after_progress, functions.block_interpreter])
def test_cancel(function: Callable[..., Any]) -> None:
    with cancelled_at_progress() as hooks, pytest.raises(Cancelled):
        stage.run(function, **hooks)


def test_cancel_of_one_that_ignores_sigterm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "_TERM_S", 0.0)
    with cancelled_at_progress() as hooks, pytest.raises(Cancelled):
        stage.run(functions.ignore_sigterm, **hooks)


def test_cancel_ends_all_descendants() -> None:
    with cancelled_at_progress() as hooks, pytest.raises(Cancelled):
        stage.run(functions.have_children, **hooks)


def test_return_ends_children_that_were_left() -> None:
    for pid in stage.run(functions.have_children_and_return):
        wait_for_end(pid)


def test_error_in_a_callback_ends_the_stage() -> None:
    pids: list[int] = []

    def fail(pid: int) -> None:
        pids.append(pid)
        raise RuntimeError("from the callback")

    with pytest.raises(RuntimeError, match="from the callback"):
        stage.run(functions.wait_after_progress, on_progress=fail)
    wait_for_end(pids[0])


@pytest.mark.parametrize("name", ["wait_after_progress", "block_interpreter", "have_children"])
def test_dies_with_its_parent(name: str) -> None:
    code = f"from tests.unit.optimizer.stage_functions import relay; relay({name!r})"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        line = parent.stdout.readline().decode()
        parent.kill()
    pids = [int(text) for text in line.strip("[]\n").split(",")]
    wait_for_end(pids[0])
    for pid in pids[1:]:  # those that left the group have to look after themselves
        os.kill(pid, signal.SIGKILL)


def test_on_many_threads_at_once_nothing_is_left() -> None:
    stage.run(functions.add, 0, 0)
    gc.collect()
    fds, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    with ThreadPoolExecutor(4) as pool:
        results = pool.map(lambda number: stage.run(functions.add, number, 1), range(8))
        assert list(results) == list(range(1, 9))
    assert len(os.listdir("/proc/self/fd")) == fds
    assert threading.active_count() == threads
    assert not [pid for pid in process_tree.members(os.getpid()) if _is_our_zombie(pid)]


def _is_our_zombie(pid: int) -> bool:
    with contextlib.suppress(OSError):
        state, parent, *_ = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return state == "Z" and int(parent) == os.getpid()
    return False


def test_grandchildren_do_not_get_our_ends() -> None:
    assert stage.run(functions.fds_of_grandchild) == ["0", "1", "2", "3"]  # 3: the listing itself


class _Shell:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("exit 1",)


@pytest.mark.parametrize(
    "value",
    [_Shell(), os.system, eval, np.memmap, np.load, subprocess.Popen, stage.run, Path.unlink],
)
def test_what_acts_when_it_is_read_is_refused(value: object) -> None:
    from optimizer.stage_channel import Kind, Receiver, Sender

    read_end, write_end = os.pipe()
    with open(read_end, "rb") as reader, open(write_end, "wb"):
        Sender(write_end).send(Kind.RESULT, value)
        frame = os.read(reader.fileno(), 1 << 16)
    with pytest.raises(StageFailed, match="plain values only"):
        list(Receiver("tests").feed(frame))


def test_bfloat16_travels() -> None:
    import ml_dtypes

    array = np.ones(3, ml_dtypes.bfloat16)
    assert stage.run(functions.double, array).dtype == array.dtype
    assert pickle.loads(pickle.dumps(array)).dtype == array.dtype
