"""The store as one job sees it: by candidate, and safe from collection until the job ends."""

import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

from optimizer import keys
from optimizer.artifact import Artifact
from optimizer.candidate import Candidate
from optimizer.device import Device
from optimizer.engine_cache import EngineCache
from optimizer.errors import OptimizationError
from optimizer.goal import Goal
from optimizer.store import ArtifactStore, key_of

logger = logging.getLogger(__name__)


class CandidateStore:
    """What of a job's model, goal and data was built before, and what is being built.

    `held` keeps artifacts from being collected as long as it is open.
    """

    def __init__(
        self,
        store: ArtifactStore,
        held: contextlib.ExitStack,
        device: Device,
        goal: Goal,
        prints: tuple[str, str],
        *,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """`prints` are of the model and of the data, as `keys.py` has them.

        `check` raises SourceError where the model is not the one of its print any more.
        """
        self._store, self._held, self._check = store, held, check
        self.device, self._goal = device, goal
        self.source, self._data = prints
        self._ids: set[str] = set()

    def find(self, candidate: Candidate) -> Artifact | None:
        """What was built of a candidate before."""
        found = self._store.find(key_of(self._parts(candidate)))
        return self.hold(found) if found is not None else None

    def keep(self, candidate: Candidate, artifact: Artifact) -> Artifact:
        """Stores what was built; where that fails, it stays where it is and the job goes on."""
        if self.has(artifact):
            return artifact
        try:
            return self.put(artifact.folder, artifact, self._parts(candidate))
        except OptimizationError as error:
            logger.warning("'%s' is not kept: %s", candidate.name, error)
            return artifact

    def put(self, folder: Path, artifact: Artifact, parts: dict[str, str]) -> Artifact:
        """Stores a folder. Raises OptimizationError where it cannot be written, or `check` does."""
        self._check()
        return self.hold(self._store.put(folder, artifact, parts))

    def has(self, artifact: Artifact) -> bool:
        """Whether exactly this is in the store: the same files, opened in the same way."""
        return self._store.get(artifact.artifact_id) == artifact

    def is_held(self, artifact: Artifact) -> bool:
        """Whether it is one of the store's, and not the model itself or in the job's own folder."""
        return artifact.artifact_id in self._ids

    def remember(self, artifact: Artifact | None, report_json: str) -> None:
        """What the job ended in, for the next one that is asked the same."""
        self._check()
        parts = self.winner_parts()
        artifact_id = artifact.artifact_id if artifact else None
        self._store.remember_winner(key_of(parts), artifact_id, report_json, parts=parts)

    def engine_cache(self) -> EngineCache:
        """TensorRT engines of any model."""
        return EngineCache(self._store, self._store.root / "timing")

    def winner_parts(self) -> dict[str, str]:
        return keys.winner_parts(self.source, self.device, self._goal, self._data)

    def _parts(self, candidate: Candidate) -> dict[str, str]:
        return keys.artifact_parts(self.source, candidate, self.device, self._goal, self._data)

    def hold(self, artifact: Artifact) -> Artifact:
        """Keeps an artifact of the store from being collected until the job ends."""
        self._held.enter_context(self._store.hold(artifact.artifact_id))
        self._ids.add(artifact.artifact_id)
        return artifact
