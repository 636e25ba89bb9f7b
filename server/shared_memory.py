"""System shared memory that clients on this machine share with the server.

A client creates a POSIX segment, registers a part of it under a name, and then sends that name
instead of tensor data. Rules and texts are Triton's (system shared memory extension).

Lifetime: a name and its mapping live apart. Views keep the mapping alive (an array that was read
from a region holds its `mmap`), so a region may be unregistered, and its name used anew, while
requests on it are in flight; the memory is unmapped when the last view is gone.

A client that truncates a segment takes the memory from under the server: touching it then ends
the process. So each view checks the segment's size first, which catches a segment that was made
anew, smaller, under its old key. Against one truncated while a request runs there is no defence.
"""

import mmap
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from server.errors import AlreadyExists, Code, InvalidRequest, ServeError

_SEGMENTS = Path("/dev/shm")  # where Linux keeps POSIX shared memory
_KEY = re.compile(r"/?(?!\.{1,2}$)[^/\x00]{1,255}")  # one file name: no path leads elsewhere


class RegionNotFound(ServeError):
    """No region is registered under that name."""

    code: ClassVar[Code] = Code.NOT_FOUND


@dataclass(frozen=True, slots=True)
class Region:
    """A registered part of a segment."""

    name: str
    key: str
    offset: int  # bytes from the segment's start
    byte_size: int
    mapping: mmap.mmap  # of the pages that hold the part; the part is at its end

    @property
    def memory(self) -> memoryview:
        """The part itself, writable."""
        return memoryview(self.mapping)[len(self.mapping) - self.byte_size :]

    @property
    def is_whole(self) -> bool:
        """The segment still has all the bytes it had when it was registered."""
        return self.mapping.size() >= self.offset + self.byte_size


class SharedMemoryRegions:
    """The regions registered by name. Event loop only; registering maps, it reads nothing."""

    def __init__(self) -> None:
        self._regions: dict[str, Region] = {}

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Maps `byte_size` bytes at `offset` of the segment `key` and names them.

        Raises:
            AlreadyExists: the name is taken; unregister it first.
            InvalidRequest: the key is no segment name, or the segment has no such bytes.
            ServeError: the segment cannot be opened.
        """
        if name in self._regions:
            raise AlreadyExists(f"shared memory region '{name}' already in manager")
        if not _KEY.fullmatch(key):
            raise InvalidRequest(
                f"failed to register shared memory region '{name}': key '{key}' must be the name"
                " of a segment, without '/' after its first character"
            )
        mapping = _map(name, key, offset, byte_size)
        self._regions[name] = Region(name, key, offset, byte_size, mapping)

    def unregister(self, name: str) -> None:
        """Forgets one name. An unknown name is no error, as in Triton."""
        self._regions.pop(name, None)

    def unregister_all(self) -> None:
        self._regions.clear()

    def status(self, name: str = "") -> list[Region]:
        """The region of that name, or all if it is empty.

        Raises:
            RegionNotFound: no such region.
        """
        if not name:
            return list(self._regions.values())
        if name not in self._regions:
            raise RegionNotFound(f"Unable to find system shared memory region: '{name}'")
        return [self._regions[name]]

    def view(self, name: str, offset: int, byte_size: int) -> memoryview:
        """`byte_size` bytes of a region from `offset` on, without copying.

        Raises:
            RegionNotFound: no such region.
            InvalidRequest: the bytes are not all within the region, or its segment has shrunk.
        """
        region = self._regions.get(name)
        if region is None:
            raise RegionNotFound(f"Unable to find shared memory region: '{name}'")
        if not 0 <= offset < region.byte_size:
            raise InvalidRequest(f"Invalid offset for shared memory region: '{name}'")
        if not 0 <= byte_size <= region.byte_size - offset:
            raise InvalidRequest(f"Invalid offset + byte size for shared memory region: '{name}'")
        if not region.is_whole:
            raise InvalidRequest(
                f"shared memory region '{name}': its segment '{region.key}' has been truncated,"
                " register it anew"
            )
        return region.memory[offset : offset + byte_size]


def _map(name: str, key: str, offset: int, byte_size: int) -> mmap.mmap:
    descriptor = _open(key)
    try:
        size = _segment_size(key, descriptor)
        if byte_size == 0 or offset + byte_size > size:
            raise InvalidRequest(f"failed to register shared memory region '{name}': invalid args")
        skipped = offset % mmap.ALLOCATIONGRANULARITY  # mappings start at page boundaries
        return mmap.mmap(descriptor, byte_size + skipped, offset=offset - skipped)
    finally:
        os.close(descriptor)


def _open(key: str) -> int:
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        return os.open(_SEGMENTS / key.removeprefix("/"), flags)
    except OSError:
        raise ServeError(f"Unable to open shared memory region: '{key}'") from None


def _segment_size(key: str, descriptor: int) -> int:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise ServeError(f"Invalid shared memory region: '{key}'")
    return status.st_size
