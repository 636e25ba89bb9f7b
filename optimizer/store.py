"""Keeps what optimizations made, so that nothing is made twice.

    <root>/lock                       held while the rest is changed
    <root>/staging/<any>/             being written, or being removed
    <root>/artifacts/<artifact id>/   an artifact, named by its content, never changed
    <root>/entries/<key>.json         which artifact the parts of a key made, and its digests
    <root>/winners/<key>.json         which artifact won, and the report
    <root>/timing/                    of the engine cache, not the store's

An artifact is copied to `staging`, brought to the disk, renamed, and only then entered. What has no
entry does not exist, so a process that is killed and a disk that is full leave nothing that could
be used; whoever opens the store next removes it.
"""

import contextlib
import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from optimizer import store_files, store_records
from optimizer.artifact import Artifact, read_artifact
from optimizer.errors import OptimizationError
from optimizer.store_files import Copy
from optimizer.store_records import Record, Records
from optimizer.store_shelf import Shelf

logger = logging.getLogger(__name__)


def key_of(parts: Mapping[str, str]) -> str:
    """The name of what these parts make: of their names and values, in whatever order."""
    text = json.dumps(dict(sorted(parts.items())), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


class Winner(NamedTuple):
    """What an optimization ended in, as it was remembered."""

    artifact: Artifact | None  # None: nothing was better than the original
    report: str  # JSON


class ArtifactStore:
    """A folder of artifacts. Any number of threads and processes may use it at once.

    Args:
        root: Made if need be.
        limit_bytes: What artifacts may take together, see `collect`; 0: no limit.
        copy: How a file is copied, so that tests can make it fail.

    Raises:
        OptimizationError: the folder cannot be made or written to.
    """

    key_of = staticmethod(key_of)

    def __init__(self, root: Path, limit_bytes: int = 0, copy: Copy = shutil.copyfile) -> None:
        self.root = root
        self._limit_bytes = limit_bytes
        self._copy = copy
        self._shelf = Shelf(root / "artifacts", root / "staging")
        self._entries = Records(root / "entries", root / "staging")
        self._winners = Records(root / "winners", root / "staging")
        with self._writing(), self._lock():
            self._shelf.clean({entry.artifact_id for entry in self._entries.all()})

    def put(self, folder_made: Path, artifact: Artifact, key_parts: Mapping[str, str]) -> Artifact:
        """Copies a folder into the store; returns the artifact as it is there.

        Its id is made from the one given ("<what>" or "<what>-<12 hex digits>") and its content.

        Raises:
            OptimizationError: it cannot be written; nothing of it is left.
        """
        with self._writing(), contextlib.ExitStack() as stack:
            with self._lock():
                staged = stack.enter_context(self._shelf.stage())
            written = self._shelf.write(folder_made, artifact, staged, self._copy)
            digests = store_files.digests(written.folder)
            entry = Record(dict(key_parts), written.artifact_id, written.size_bytes, digests)
            with self._lock():
                placed = self._shelf.place(written)
                self._entries.write(key_of(key_parts), entry)
                with self._shelf.hold(placed.artifact_id):
                    self._collect()
        return placed

    def find(self, key: str) -> Artifact | None:
        """The artifact of a key, checked to be whole; it counts as used now."""
        entry = self._entries.read(key)
        artifact = self._checked(entry) if entry else None
        if artifact is not None:
            self._entries.touch(key)
        return artifact

    def get(self, artifact_id: str) -> Artifact | None:
        """An artifact by its id, checked to be whole."""
        entries = (entry for entry in self._entries.all() if entry.artifact_id == artifact_id)
        entry = next(entries, None)
        return self._checked(entry) if entry else None

    def hold(self, artifact_id: str) -> contextlib.AbstractContextManager[bool]:
        """Keeps an artifact from being collected, by any process; False where there is none."""
        return self._shelf.hold(artifact_id)

    def remember_winner(
        self,
        key: str,
        artifact_id: str | None,
        report_json: str,
        *,
        parts: Mapping[str, str] | None = None,
    ) -> None:
        """Remembers what an optimization ended in; `artifact_id` None: in nothing better.

        With `parts`, `explain_miss` knows of it.

        Raises:
            OptimizationError: it cannot be written.
        """
        record = Record(dict(parts or {}), artifact_id or "", report=report_json)
        with self._writing(), self._lock():
            self._winners.write(key, record)

    def winner(self, key: str) -> Winner | None:
        """What was remembered of a key; None also where the artifact is damaged or gone."""
        record = self._winners.read(key)
        if record is None:
            return None
        artifact = self.get(record.artifact_id) if record.artifact_id else None
        if record.artifact_id and artifact is None:
            return None
        self._winners.touch(key)
        return Winner(artifact, record.report)

    def explain_miss(self, parts: Mapping[str, str]) -> str:
        """Which parts differ from the nearest key that is known; for people."""
        known = [*self._entries.all(), *self._winners.all()]
        return store_records.explain_miss(parts, known)

    def size_bytes(self) -> int:
        """Of all artifacts."""
        return sum(self._sizes().values())

    def collect(self) -> list[str]:
        """Removes what was not used for longest until the limit holds; returns the ids.

        Winners go after all others. What is held stays.
        """
        with self._writing(), self._lock():
            return self._collect()

    def _collect(self) -> list[str]:
        """With the lock held."""
        sizes = self._sizes()
        excess = sum(sizes.values()) - self._limit_bytes
        if not self._limit_bytes or excess <= 0:
            return []
        removed = []
        order = store_records.removal_order(self._entries.all(), self._winners.all())
        for artifact_id in order:
            if excess > 0 and self._shelf.remove(artifact_id):
                self._drop_records(artifact_id)
                excess -= sizes.get(artifact_id, 0)
                removed.append(artifact_id)
        if removed:
            logger.info("'%s': removed to keep the limit: %s", self.root, ", ".join(removed))
        if excess > 0:
            logger.warning("'%s': %d bytes over its limit are all in use", self.root, excess)
        return removed

    def _sizes(self) -> dict[str, int]:
        return {entry.artifact_id: entry.size_bytes for entry in self._entries.all()}

    def _drop_records(self, artifact_id: str) -> None:
        for records in (self._entries, self._winners):
            for record in records.all():
                if record.artifact_id == artifact_id:
                    records.drop(record.key)

    def _checked(self, entry: Record) -> Artifact | None:
        """The artifact of an entry; a damaged one is removed."""
        with self._shelf.hold(entry.artifact_id) as is_there:
            wrong = "it is gone"
            if is_there:
                wrong = self._shelf.check(entry.artifact_id, entry.digests)
            if not wrong:
                return read_artifact(self._shelf.path(entry.artifact_id))
        logger.warning("'%s': dropped %s: %s", self.root, entry.artifact_id, wrong)
        with self._writing(), self._lock():
            self._drop_records(entry.artifact_id)
            self._shelf.remove(entry.artifact_id)
        return None

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OptimizationError(
                f"the artifact store '{self.root}' cannot be written to: {error}"
            ) from error

    def _lock(self) -> contextlib.AbstractContextManager[None]:
        for name in ("staging", "artifacts", "entries", "winners"):  # somebody may tidy up
            (self.root / name).mkdir(parents=True, exist_ok=True)
        return store_files.locked(self.root / "lock")
