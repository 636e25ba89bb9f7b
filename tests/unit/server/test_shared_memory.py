"""Regions of shared memory: registering, bounds, and how long a mapping lives."""

import mmap
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from server.errors import AlreadyExists, Code, InvalidRequest, ServeError
from server.shared_memory import RegionNotFound, SharedMemoryRegions

PAGE = mmap.ALLOCATIONGRANULARITY


@pytest.fixture
def segment() -> Iterator[Path]:
    """A segment of 2 pages and 64 bytes that counts up."""
    path = Path(f"/dev/shm/inflight-test-{uuid.uuid4().hex}")
    size = 2 * PAGE + 64
    path.write_bytes((np.arange(size) % 251).astype(np.uint8).tobytes())
    yield path
    path.unlink()


@pytest.fixture
def regions() -> SharedMemoryRegions:
    return SharedMemoryRegions()


def test_a_view_is_the_clients_memory(regions: SharedMemoryRegions, segment: Path) -> None:
    regions.register("r", f"/{segment.name}", 0, 64)
    view = regions.view("r", 8, 4)
    assert bytes(view) == bytes([8, 9, 10, 11])
    view[:] = b"abcd"
    assert segment.read_bytes()[8:12] == b"abcd"


@pytest.mark.parametrize("offset", [0, 1, PAGE, PAGE + 7])
def test_a_region_may_begin_anywhere(
    regions: SharedMemoryRegions, segment: Path, offset: int
) -> None:
    regions.register("r", segment.name, offset, 16)
    assert bytes(regions.view("r", 0, 16)) == segment.read_bytes()[offset : offset + 16]


def test_a_taken_name_is_refused_until_it_is_unregistered(
    regions: SharedMemoryRegions, segment: Path
) -> None:
    regions.register("r", segment.name, 0, 16)
    with pytest.raises(AlreadyExists, match="shared memory region 'r' already in manager"):
        regions.register("r", segment.name, 0, 32)
    regions.unregister("r")
    regions.register("r", segment.name, 0, 32)
    assert [region.byte_size for region in regions.status("r")] == [32]


@pytest.mark.parametrize(
    ("offset", "byte_size"),
    [(0, 2 * PAGE + 65), (2 * PAGE + 64, 1), (2**63, 2**63), (0, 0)],
    ids=["too long", "behind the end", "huge", "empty"],
)
def test_a_region_outside_its_segment_is_refused(
    regions: SharedMemoryRegions, segment: Path, offset: int, byte_size: int
) -> None:
    with pytest.raises(InvalidRequest, match="failed to register shared memory region 'r'"):
        regions.register("r", segment.name, offset, byte_size)
    assert regions.status() == []


@pytest.mark.parametrize(
    "key",
    ["", "/", "..", "/..", ".", "../etc/passwd", "/a/b", "//x", "a\0b", "x" * 300],
)
def test_a_key_that_is_no_segment_name_is_refused(regions: SharedMemoryRegions, key: str) -> None:
    with pytest.raises(InvalidRequest, match="must be the name of a segment"):
        regions.register("r", key, 0, 1)


def test_a_missing_segment_has_tritons_text(regions: SharedMemoryRegions) -> None:
    with pytest.raises(ServeError, match="Unable to open shared memory region: '/nobody'") as error:
        regions.register("r", "/nobody", 0, 1)
    assert error.value.code == Code.INTERNAL


def test_a_symbolic_link_is_not_followed(
    regions: SharedMemoryRegions, segment: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    link = segment.with_name(segment.name + "-link")
    link.symlink_to(secret)
    try:
        with pytest.raises(ServeError, match="Unable to open"):
            regions.register("r", link.name, 0, 6)
    finally:
        link.unlink()


def test_what_is_no_file_is_refused(regions: SharedMemoryRegions, segment: Path) -> None:
    pipe = segment.with_name(segment.name + "-pipe")
    os.mkfifo(pipe)
    try:
        with pytest.raises(ServeError, match="Invalid shared memory region"):
            regions.register("r", pipe.name, 0, 1)
    finally:
        pipe.unlink()


@pytest.mark.parametrize(
    ("offset", "byte_size", "text"),
    [
        (64, 0, "Invalid offset for shared memory region: 'r'"),
        (-1, 4, "Invalid offset for shared memory region: 'r'"),
        (60, 5, r"Invalid offset \+ byte size for shared memory region: 'r'"),
        (0, -1, r"Invalid offset \+ byte size for shared memory region: 'r'"),
    ],
)
def test_a_view_outside_its_region_is_refused(
    regions: SharedMemoryRegions, segment: Path, offset: int, byte_size: int, text: str
) -> None:
    regions.register("r", segment.name, 0, 64)
    with pytest.raises(InvalidRequest, match=text):
        regions.view("r", offset, byte_size)


def test_a_truncated_segment_is_refused_and_not_touched(
    regions: SharedMemoryRegions, segment: Path
) -> None:
    regions.register("r", segment.name, PAGE, 16)
    os.truncate(segment, PAGE + 8)
    with pytest.raises(InvalidRequest, match="has been truncated, register it anew"):
        regions.view("r", 0, 4)


def test_unknown_names(regions: SharedMemoryRegions) -> None:
    with pytest.raises(RegionNotFound, match="Unable to find shared memory region: 'r'"):
        regions.view("r", 0, 1)
    with pytest.raises(RegionNotFound, match="Unable to find system shared memory region: 'r'"):
        regions.status("r")
    regions.unregister("r")


def test_an_array_outlives_its_region_and_its_name(
    regions: SharedMemoryRegions, segment: Path
) -> None:
    regions.register("r", segment.name, PAGE, 16)
    array = np.frombuffer(regions.view("r", 0, 16), np.uint8)
    expected = segment.read_bytes()[PAGE : PAGE + 16]
    regions.unregister_all()
    regions.register("r", segment.name, 0, 8)
    assert array.tobytes() == expected


def test_memory_is_unmapped_with_the_last_view(regions: SharedMemoryRegions, segment: Path) -> None:
    def is_mapped() -> bool:
        return segment.name in Path("/proc/self/maps").read_text()

    regions.register("r", segment.name, 0, 16)
    array = np.frombuffer(regions.view("r", 0, 16), np.uint8)
    regions.unregister("r")
    assert is_mapped()
    del array
    assert not is_mapped()
