"""A supervised child process that runs one model in its own framework: start, run, end, again.

The child is `optimizer.native_child`. It has a session of its own, ordinary output of it goes to
the log, and it is killed by the kernel, with what it started, when this process ends in any way.
"""

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import optimizer
from optimizer.native_channel import Channel, ChannelError
from optimizer.source import SourceModel
from protos.signature import Signature
from protos.tensors import Array
from server.errors import BackendError, BackendLost, LoadFailed, ModelNotReady

logger = logging.getLogger(__name__)

LOADER = "optimizer.frameworks:load_native"
START_S = 300.0  # longest start: frameworks take seconds to import, models to load
_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0  # before a third start in a row, and later ones
_END_S = 5.0  # for the kernel to end what was killed

# What the frameworks' libraries of compute threads listen to.
_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "LOKY_MAX_CPU_COUNT",
    "TF_NUM_INTRAOP_THREADS",
)


@dataclass(frozen=True, slots=True)
class Launch:
    """What a child is started for."""

    source: SourceModel
    threads: int  # compute threads of the framework
    spins: bool = False  # they may wait for each other by spinning
    samples: Path | None = None  # rows by which the framework's model knows its columns
    loader: str = LOADER  # "module:function" that loads the model, in the child


class NativeProcess:
    """One model in one child at a time; a child that dies is replaced.

    A run waits for its turn and for a child that is being started. The child that died is replaced
    at once; when it dies again before it has answered, later ones wait longer and longer, and runs
    that come meanwhile are refused. `kill` and `close` may be called on any thread at any time.
    """

    def __init__(self, launch: Launch) -> None:
        self.signature = Signature((), ())
        self.memory_bytes = 0  # of the child that lives; of the last one where none does
        self.thread = 0  # that has a run under way; 0: none
        self._launch = launch
        self._name = launch.source.path.name
        self._seen = _stamps(launch.source.path)
        self._turn = threading.Lock()
        self._child: _Child | None = None
        self._is_closed = False
        self._deaths = 0  # since the last answer
        self._not_before = 0.0  # the next start

    def open(self) -> None:
        """Starts the first child; takes seconds.

        Raises:
            LoadFailed: the model cannot be loaded there; why.
        """
        with self._turn:
            try:
                self._start()
            except BaseException:
                self._is_closed = True
                self._bury()
                raise

    def run(self, inputs: Mapping[str, Array], output_names: Sequence[str]) -> list[Array]:
        """Runs one batch; gives up the GIL. The outputs are the caller's own.

        Raises:
            BackendError: the framework failed; its words are the cause.
            BackendLost: the child died of it, or while it ran.
            ModelNotReady: there is no child, and it is too soon to start another.
        """
        with self._turn:
            self.thread = threading.get_ident()
            try:
                said, outputs = self._answer(inputs, output_names)
            finally:
                self.thread = 0
        if "error" in said:
            detail = RuntimeError(said.get("detail", ""))
            raise BackendError(f"{self._launch.source.framework}: {said['error']}") from detail
        return [outputs[name] for name in output_names]

    def kill(self) -> None:
        """Ends the child at once, whatever it does; a run under way fails."""
        if (child := self._child) is not None:
            child.kill()

    def close(self) -> None:
        """Ends the child for good."""
        self._is_closed = True
        self.kill()
        with self._turn:
            self._bury()

    @property
    def process_id(self) -> int | None:
        """Of the child that is there now."""
        child = self._child
        return None if child is None or child.ended.is_set() else child.pid

    # -- the rest has the turn -----------------------------------------------------------------

    def _answer(
        self, inputs: Mapping[str, Array], output_names: Sequence[str]
    ) -> tuple[dict[str, str], dict[str, Array]]:
        """The answer of the child, or of the next one where that had died before it was asked."""
        try:
            return self._exchange(self._living(), inputs, output_names)
        except ConnectionError:
            logger.info("the process of '%s' had ended before it was asked", self._name)
        try:
            return self._exchange(self._living(), inputs, output_names)
        except ConnectionError as error:
            raise BackendLost(f"the process of '{self._name}' ends as soon as it starts") from error

    def _exchange(
        self, child: "_Child", inputs: Mapping[str, Array], output_names: Sequence[str]
    ) -> tuple[dict[str, str], dict[str, Array]]:
        """One question and its answer.

        Raises:
            BackendLost: the child ended when it had read the question.
            ConnectionError: it ended before that.
        """
        try:
            child.channel.send({"outputs": list(output_names)}, inputs)
            said, outputs = child.channel.receive(copy=True)
        except (EOFError, OSError, ChannelError) as error:
            child.kill()
            child.ended.wait(_END_S)
            if isinstance(error, ConnectionError):  # the kernel's word for what nobody read
                raise
            raise BackendLost(
                f"{self._launch.source.framework}: the process of '{self._name}' ended during this"
                f" run ({child.how_it_ended()}); a new one is being started"
            ) from error
        except BaseException:  # memory ran out: the rest of a message may still be on its way
            child.kill()
            raise
        self._deaths = 0
        return said, outputs

    def _living(self) -> "_Child":
        """The child, or a new one in place of one that died."""
        if self._child is not None and not self._child.ended.is_set() and not self._is_closed:
            return self._child
        self._bury()
        if self._is_closed:
            raise BackendLost(f"'{self._name}' is being closed")
        if (wait_s := self._not_before - time.monotonic()) > 0:
            raise ModelNotReady(
                f"the process of '{self._name}' ended {self._deaths} times in a row; it is started"
                f" again in {wait_s:.0f} s"
            )
        try:
            return self._start()
        except Exception as error:  # its own reason, or that no process can be started just now
            logger.error("'%s' is not started again: %s", self._name, error)
            self._bury()
            raise ModelNotReady(str(error)) from error

    def _start(self) -> "_Child":
        if _stamps(self._launch.source.path) != self._seen:
            raise LoadFailed(
                f"'{self._name}' has changed since it was loaded: load the version again"
            )
        child = self._child = _Child(self._launch, self._ended)
        if self._is_closed:
            child.kill()
        signature, self.memory_bytes = child.load()
        if self.signature.outputs and self.signature != signature:
            raise LoadFailed(f"'{self._name}' has another signature than when it was first loaded")
        self.signature = signature
        return child

    def _ended(self) -> None:
        """Replaces a child that died, on the thread that watched it: nobody waits for that."""
        with self._turn:
            if self._child is not None and not self._is_closed:
                with contextlib.suppress(ModelNotReady):
                    self._living()

    def _bury(self) -> None:
        """Lets go of a child that has ended or is to end; counts its death."""
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.ended.wait(_END_S)
        child.channel.close()
        if not self._is_closed:
            logger.warning("the process of '%s' ended (%s)", self._name, child.how_it_ended())
            self._deaths += 1
            pause_s = 0.0 if self._deaths < 2 else _PAUSE_S * 2 ** (self._deaths - 2)
            self._not_before = time.monotonic() + min(pause_s, _LONGEST_PAUSE_S)


class _Child:
    """One process from its start to its end. `kill` may be called on any thread."""

    def __init__(self, launch: Launch, on_end: Callable[[], None]) -> None:
        self.ended = threading.Event()
        self._launch, self._on_end = launch, on_end
        self._name = launch.source.path.name
        self._lock = threading.Lock()  # what has been waited for must not be signalled
        self._socket, theirs = socket.socketpair()
        self.channel = Channel(self._socket)
        life_end, self._life = os.pipe()
        try:
            with theirs:
                self._process = _spawn(launch, theirs.fileno(), life_end)
        except BaseException:
            self._socket.close()
            os.close(self._life)
            raise
        finally:
            os.close(life_end)
        self.pid = self._process.pid
        for work in (self._log, self._watch):
            threading.Thread(target=work, name=f"native-{self._name}", daemon=True).start()

    def load(self) -> tuple[Signature, int]:
        """Has the model loaded: its signature, and the memory the process then takes.

        Raises:
            LoadFailed: with the framework's reason.
        """
        source, samples = self._launch.source, self._launch.samples
        said = {
            "path": str(source.path.absolute()),
            "framework": source.framework,
            "samples": str(samples.absolute()) if samples else "",
        }
        self._socket.settimeout(START_S)
        try:
            self.channel.send(said, {})
            answer, _ = self.channel.receive(copy=True)
        except TimeoutError:
            self.kill()
            raise LoadFailed(
                f"'{self._name}': {source.framework} did not load it in {START_S:g} s"
            ) from None
        except (EOFError, OSError, ChannelError) as error:
            self.kill()
            self.ended.wait(_END_S)
            raise LoadFailed(
                f"'{self._name}': the process ended while {source.framework} loaded it"
                f" ({self.how_it_ended()}); the log has what it wrote"
            ) from error
        if "error" in answer:
            raise LoadFailed(f"'{self._name}': {answer['error']}")
        self._socket.settimeout(None)
        return Signature.from_json(answer["signature"]), answer["memory_bytes"]

    def kill(self) -> None:
        with self._lock:
            if not self.ended.is_set():
                self._signal_group()
        self._hang_up()

    def how_it_ended(self) -> str:
        code = self._process.returncode
        if code is None:
            return "it does not end"
        if code >= 0:
            return f"exit code {code}"
        hint = ": killed, perhaps for want of memory" if code == -signal.SIGKILL else ""
        return f"{signal.Signals(-code).name}{hint}"

    def _watch(self) -> None:
        """Waits for the end; takes what the process started along."""
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        with self._lock:
            self._signal_group()  # its number is taken as long as nobody has waited for it
            self._process.wait()
            self.ended.set()
        os.close(self._life)
        self._hang_up()
        self._on_end()

    def _log(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                logger.info("'%s' (process %d): %s", self._name, self.pid, line.rstrip())

    def _signal_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def _hang_up(self) -> None:
        """Whoever waits for an answer need not wait any longer."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)


def _spawn(launch: Launch, descriptor: int, life_end: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "optimizer.native_child"]
    return subprocess.Popen(
        [*command, str(descriptor), str(life_end), launch.loader],
        env=_environment(launch),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,  # stdout of this process has a meaning
        stderr=subprocess.STDOUT,
        pass_fds=(descriptor, life_end),
        start_new_session=True,
        text=True,
        errors="replace",
    )


def _environment(launch: Launch) -> dict[str, str]:
    root = str(Path(optimizer.__file__).parent.parent)
    found = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        **dict.fromkeys(_THREADS, str(launch.threads)),
        # Nothing said: OpenMP's threads spin for about a millisecond before they sleep. ("ACTIVE"
        # would have them spin for minutes, between runs too.)
        **({} if launch.spins else {"OMP_WAIT_POLICY": "PASSIVE"}),
        "PYTHONPATH": f"{root}{os.pathsep}{found}" if found else root,
        "PYTHONFAULTHANDLER": "1",
        "PYTHONUNBUFFERED": "1",
    }


def _stamps(path: Path) -> list[tuple[str, int, int, int]]:
    """What changes when a file, or one in a folder, is replaced."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    try:
        stats = [(str(file), file.stat()) for file in files]
    except OSError as error:
        raise LoadFailed(f"'{path}' cannot be read: {error.strerror}") from None
    return [(name, stat.st_size, stat.st_mtime_ns, stat.st_ino) for name, stat in stats]
