"""Tells whether files changed, without reading them.

A fingerprint is unequal when a file was added, removed, renamed, rewritten or replaced. Hidden
files and those ending in "~" do not count: editors and file managers leave them beside the real
ones. Links are followed, so a link that is moved to another target is a change.
"""

import os
from collections.abc import Iterator
from pathlib import Path

FilePrint = tuple[str, int, int, int]
"""Path, size, time of change (ns) and inode of one file."""
Fingerprint = tuple[FilePrint, ...]
"""Of all files, by path."""

_MAX_DEPTH = 8  # a link to a folder above itself would have no end


def fingerprint_of(folder: Path) -> Fingerprint:
    """Of all files below a folder."""
    return tuple(sorted(_files(str(folder), _MAX_DEPTH)))


def fingerprint_of_file(path: Path) -> Fingerprint:
    """Of a file and those beside it whose names start with its own (external data)."""
    with os.scandir(path.parent) as entries:
        files = [entry for entry in entries if entry.name.startswith(path.name)]
    return tuple(sorted(_file(entry) for entry in files if entry.is_file()))


def is_unchanged(file: FilePrint) -> bool:
    """Whether a file still is the one that was seen."""
    path, *seen = file
    try:
        status = os.stat(path)
    except OSError:
        return seen[0] == -1
    return [status.st_size, status.st_mtime_ns, status.st_ino] == seen


def _files(folder: str, depth: int) -> Iterator[FilePrint]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name.endswith("~"):
                continue
            if not entry.is_dir():
                yield _file(entry)
            elif depth:
                yield from _files(entry.path, depth - 1)


def _file(entry: os.DirEntry[str]) -> FilePrint:
    try:
        status = entry.stat()
    except OSError:  # a link to nothing, or removed since the folder was read
        return entry.path, -1, 0, 0
    return entry.path, status.st_size, status.st_mtime_ns, status.st_ino
