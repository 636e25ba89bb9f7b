"""Processes that use an artifact store and come to harm, for its tests."""

import contextlib
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from optimizer.artifact import Artifact
from optimizer.errors import OptimizationError
from optimizer.store import ArtifactStore, key_of

PARTS = {"source": "abc", "onnxruntime": "1.30.0", "step": "int8_static"}


def artifact(folder: str) -> Artifact:
    return Artifact(Path(folder), "model.onnx", "onnxruntime", "int8")


def put_half(root: str, folder: str) -> None:
    def copy(source: Path, target: Path) -> None:
        with target.open("wb") as file:
            file.write(source.read_bytes()[: source.stat().st_size // 2])
        print("half", flush=True)
        sys.stdin.read()

    ArtifactStore(Path(root), copy=copy).put(Path(folder), artifact(folder), PARTS)


def put_killed(root: str, folder: str) -> None:
    """Prints after each death what is there: "nothing" or the artifact "whole"; then "done"."""
    for number in range(1000):
        if not _is_killed(number, root, folder):
            print("done", flush=True)
            return
        store = ArtifactStore(Path(root))
        assert not list((Path(root) / "staging").iterdir())
        found = store.find(key_of(PARTS))
        assert found is None or found.path.read_bytes() == (Path(folder) / found.file).read_bytes()
        print("whole" if found else "nothing", flush=True)
        shutil.rmtree(root)


def _is_killed(number: int, root: str, folder: str) -> bool:
    pid = os.fork()
    if pid == 0:
        store = ArtifactStore(Path(root))
        _kill_before_operation(number)
        store.put(Path(folder), artifact(folder), PARTS)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def _kill_before_operation(number: int) -> None:
    left = number

    def mortal(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return function(*arguments, **named)

        return call

    for name in ("open", "fsync", "rename", "replace", "mkdir", "unlink", "utime", "chmod"):
        setattr(os, name, mortal(getattr(os, name)))


def put_too_large(root: str, folder: str) -> None:
    store = ArtifactStore(Path(root))
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
    try:
        store.put(Path(folder), artifact(folder), PARTS)
    except OptimizationError as error:
        print(error)


def put_and_collect(root: str, limit: str, *folders: str) -> None:
    store = ArtifactStore(Path(root), int(limit))
    for turn in range(20):
        folder = folders[turn % len(folders)]
        parts = PARTS | {"step": folder}
        kept = store.put(Path(folder), artifact(folder), parts)
        with store.hold(kept.artifact_id) as is_there:
            if is_there:
                assert kept.path.read_bytes() == (Path(folder) / kept.file).read_bytes()
        with contextlib.suppress(OptimizationError):
            store.find(key_of(parts))


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
