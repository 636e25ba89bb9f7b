"""The processes that a child process started: how much memory they use, and their end."""

import contextlib
import os
import signal
from collections.abc import Iterable
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_PROC = Path("/proc")


def memory_bytes(pid: int) -> int:
    """Memory of a process and its descendants, without pages of mapped files.

    The kernel takes those back when it needs them; a large model that is mapped is no danger.
    """
    return sum(_anonymous_bytes(member) for member in _descendants(pid))


def members(pid: int) -> set[int]:
    """A session's leader, whoever is in the session, and all descendants.

    Looks at every process of the machine: milliseconds.
    """
    parents: dict[int, int] = {}
    found = {pid}
    for entry in _PROC.iterdir():
        if entry.name.isdecimal() and (stat := _stat(int(entry.name))):
            parents[int(entry.name)] = stat[0]
            if stat[1] == pid:
                found.add(int(entry.name))
    while more := {one for one, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def send_signal(leader: int, pids: Iterable[int], number: signal.Signals) -> None:
    """Signals a leader's group and all of `pids`; those that are gone are left out.

    The leader has not been waited for, so its number cannot mean another process.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _descendants(pid: int) -> set[int]:
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += _children(one)
    return found


def _children(pid: int) -> list[int]:
    """Children of all threads; none where the process is gone or the kernel does not tell."""
    with contextlib.suppress(OSError):
        files = [task / "children" for task in (_PROC / str(pid) / "task").iterdir()]
        return [int(child) for file in files for child in file.read_text().split()]
    return []


def _anonymous_bytes(pid: int) -> int:
    with contextlib.suppress(OSError):
        _, resident, shared, *_ = (_PROC / str(pid) / "statm").read_text().split()
        return (int(resident) - int(shared)) * _PAGE
    return 0


def _stat(pid: int) -> tuple[int, int] | None:
    """Parent and session of a process."""
    with contextlib.suppress(OSError):
        # The name, in parentheses, may hold anything.
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        return int(fields[1]), int(fields[3])
    return None
