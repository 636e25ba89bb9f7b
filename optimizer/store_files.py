"""Files of the artifact store: written so that whatever happens, each is whole or not there."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

Copy = Callable[[Path, Path], object]
"""Copies a file's content to a new file."""


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a lock among all threads and processes; the kernel frees it when a process dies."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def hold(folder: Path, *, exclusive: bool = False) -> int | None:
    """A file descriptor that holds a folder until it is closed or the process ends.

    None where the folder is gone or, when `exclusive`, anybody holds it.
    """
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    kind = fcntl.LOCK_EX | fcntl.LOCK_NB if exclusive else fcntl.LOCK_SH
    try:
        fcntl.flock(fd, kind)
        if folder.stat().st_ino == os.fstat(fd).st_ino:
            return fd
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(fd)
    return None


def copy_tree(source: Path, target: Path, copy: Copy) -> None:
    """Copies all files of a folder, read-only and on the disk when it returns."""
    target.mkdir()
    for entry in sorted(source.iterdir()):
        copied = target / entry.name
        if entry.is_dir():
            copy_tree(entry, copied, copy)
        else:
            copy(entry, copied)
            seal(copied)
    sync(target)


def seal(file: Path) -> None:
    """Makes a file read-only, and has it on the disk."""
    file.chmod(0o444)
    sync(file)


def sync(path: Path) -> None:
    """Has a file's content, or a folder's list of names, written to the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of all files by their path in the folder, in order."""
    return {name: _digest(folder / name) for name in _names(folder)}


def state(folder: Path) -> list[tuple[str, int, int]]:
    """Changes when a file does, as far as can be seen without reading it."""
    stats = [(name, (folder / name).stat()) for name in _names(folder)]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]


def _names(folder: Path) -> list[str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in files)


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def write_json(path: Path, value: Mapping[str, Any], aside: Path) -> None:
    """Replaces a file by another, which is first written in the folder `aside`."""
    new = aside / f"{uuid.uuid4().hex}.json"
    try:
        new.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
        sync(new)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
    sync(path.parent)


def rename_new(source: Path, target: Path) -> bool:
    """Renames a folder; False where there is one of the name already."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            return False
        raise
    sync(target.parent)
    return True
