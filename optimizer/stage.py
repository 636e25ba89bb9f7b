"""Runs one heavy step in a child process, so that whatever happens in it happens to it alone."""

import contextlib
import inspect
import logging
import os
import pickle
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from optimizer import process_tree
from optimizer.errors import Cancelled, OptimizationError, StageFailed, StageTimeout
from optimizer.stage_channel import Kind, Receiver, Sender

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

_TICK_S = 0.1  # between two looks at the time, the memory and `cancelled`
_TERM_S = 1.0  # from SIGTERM to SIGKILL
_EXIT_S = 10.0  # for a child that has answered to end by itself
_CHUNK = 1 << 20
_LAST_READS = 16  # of what a pipe holds when the child is gone; its own children may still write
_LINE_CHARS = 2000
_TAIL_LINES = 20

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "LOKY_MAX_CPU_COUNT",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)

_POLICIES = {"normal": os.SCHED_OTHER, "batch": os.SCHED_BATCH, "idle": os.SCHED_IDLE}


@dataclass(frozen=True, slots=True)
class Limits:
    """What a stage may use.

    The default niceness gives a stage a tenth of a core that the server keeps busy. At 19 it would
    get a hundredth, and run into its time limit where the server has much to do.
    """

    time_s: float = 1800.0
    memory_mb: int = 0  # of all its processes, without mapped files; 0: no limit
    threads: int = 1  # that libraries are told to use
    niceness: int = 10
    scheduling: Literal["normal", "batch", "idle"] = "normal"


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Given:
    """What the child is told before its arguments."""

    module: str
    qualname: str
    sys_path: list[str]
    niceness: int
    policy: int


def run(
    function: Callable[..., Result],
    *arguments: Any,
    limits: Limits = DEFAULT_LIMITS,
    cancelled: threading.Event | None = None,
    on_line: Callable[[str], None] | None = None,
    on_progress: Callable[[Any], None] | None = None,
) -> Result:
    """Calls a function of a module in a fresh process, and waits for what it returns.

    May be called on any thread, on several at once; the process is spawned, never forked. It
    dies with this one, and takes along what it started. Arguments and result are pickled; the
    result is made of plain values (builtins, numpy, values of this project). Callbacks
    are called on the calling thread: `on_line` with each line the stage prints, `on_progress` with
    each value given to `report_progress`.

    Raises:
        ValueError: the function cannot be found by its name in another process.
        OptimizationError: what the function raised, in its own class.
        StageFailed: it raised anything else, crashed, or used more memory than it may; after
            the first line come the last ones that the stage printed.
        StageTimeout: it took too long.
        Cancelled: `cancelled` was set.
    """
    call = _encode(function, arguments, limits)
    if cancelled is not None and cancelled.is_set():
        raise Cancelled("cancelled")
    name = function.__qualname__
    with _child(name, call, limits) as child:
        watch = _Watch(name, child, limits, Receiver(function.__module__.partition(".")[0]))
        watch.cancelled, watch.on_line, watch.on_progress = cancelled, on_line, on_progress
        return watch.wait()  # type: ignore[no-any-return]


_sender: Sender | None = None  # in a child only


def connect(sender: Sender) -> Sender:
    """Makes this process a stage's child: `report_progress` goes to its parent."""
    global _sender  # noqa: PLW0603
    _sender = sender
    return sender


def report_progress(value: object) -> None:
    """Tells the parent how far a stage is; does nothing outside of a stage."""
    if _sender is not None:
        _sender.send(Kind.PROGRESS, value)


def _encode(function: Callable[..., Any], arguments: tuple[Any, ...], limits: Limits) -> bytes:
    module, qualname = function.__module__, function.__qualname__
    if not inspect.isfunction(function) or "<" in qualname:
        raise ValueError(f"{module}.{qualname}: a stage has to be a function of a module")
    if module == "__main__":
        raise ValueError(
            f"{qualname} is defined in the script that runs, which a child process cannot import: "
            "move it to a module"
        )
    policy = _POLICIES[limits.scheduling]
    given = Given(module, qualname, sys.path, limits.niceness, policy)
    return pickle.dumps(given, protocol=5) + pickle.dumps(arguments, protocol=5)


@dataclass(frozen=True, slots=True)
class _Child:
    """A running child and what comes from it."""

    process: subprocess.Popen[bytes]
    output_fd: int
    results_fd: int

    def exit_code(self) -> int | None:
        """As Popen's: negative for a signal; None while it runs.

        Leaves it unreaped, so that its number stays its own until the rest of it is ended.
        """
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        try:
            ended = os.waitid(os.P_PID, self.process.pid, flags)
        except ChildProcessError:  # the parent ignores SIGCHLD: the kernel keeps no exit codes
            return 0
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    def has_ended(self) -> bool:
        return self.exit_code() is not None


@contextlib.contextmanager
def _child(name: str, call: bytes, limits: Limits) -> Iterator[_Child]:
    """Starts a child; on leaving, it and all that it started are gone."""
    with contextlib.ExitStack() as ours, contextlib.ExitStack() as childs:
        # A pipe would block where the child does not come to read.
        call_fd = _closed_by(childs, os.memfd_create("stage"))
        with open(call_fd, "wb", closefd=False) as file:
            file.write(call)
        os.lseek(call_fd, 0, os.SEEK_SET)
        results_fd, results_end = _pipe(ours, childs)
        life_end, _ = _pipe(childs, ours)
        output_fd, output_end = _pipe(ours, childs)
        given = (call_fd, results_end, life_end)
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "optimizer.stage_child", *map(str, given), name],
            stdin=subprocess.DEVNULL,
            stdout=output_end,
            stderr=output_end,
            pass_fds=given,
            env=_environment(limits),
            start_new_session=True,
        )
        childs.close()
        child = _Child(process, output_fd, results_fd)
        try:
            yield child
        finally:
            _end(child)


def _pipe(reads: contextlib.ExitStack, writes: contextlib.ExitStack) -> tuple[int, int]:
    read_end, write_end = os.pipe()
    return _closed_by(reads, read_end), _closed_by(writes, write_end)


def _closed_by(stack: contextlib.ExitStack, fd: int) -> int:
    stack.callback(os.close, fd)
    return fd


def _environment(limits: Limits) -> dict[str, str]:
    here = str(Path(__file__).parent.parent)
    paths = [here, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return {
        **os.environ,
        **dict.fromkeys(_THREAD_VARIABLES, str(limits.threads)),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PYTHONUNBUFFERED": "1",
    }


def _end(child: _Child) -> None:
    """Ends a child and all that it started: politely where it still runs, then not."""
    leader = child.process.pid
    found = process_tree.members(leader)
    if not child.has_ended():
        process_tree.send_signal(leader, found, signal.SIGTERM)
        _until(child.has_ended, _TERM_S)
        found |= process_tree.members(leader)
    process_tree.send_signal(leader, found, signal.SIGKILL)
    child.process.wait()


def _until(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)


class _Watch:
    """Follows one child from its start to its answer."""

    cancelled: threading.Event | None = None
    on_line: Callable[[str], None] | None = None
    on_progress: Callable[[Any], None] | None = None

    def __init__(self, name: str, child: _Child, limits: Limits, receiver: Receiver) -> None:
        self._name = name
        self._child = child
        self._limits = limits
        self._receiver = receiver
        self._deadline = time.monotonic() + limits.time_s
        self._line = b""
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._answer: tuple[Kind, Any] | None = None

    def wait(self) -> Any:
        """The result; raises as `run` does."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._child.results_fd, selectors.EVENT_READ, self._on_results)
            selector.register(self._child.output_fd, selectors.EVENT_READ, self._on_output)
            while self._answer is None and not self._child.has_ended():
                self._check()
                self._read(selector, _TICK_S)
            answered = time.monotonic()
            while not self._child.has_ended() and time.monotonic() < answered + _EXIT_S:
                self._check_cancelled()
                self._read(selector, _TICK_S)
            for _ in range(_LAST_READS):
                self._read(selector, 0)
        return self._outcome()

    def _read(self, selector: selectors.BaseSelector, timeout_s: float) -> bool:
        """Whether there was anything."""
        events = selector.select(timeout_s)
        for key, _ in events:
            if data := os.read(key.fd, _CHUNK):
                key.data(data)
            else:
                selector.unregister(key.fd)
        return bool(events)

    def _check(self) -> None:
        self._check_cancelled()
        if time.monotonic() > self._deadline:
            raise StageTimeout(f"{self._name} took longer than {self._limits.time_s:g} s")
        if limit := self._limits.memory_mb:
            used = process_tree.memory_bytes(self._child.process.pid) / 1e6
            if used > limit:
                raise StageFailed(f"{self._name} used more than {limit} MB of memory: {used:.0f}")

    def _check_cancelled(self) -> None:
        if self.cancelled is not None and self.cancelled.is_set():
            raise Cancelled("cancelled")

    def _on_results(self, data: bytes) -> None:
        for kind, value in self._receiver.feed(data):
            if kind is not Kind.PROGRESS:
                self._answer = kind, value
            elif self.on_progress is not None:
                self.on_progress(value)

    def _on_output(self, data: bytes) -> None:
        # Progress bars return to the begin of their line.
        *lines, self._line = (self._line + data).replace(b"\r", b"\n").split(b"\n")
        if len(self._line) > _LINE_CHARS:
            lines.append(self._line)
            self._line = b""
        for line in lines:
            self._on_line(line)

    def _on_line(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()[:_LINE_CHARS]
        if text:
            self._tail.append(text)
            if self.on_line is not None:
                self.on_line(text)

    def _outcome(self) -> Any:
        self._on_line(self._line)
        if self._answer is None:
            raise self._failed(self._death())
        kind, value = self._answer
        if kind is Kind.RAISED and isinstance(value, OptimizationError):
            raise value
        if kind is not Kind.RESULT:
            raise self._failed(f"failed: {value}")
        return value

    def _failed(self, what: str) -> StageFailed:
        """What happened in the first line; then what was printed last, a traceback for example."""
        return StageFailed("\n".join([f"{self._name} {what}", *self._tail]))

    def _death(self) -> str:
        code = self._child.exit_code() or 0
        if code >= 0:
            return f"ended with exit code {code} before it returned"
        name = signal.Signals(-code).name
        hint = ": memory ran out, or somebody killed it" if name == "SIGKILL" else ""
        return f"was ended by {name}{hint}"
