import os
from collections.abc import Callable
from pathlib import Path

import pytest

from server.fingerprint import fingerprint_of, fingerprint_of_file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "model.onnx").write_text("old")
    (tmp_path / "labels.txt").write_text("a")
    return tmp_path


def rewrite(folder: Path) -> None:
    (folder / "1" / "model.onnx").write_text("longer")


def touch(folder: Path) -> None:
    os.utime(folder / "labels.txt", ns=(1, 1))


def add(folder: Path) -> None:
    (folder / "1" / "model.onnx.data").touch()


def remove(folder: Path) -> None:
    (folder / "labels.txt").unlink()


def replace_keeping_times(folder: Path) -> None:
    path = folder / "1" / "model.onnx"
    times = path.stat()
    (folder / "new").write_text("new")
    os.utime(folder / "new", ns=(times.st_atime_ns, times.st_mtime_ns))
    (folder / "new").rename(path)


@pytest.mark.parametrize("change", [rewrite, touch, add, remove, replace_keeping_times])
def test_a_change_shows(folder: Path, change: Callable[[Path], None]) -> None:
    before = fingerprint_of(folder)
    assert fingerprint_of(folder) == before
    change(folder)
    assert fingerprint_of(folder) != before


def test_what_editors_leave_behind_is_no_change(folder: Path) -> None:
    before = fingerprint_of(folder)
    (folder / ".labels.txt.swp").touch()
    (folder / "1" / "model.onnx~").touch()
    assert fingerprint_of(folder) == before


def test_a_link_to_another_target_is_a_change(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("same")
    (tmp_path / "b").write_text("same")
    link = folder / "1" / "link.onnx"
    link.symlink_to(tmp_path / "a")
    before = fingerprint_of(folder)
    link.unlink()
    link.symlink_to(tmp_path / "b")
    assert fingerprint_of(folder) != before


def test_links_in_a_circle_or_to_nothing_do_no_harm(folder: Path) -> None:
    (folder / "self").symlink_to(folder)
    (folder / "nothing").symlink_to(folder / "gone")
    assert fingerprint_of(folder) == fingerprint_of(folder)


def test_external_data_belongs_to_its_file(tmp_path: Path) -> None:
    model = tmp_path / "net.onnx"
    model.touch()
    before = fingerprint_of_file(model)
    (tmp_path / "other.onnx").touch()
    assert fingerprint_of_file(model) == before
    (tmp_path / "net.onnx.data").touch()
    assert fingerprint_of_file(model) != before
