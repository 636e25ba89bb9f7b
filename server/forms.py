"""Which form of a version serves: its own file, or an artifact made from it.

Lets artifacts serve, puts files back, and finds again after a restart what served before. What
serves is held in the artifact store, so that it is not removed to make room.
"""

import logging
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from optimizer import keys
from optimizer.artifact import Artifact
from optimizer.device import Device
from optimizer.goal import Goal
from optimizer.store import ArtifactStore, key_of
from server.chosen import Choice, Choices
from server.errors import LoadFailed, WrongState
from server.metrics import OptimizationFigures
from server.model_config import Optimized
from server.optimization_job import Task
from server.registry import Registry
from server.served import ServedVersion

logger = logging.getLogger(__name__)

Version = tuple[str, int]
Blocking = Callable[..., Awaitable[Any]]
"""Runs a call that blocks, given with its arguments, on a thread; one after the other."""


@dataclass(frozen=True, slots=True)
class Made:
    """An artifact, and what made it of what."""

    artifact_id: str
    optimization_id: str
    source: str  # fingerprint of the model's file then, which may be another by now


@dataclass(frozen=True, slots=True)
class _Found:
    """What is known of a version from before."""

    artifact: Artifact | None  # None: nothing is better than its own file
    optimization_id: str  # "" where the job is not known any more


class Forms:
    """Belongs to the event loop; what blocks runs by `blocking`."""

    def __init__(
        self,
        registry: Registry,
        store: ArtifactStore,
        *,
        choices: Choices,
        device: Device,
        figures: OptimizationFigures,
        blocking: Blocking,
    ) -> None:
        self._registry, self._store, self._choices = registry, store, choices
        self._device, self._blocking = device, blocking
        self._machine = key_of(keys.winner_parts("", device, Goal(), ""))
        self._holds: dict[Version, ExitStack] = {}
        self._figures = figures

    async def serve(self, model: str, version: int, task: Task, made: Made) -> ServedVersion:
        """Lets an artifact serve in the place of what serves, and remembers it.

        Raises:
            WrongState: the version has been changed since `task`, or the artifact is gone.
            LoadFailed: the artifact cannot be opened, or clients would notice a difference.
        """
        artifact = await self._blocking(self._store.get, made.artifact_id)
        if artifact is None:
            raise WrongState(f"the artifact '{made.artifact_id}' is not in the store any more")
        await self._exchange((model, version), task, Optimized(artifact, made.optimization_id))
        await self.remember(model, version, task, made)
        return self._registry.resolve(model, version)

    async def remember(self, model: str, version: int, task: Task, made: Made) -> None:
        """Has an artifact serve again after a restart, as long as the configuration is the same."""
        ids = made.artifact_id, made.optimization_id
        choice = Choice(made.source, self._machine, *ids, configured=task.configured)
        await self._blocking(self._choices.set, model, version, choice)

    async def roll_back(self, model: str, version: int | None) -> ServedVersion:
        """Lets a version's own file serve again, until an artifact is promoted.

        It is opened anew: keeping it open would double the memory of every optimized model.

        Raises:
            ModelNotFound, ModelNotReady: the version does not serve.
            WrongState: its own file serves already, or has changed on disk.
            LoadFailed: it cannot be opened any more; the artifact serves on.
        """
        served = self._registry.resolve(model, version)
        number = served.version
        origin = self._registry.origin(model, number)
        if served.optimized is None or origin is None:
            raise WrongState(
                f"model '{model}' version {number} is served from its own file already"
            )
        await self._registry.exchange(model, number, origin, None)
        self._let_go((model, number))
        choice = self._choices.get(model, number)
        if choice is not None:
            held_back = replace(choice, is_held_back=True)
            await self._blocking(self._choices.set, model, number, held_back)
        return self._registry.resolve(model, number)

    async def withdraw(self, model: str, version: int, task: Task) -> None:
        """Lets the own file serve in the place of what was chosen under another configuration.

        Raises:
            WrongState: the file has changed on disk.
            LoadFailed: it cannot be opened any more; the artifact serves on.
        """
        served = self._registry.resolve(model, version)
        choice = self._choices.get(model, version)
        if choice is None or served.optimized is None or _is_current(choice, task):
            return
        if served.optimized.artifact.artifact_id == choice.artifact_id:
            await self._registry.exchange(model, version, task.origin, None)
            self._let_go((model, version))

    async def recall(self, model: str, version: int, task: Task) -> bool:
        """Lets serve what served before, or what an earlier job found; nothing is measured.

        Returns whether all is known: then there is nothing to be found out by a job. What was
        chosen under another configuration serves, but a job has to find out anew.
        """
        source = await self._blocking(task.source.fingerprint)
        choice = self._choices.get(model, version)
        if choice and (choice.source, choice.machine) != (source, self._machine):
            choice = None
        if choice and choice.is_held_back and _is_current(choice, task):
            return True
        found = await self._blocking(self._find, choice, source, task)
        self._figures.lookups["miss" if found is None else "hit"] += 1
        serving = found or await self._blocking(self._chosen, choice)
        if serving is not None and serving.artifact is not None:
            held_back = choice.artifact_id if choice and choice.is_held_back else ""
            if serving.artifact.artifact_id != held_back:
                await self._serve_again((model, version), task, serving)
        return found is not None

    def latest(self, model: str, version: int) -> Choice | None:
        """What was last decided for a version."""
        return self._choices.get(model, version)

    def forget_gone(self) -> None:
        """Lets go of the artifacts that serve no more."""
        serving = {(s.model, s.version): s for s in self._registry.served()}
        for version in list(self._holds):
            served = serving.get(version)
            if served is None or served.optimized is None:
                self._let_go(version)

    def _find(self, choice: Choice | None, source: str, task: Task) -> _Found | None:
        if choice and _is_current(choice, task) and (chosen := self._chosen(choice)):
            return chosen
        data = keys.data_print(task.data)
        key = key_of(keys.winner_parts(source, self._device, task.goal, data))
        winner = self._store.winner(key)
        return None if winner is None else _Found(winner.artifact, "")

    def _chosen(self, choice: Choice | None) -> _Found | None:
        artifact = self._store.get(choice.artifact_id) if choice else None
        return _Found(artifact, choice.optimization_id) if choice and artifact else None

    async def _serve_again(self, version: Version, task: Task, found: _Found) -> None:
        assert found.artifact is not None
        try:
            await self._exchange(version, task, Optimized(found.artifact, found.optimization_id))
        except (LoadFailed, WrongState) as error:
            logger.warning("model '%s' version %d serves as it came: %s", *version, error)

    async def _exchange(self, version: Version, task: Task, optimized: Optimized) -> None:
        with ExitStack() as hold:
            hold.enter_context(self._store.hold(optimized.artifact.artifact_id))
            await self._registry.exchange(*version, task.origin, optimized)
            self._let_go(version)
            self._holds[version] = hold.pop_all()

    def _let_go(self, version: Version) -> None:
        if version in self._holds:
            self._holds.pop(version).close()


def _is_current(choice: Choice, task: Task) -> bool:
    """Whether the configuration asks for what it asked for when the choice was made."""
    return choice.configured in ("", task.configured)
