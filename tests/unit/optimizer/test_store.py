import errno
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from optimizer.artifact import Artifact, read_artifact
from optimizer.errors import OptimizationError
from optimizer.store import ArtifactStore, key_of
from optimizer.store_records import Record, removal_order

PARTS = {"source": "abc", "onnxruntime": "1.30.0", "step": "int8_static"}
SIZE = 1000


def parts(number: int) -> dict[str, str]:
    return PARTS | {"step": str(number)}


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


@pytest.fixture
def make(tmp_path: Path) -> Callable[[int], Artifact]:
    """Makes an artifact of `SIZE` bytes whose content is a number's."""

    def made(number: int) -> Artifact:
        folder = tmp_path / "made" / str(number)
        (folder / "external").mkdir(parents=True, exist_ok=True)
        (folder / "model.onnx").write_bytes(bytes([number]) * (SIZE - 1))
        (folder / "external" / "weights").write_bytes(b"w")
        options = {"graph_level": "all"}
        return Artifact(folder, "model.onnx", "onnxruntime", "int8", ("int8_static",), options)

    return made


def put(store: ArtifactStore, artifact: Artifact, number: int) -> Artifact:
    return store.put(artifact.folder, artifact, parts(number))


def leftovers(store: ArtifactStore) -> list[Path]:
    return list((store.root / "staging").iterdir())


def damage(file: Path, content: bytes) -> None:
    file.chmod(0o644)
    file.write_bytes(content)


def test_what_is_put_is_found_by_any_later_store(
    store: ArtifactStore, make: Callable[[int], Artifact]
) -> None:
    made = make(1)
    kept = put(store, made, 1)
    assert kept.path.read_bytes() == made.path.read_bytes()
    assert kept.size_bytes == SIZE
    assert kept.artifact_id.startswith("int8-")
    assert kept == replace(made, folder=kept.folder, artifact_id=kept.artifact_id)
    assert ArtifactStore(store.root).find(key_of(parts(1))) == read_artifact(kept.folder)
    assert store.find(key_of(parts(2))) is None
    assert not leftovers(store)


def test_artifacts_cannot_be_written_to(
    store: ArtifactStore, make: Callable[[int], Artifact]
) -> None:
    kept = put(store, make(1), 1)
    files = [path for path in kept.folder.rglob("*") if path.is_file()]
    assert len(files) == 3
    assert {path.stat().st_mode & 0o777 for path in files} == {0o444}


def test_what_was_in_the_store_can_be_put_again(
    store: ArtifactStore, make: Callable[[int], Artifact]
) -> None:
    kept = put(store, make(1), 1)
    assert put(store, kept, 2).folder == kept.folder


def test_same_content_is_kept_once(store: ArtifactStore, make: Callable[[int], Artifact]) -> None:
    first, second = put(store, make(1), 1), put(store, make(1), 2)
    assert first.folder == second.folder
    assert store.size_bytes() == SIZE
    other = replace(make(1), options={"graph_level": "basic"})
    assert put(store, other, 3).artifact_id != first.artifact_id


def test_a_key_means_what_was_put_last(
    store: ArtifactStore, make: Callable[[int], Artifact]
) -> None:
    put(store, make(1), 1)
    second = put(store, make(2), 1)
    assert store.find(key_of(parts(1))) == read_artifact(second.folder)


def test_artifact_without_its_file_is_refused(
    store: ArtifactStore, make: Callable[[int], Artifact]
) -> None:
    artifact = replace(make(1), file="model.xml")
    with pytest.raises(OptimizationError, match=r"holds no 'model\.xml'"):
        put(store, artifact, 1)


def test_key_depends_on_names_and_values_only() -> None:
    assert key_of({"a": "1", "b": "2"}) == key_of({"b": "2", "a": "1"})
    assert key_of({"a": "1", "b": "2"}) != key_of({"a": "2", "b": "1"})
    assert key_of({"a": "1=b"}) != key_of({"a=1": "b"})
    assert ArtifactStore.key_of(PARTS) == key_of(PARTS)


def test_a_miss_names_what_changed(store: ArtifactStore, make: Callable[[int], Artifact]) -> None:
    assert store.explain_miss(PARTS) == "nothing of this kind was stored before"
    artifact = make(1)
    store.put(artifact.folder, artifact, PARTS)
    store.put(artifact.folder, artifact, PARTS | {"onnxruntime": "1.29.0", "source": "xyz"})
    assert store.explain_miss(PARTS | {"onnxruntime": "1.31.0"}) == (
        "onnxruntime was '1.30.0' and is '1.31.0'"
    )
    assert store.explain_miss({"goal": "latency"}) == "nothing of this kind was stored before"
    store.remember_winner("key", None, "{}", parts={"goal": "throughput"})
    assert store.explain_miss({"goal": "latency"}) == "goal was 'throughput' and is 'latency'"


def _flip(folder: Path) -> None:
    damage(folder / "model.onnx", b"\xff" * (SIZE - 1))


def _lose_file(folder: Path) -> None:
    (folder / "external" / "weights").unlink()


def _lose_folder(folder: Path) -> None:
    shutil.rmtree(folder)


def _add(folder: Path) -> None:
    (folder / "other").write_bytes(b"x")


def _lose_manifest(folder: Path) -> None:
    damage(folder / "artifact.json", b"{")


@pytest.mark.parametrize("spoil", [_flip, _lose_file, _lose_folder, _add, _lose_manifest])
@pytest.mark.parametrize("is_known", [True, False])
def test_damaged_artifacts_are_dropped(
    store: ArtifactStore,
    make: Callable[[int], Artifact],
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[Path], None],
    is_known: bool,
) -> None:
    kept = put(store, make(1), 1)
    if is_known:
        assert store.find(key_of(parts(1)))
    spoil(kept.folder)
    assert store.find(key_of(parts(1))) is None
    assert f"dropped {kept.artifact_id}" in caplog.text
    assert not kept.folder.exists()
    assert put(store, make(1), 1) == kept
    assert store.find(key_of(parts(1)))


def test_damaged_content_is_replaced_by_a_new_put(
    store: ArtifactStore, make: Callable[[int], Artifact]
) -> None:
    kept = put(store, make(1), 1)
    with store.hold(kept.artifact_id):
        _flip(kept.folder)
        assert put(store, make(1), 2) == kept
    assert store.find(key_of(parts(1)))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 2}', b'{"version": 1}'])
def test_damaged_records_are_dropped(
    store: ArtifactStore,
    make: Callable[[int], Artifact],
    caplog: pytest.LogCaptureFixture,
    content: bytes,
) -> None:
    put(store, make(1), 1)
    store.remember_winner("key", None, "{}")
    damage(store.root / "entries" / f"{key_of(parts(1))}.json", content)
    damage(store.root / "winners" / "key.json", content)
    assert store.find(key_of(parts(1))) is None
    assert store.winner("key") is None
    assert caplog.text.count("is dropped, it is damaged") == 2
    ArtifactStore(store.root)
    assert not list((store.root / "artifacts").iterdir())


def test_winners_are_remembered(store: ArtifactStore, make: Callable[[int], Artifact]) -> None:
    kept = put(store, make(1), 1)
    store.remember_winner("best", kept.artifact_id, '{"status": "completed"}')
    store.remember_winner("none", None, '{"status": "rejected"}')
    again = ArtifactStore(store.root)
    artifact, report = again.winner("best") or (None, "")
    assert artifact == read_artifact(kept.folder)
    assert report == '{"status": "completed"}'
    assert again.winner("none") == (None, '{"status": "rejected"}')
    assert again.winner("other") is None


def test_a_winner_without_its_artifact_is_none(
    store: ArtifactStore, make: Callable[[int], Artifact]
) -> None:
    kept = put(store, make(1), 1)
    store.remember_winner("best", kept.artifact_id, "{}")
    _flip(kept.folder)
    assert store.winner("best") is None
    assert put(store, make(1), 1) == kept
    assert store.winner("best") is None


# Collection


def ids(store: ArtifactStore) -> set[str]:
    return {path.name for path in (store.root / "artifacts").iterdir()}


def test_least_recently_used_goes_first(
    tmp_path: Path, make: Callable[[int], Artifact], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    store = ArtifactStore(tmp_path / "store", limit_bytes=3 * SIZE)
    kept = [put(store, make(number), number) for number in range(3)]
    assert store.find(key_of(parts(0)))
    new = put(store, make(3), 3)
    assert ids(store) == {kept[0].artifact_id, kept[2].artifact_id, new.artifact_id}
    assert f"removed to keep the limit: {kept[1].artifact_id}" in caplog.text
    assert store.find(key_of(parts(1))) is None
    assert not leftovers(store)


def test_without_a_limit_all_stays(store: ArtifactStore, make: Callable[[int], Artifact]) -> None:
    put(store, make(1), 1)
    assert store.collect() == []


def test_new_artifact_above_the_limit_stays(
    tmp_path: Path, make: Callable[[int], Artifact], caplog: pytest.LogCaptureFixture
) -> None:
    store = ArtifactStore(tmp_path / "store", limit_bytes=SIZE // 2)
    assert put(store, make(1), 1).path.is_file()
    assert "500 bytes over its limit are all in use" in caplog.text
    assert len(store.collect()) == 1


def test_held_artifacts_stay(tmp_path: Path, make: Callable[[int], Artifact]) -> None:
    unlimited = ArtifactStore(tmp_path / "store")
    first, second = put(unlimited, make(1), 1), put(unlimited, make(2), 2)
    store = ArtifactStore(tmp_path / "store", limit_bytes=1)
    with unlimited.hold(first.artifact_id) as is_there:
        assert is_there
        assert store.collect() == [second.artifact_id]
        assert store.find(key_of(parts(1)))
    assert store.collect() == [first.artifact_id]
    with unlimited.hold(first.artifact_id) as is_there:
        assert not is_there


def test_held_orphans_stay_until_they_are_released(
    store: ArtifactStore, make: Callable[[int], Artifact]
) -> None:
    kept = put(store, make(1), 1)
    (store.root / "entries" / f"{key_of(parts(1))}.json").unlink()
    with store.hold(kept.artifact_id):
        ArtifactStore(store.root)
        assert kept.path.is_file()
    ArtifactStore(store.root)
    assert not kept.folder.exists()


def test_winners_go_after_all_others(tmp_path: Path, make: Callable[[int], Artifact]) -> None:
    unlimited = ArtifactStore(tmp_path / "store")
    kept = [put(unlimited, make(number), number) for number in range(3)]
    for number in (1, 0):
        unlimited.remember_winner(str(number), kept[number].artifact_id, "{}")
    with (store := ArtifactStore(tmp_path / "store", limit_bytes=1)).hold(kept[0].artifact_id):
        assert store.collect() == [kept[2].artifact_id, kept[1].artifact_id]
    assert store.winner("0") is not None
    assert store.winner("1") is None


def test_removal_order() -> None:
    def record(artifact_id: str, used_at_ns: int) -> Record:
        return Record({}, artifact_id, used_at_ns=used_at_ns)

    entries = [record("a", 5), record("b", 1), record("a", 2), record("c", 3), record("d", 4)]
    winners = [record("b", 2), record("c", 6), record("d", 7), record("", 8)]
    assert removal_order(entries, winners) == ["a", "b", "c", "d"]


# Faults


def full_disk(source: Path, target: Path) -> None:
    target.write_bytes(source.read_bytes()[:10])
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_full_disk_leaves_nothing(tmp_path: Path, make: Callable[[int], Artifact]) -> None:
    store = ArtifactStore(tmp_path / "store", copy=full_disk)
    with pytest.raises(OptimizationError, match="No space left on device"):
        put(store, make(1), 1)
    assert store.find(key_of(parts(1))) is None
    assert not leftovers(store)
    assert not ids(store)


def test_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OptimizationError, match=r"file/store' cannot be written to"):
        ArtifactStore(tmp_path / "file" / "store")


def test_a_store_that_was_removed_is_begun_anew(
    store: ArtifactStore, make: Callable[[int], Artifact]
) -> None:
    artifact_id = put(store, make(1), 1).artifact_id
    subprocess.check_call(["rm", "-rf", store.root])
    assert store.find(key_of(parts(1))) is None
    assert store.get(artifact_id) is None
    assert store.winner("key") is None
    assert put(store, make(1), 1).path.is_file()
    assert store.find(key_of(parts(1))) is not None
    assert not leftovers(store)


def run_helper(*arguments: object) -> "subprocess.Popen[bytes]":
    module = "tests.unit.optimizer.store_faults"
    return subprocess.Popen(
        [sys.executable, "-m", module, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def test_killed_in_the_middle_of_a_copy(
    store: ArtifactStore, make: Callable[[int], Artifact]
) -> None:
    with run_helper("put_half", store.root, make(1).folder) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"half\n"
        assert len(leftovers(store)) == 1
        ArtifactStore(store.root)  # does not take from one that lives
        assert len(leftovers(store)) == 1
        process.kill()
    assert store.find(key_of(PARTS)) is None
    assert not leftovers(ArtifactStore(store.root))
    assert not ids(store)


def test_killed_at_every_operation(store: ArtifactStore, make: Callable[[int], Artifact]) -> None:
    """Each run is killed one operation on files later, until one comes to its end."""
    with run_helper("put_killed", store.root, make(1).folder) as process:
        output, _ = process.communicate()
    ends = output.decode().split()
    assert ends[-1] == "done"
    assert set(ends[:-1]) == {"nothing", "whole"}
    assert len(ends) > 10


def test_file_size_limit(store: ArtifactStore, make: Callable[[int], Artifact]) -> None:
    with run_helper("put_too_large", store.root, make(1).folder) as process:
        output, _ = process.communicate()
    assert b"cannot be written to" in output
    assert b"File too large" in output
    assert not leftovers(store)
    assert store.find(key_of(PARTS)) is None


def test_many_processes_at_once(store: ArtifactStore, make: Callable[[int], Artifact]) -> None:
    folders = [make(number).folder for number in range(4)]
    processes = [run_helper("put_and_collect", store.root, 2 * SIZE, *folders) for _ in range(4)]
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    again = ArtifactStore(store.root, limit_bytes=2 * SIZE)
    again.collect()
    assert len(ids(again)) == 2
    assert not leftovers(again)
