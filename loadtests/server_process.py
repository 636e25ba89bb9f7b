"""The real server in a process of its own, started and stopped by every load test here."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_READY = re.compile(
    r"inflight ready grpc=(?P<grpc>\S+) http=(?P<http>\S*) models=(?P<models>\d+) "
    r"failed=(?P<failed>\d+)"
)
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class ServerFailed(Exception):
    """The server did not start or did not stop as it should; carries the end of its log."""


@dataclass(slots=True)
class Process:
    """What the operating system says about a running process."""

    pid: int

    def cpu_s(self) -> float:
        """CPU seconds used so far, all threads, user and system."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S

    def memory_bytes(self) -> int:
        """Resident memory now."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024


@dataclass(slots=True)
class ServerProcess(Process):
    """A server that printed its ready line."""

    grpc: str  # host:port
    http: str
    models: int
    failed: int
    log: Path
    popen: "subprocess.Popen[str]"
    is_told: bool = False  # to stop; a second SIGTERM would end it without a drain

    def tell_to_stop(self) -> None:
        """SIGTERM, once."""
        if not self.is_told:
            self.is_told = True
            self.popen.send_signal(signal.SIGTERM)

    def stop(self, timeout_s: float = 60) -> None:
        """SIGTERM, then waits for the drain.

        Raises:
            ServerFailed: it did not end in time, or its exit code was not 0.
        """
        self.tell_to_stop()
        try:
            code = self.popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise ServerFailed(f"still running {timeout_s} s after SIGTERM") from None
        if code:
            raise ServerFailed(f"exit code {code}\n{_end_of(self.log)}")


@contextmanager
def serving(
    models: Path, *options: str, timeout_s: float = 300, environment: dict[str, str] | None = None
) -> Iterator[ServerProcess]:
    """Serves `models` on free ports while the block runs; stops it by SIGTERM at its end.

    Raises:
        ServerFailed: no ready line within `timeout_s`, or no clean end after the block.
    """
    with tempfile.TemporaryDirectory(prefix="inflight-server-") as folder:
        log = Path(folder, "stderr.log")
        popen = _start(models, options, log, environment or {}, Path(folder, "state"))
        try:
            server = _wait_until_ready(popen, log, timeout_s)
            yield server
            server.stop()
        finally:
            if popen.poll() is None:
                popen.kill()
            popen.wait()
            if popen.stdout:
                popen.stdout.close()


def _start(
    models: Path, options: tuple[str, ...], log: Path, environment: dict[str, str], state: Path
) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "server", "serve", str(models)]
    command += ["--grpc-port", "0", "--http-port", "0", "--state-dir", str(state)]
    command += ["--optimize", "off", *options]  # what is measured must not change meanwhile
    with log.open("w") as stderr:
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={**os.environ, **environment},
        )


def _wait_until_ready(popen: "subprocess.Popen[str]", log: Path, timeout_s: float) -> ServerProcess:
    killer = threading.Timer(timeout_s, popen.kill)
    killer.start()
    try:
        line = popen.stdout.readline() if popen.stdout else ""
    finally:
        killer.cancel()
        killer.join()
    ready = _READY.match(line)
    if not ready:
        raise ServerFailed(f"no ready line but {line!r}; its log ends:\n{_end_of(log)}")
    return ServerProcess(
        popen.pid,
        ready["grpc"],
        ready["http"],
        int(ready["models"]),
        int(ready["failed"]),
        log,
        popen,
    )


def _end_of(log: Path, lines: int = 20) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
