"""The allocator is asked in a process of its own: its settings cannot be taken back."""

import platform
import subprocess
import sys

import pytest

from server.allocator import return_free_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_glibc_accepts_every_limit() -> None:
    code = "from server.allocator import keep_large_blocks as keep; raise SystemExit(not keep())"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_free_memory_can_be_returned_at_any_time() -> None:
    return_free_memory()
