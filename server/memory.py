"""Does a model fit? What is available to this process, and what a model is expected to take."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server.errors import LoadFailed

FACTOR = 2.5
"""Resident memory of one CPU session, relative to its model's files.

Measured with ONNX Runtime 1.31: float32 MatMul and Gather 1.1, FP16 MatMul 2.3 (widened to FP32),
convolutions 2.4 (weights are kept in two layouts). Folding of constants cannot be foreseen.
"""
_MIB = 2**20


class MemoryGate:
    """Admits loads that fit. Shared by all loader threads, hence the lock."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._reserved = 0  # admitted, but maybe not yet allocated

    @contextmanager
    def admit(self, what: str, size_bytes: int) -> Iterator[None]:
        """Reserves room for one session of a model of this size while it is being opened.

        Raises:
            LoadFailed: with what it needs and what is available.
        """
        need = int(size_bytes * FACTOR)
        with self._lock:
            available = available_bytes(self._root)
            if available is not None and need > available - self._reserved:
                raise LoadFailed(_refusal(what, size_bytes, need, available - self._reserved))
            self._reserved += need
        try:
            yield
        finally:
            with self._lock:
                self._reserved -= need


def _refusal(what: str, size_bytes: int, need: int, available: int) -> str:
    return (
        f"{what} needs about {need // _MIB} MiB of memory ({FACTOR:g} times its"
        f" {size_bytes / _MIB:.1f} MiB), {max(0, available) // _MIB} MiB are available: unload a"
        " model, or raise the memory limit of this machine or container"
    )


def available_bytes(root: Path = Path("/")) -> int | None:
    """Memory this process may still take: the machine's, or less where a cgroup says so.

    Page cache that can be dropped counts as available. None where nothing tells.

    Source: proc(5), Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst of Linux.
    """
    known = [amount for amount in (_machine(root), *_cgroups(root)) if amount is not None]
    return min(known, default=None)


def _machine(root: Path) -> int | None:
    for line in _lines(root / "proc/meminfo"):
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return None


def _cgroups(root: Path) -> Iterator[int | None]:
    """What each memory cgroup above this process leaves."""
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if not controllers:
            top, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            top = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        folder = top / path.lstrip("/")
        # In a container the path is often the host's, and only the top is mounted.
        for level in {top, *(f for f in (folder, *folder.parents) if f.is_relative_to(top))}:
            yield _cgroup(level, *names)


def _cgroup(folder: Path, limit: str, usage: str, inactive: str) -> int | None:
    limits, used = _lines(folder / limit), _lines(folder / usage)
    if not limits or not used or not limits[0].isdecimal():
        return None  # no such cgroup, or "max": unlimited
    stat = dict(line.split(maxsplit=1) for line in _lines(folder / "memory.stat"))
    return int(limits[0]) - int(used[0]) + int(stat.get(inactive, 0))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
