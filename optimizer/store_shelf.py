"""The folders of stored artifacts: how one comes to be there, is held, is checked, and goes."""

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping, Set
from dataclasses import replace
from pathlib import Path

from optimizer import store_files
from optimizer.artifact import MANIFEST, Artifact
from optimizer.errors import OptimizationError
from optimizer.store_files import Copy

logger = logging.getLogger(__name__)


class Shelf:
    """Artifacts by id in `folder`; in `staging`, what is being written or removed.

    Where "locked" is said, the caller holds the store's lock.
    """

    def __init__(self, folder: Path, staging: Path) -> None:
        self._folder = folder
        self._staging = staging
        self._intact: dict[str, list[tuple[str, int, int]]] = {}  # as it was checked, by id

    def path(self, artifact_id: str) -> Path:
        return self._folder / artifact_id

    @contextlib.contextmanager
    def stage(self) -> Iterator[Path]:
        """An empty folder that no process takes for a leftover. To be entered locked."""
        folder = self._staging / uuid.uuid4().hex
        folder.mkdir()
        with self._held(folder):
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def write(self, made: Path, artifact: Artifact, staged: Path, copy: Copy) -> Artifact:
        """Copies what was made into a staged folder, on to the disk, and names it by content."""
        content = staged / "content"
        store_files.copy_tree(made, content, copy)
        (content / MANIFEST).unlink(missing_ok=True)
        if not (content / artifact.file).exists():
            raise OptimizationError(f"'{made}' holds no '{artifact.file}', its artifact's file")
        name = _name(artifact, store_files.digests(content))
        written = replace(artifact, folder=content, artifact_id=name)
        written.write()
        store_files.seal(content / MANIFEST)
        store_files.sync(content)
        return written

    def place(self, written: Artifact) -> Artifact:
        """Puts a written artifact where it belongs. Locked."""
        target = self.path(written.artifact_id)
        is_new = store_files.rename_new(written.folder, target)
        if not is_new and store_files.digests(target) != store_files.digests(written.folder):
            self._discard(target)
            store_files.rename_new(written.folder, target)
        return replace(written, folder=target)

    @contextlib.contextmanager
    def hold(self, artifact_id: str) -> Iterator[bool]:
        """Keeps an artifact from being removed, by any process; False where there is none."""
        with self._held(self.path(artifact_id)) as is_there:
            yield is_there

    def check(self, artifact_id: str, digests: Mapping[str, str]) -> str:
        """What is wrong with an artifact; empty when it is as it was written.

        Reads all of it, unless it was checked before and has not changed since.
        """
        folder = self.path(artifact_id)
        try:
            state = store_files.state(folder)
            if self._intact.get(artifact_id) == state:
                return ""
            found = store_files.digests(folder)
        except OSError as error:
            return str(error)
        names = sorted(found.keys() | digests.keys())
        wrong = [name for name in names if found.get(name) != digests.get(name)]
        if wrong:
            return f"{', '.join(wrong)} missing or not as written"
        self._intact[artifact_id] = state
        return ""

    def remove(self, artifact_id: str) -> bool:
        """Removes an artifact; False where it is held. Locked."""
        folder = self.path(artifact_id)
        fd = store_files.hold(folder, exclusive=True)
        if fd is None:
            return not folder.exists()
        self._discard(folder)
        os.close(fd)
        return True

    def clean(self, entered: Set[str]) -> None:
        """Removes what processes that died left behind. Locked."""
        for path in self._staging.iterdir():
            if path.is_file():
                path.unlink()
            elif (fd := store_files.hold(path, exclusive=True)) is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(fd)
        for folder in self._folder.iterdir():
            if folder.name not in entered and self.remove(folder.name):
                logger.info("'%s' was never entered, and is removed", folder)

    @contextlib.contextmanager
    def _held(self, folder: Path) -> Iterator[bool]:
        fd = store_files.hold(folder)
        try:
            yield fd is not None
        finally:
            if fd is not None:
                os.close(fd)

    def _discard(self, folder: Path) -> None:
        """Removes a folder, which is there as a whole or not at all."""
        aside = self._staging / uuid.uuid4().hex
        folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


def _name(artifact: Artifact, digests: Mapping[str, str]) -> str:
    """Made from all that the artifact is: "<what>-<12 hex digits>"."""
    signature = artifact.signature.to_json() if artifact.signature else None
    how = [artifact.file, artifact.runtime, artifact.techniques, dict(artifact.options), signature]
    text = json.dumps([dict(digests), how], sort_keys=True)
    what = re.sub(r"-[0-9a-f]{12}$", "", artifact.artifact_id)
    what = re.sub(r"[^\w.]+", "_", what)
    return f"{what}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
