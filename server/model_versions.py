"""The versions of one model, their states, and the steps from one set of versions to another.

Knows nothing of other models, of the repository or of who asked. All methods belong to the event
loop; the caller sees to it that `apply` and `unload` of one model do not overlap.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from server.errors import LoadFailed, ModelNotFound, ModelNotReady, ServeError, WrongState
from server.interchange import difference
from server.load_plan import LoadPlan, Origin, plan_load
from server.model_config import Optimized, VersionSource
from server.opening import OpenVersion
from server.repository import ModelSource
from server.served import ServedVersion

logger = logging.getLogger(__name__)

Spawn = Callable[[Coroutine[Any, Any, None]], object]
"""Runs a coroutine as a task that somebody owns."""


class ModelState(StrEnum):
    """The state of one version, named as in Triton's index.

             open                opened
    (new) ──────────► LOADING ─────────────► READY ◄──┐ replaced: the new one opened
                      ▲  │  ▲                 │  │    │ reload failed: the old one serves on
                 open │  │  │ open            │  └────┘ exchanged: another form of it serves
                      │  │  └──── UNLOADING ◄─┘ unload
                      │  │ failed     │
                      │  ▼            │ last handle released
                    UNAVAILABLE ◄─────┘
    """

    LOADING = "LOADING"  # being opened, and nothing of it serves
    READY = "READY"  # serves
    UNLOADING = "UNLOADING"  # takes no new requests, finishes those it has
    UNAVAILABLE = "UNAVAILABLE"  # does not serve, for the reason given


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """One line of the index."""

    model: str
    version: int | None  # None: nothing is known of versions, the whole model has this state
    state: ModelState
    reason: str = ""  # why not READY, or what is wrong although it is
    notes: tuple[str, ...] = ()  # what an operator should know of a version that serves


@dataclass(slots=True)
class _Version:
    """One version with what serves it now."""

    state: ModelState = ModelState.LOADING
    reason: str = ""
    since: float = field(default_factory=time.monotonic)  # in this state
    served: ServedVersion | None = None
    origin: Origin | None = None  # of `served`
    ending: ServedVersion | None = None  # unloading: finishes its last requests

    def enter(self, state: ModelState, reason: str = "") -> None:
        if state is not self.state:
            self.since = time.monotonic()
        self.state, self.reason = state, reason

    def fail(self, reason: str) -> None:
        """A load of this version failed; one that serves already serves on."""
        if self.served is None:
            self.enter(ModelState.UNAVAILABLE, reason)
        else:
            self.reason = f"reload failed, what was loaded before serves on: {reason}"


class ModelVersions:
    """All versions of one model."""

    def __init__(
        self,
        name: str,
        open_version: OpenVersion,
        spawn: Spawn,
        changed: Callable[[], None],
        loaded: Callable[[int], None],
    ) -> None:
        """`changed` is called whenever `serving` is another or a version's health changed.

        `loaded` is called with the number of a version that serves what was on disk, from now on.
        """
        self.name = name
        self.serving: dict[int, ServedVersion] = {}
        self.turn = asyncio.Lock()  # held by the caller for the length of a load or unload
        self._open_version, self._spawn = open_version, spawn
        self._changed, self._loaded = changed, loaded
        self._versions: dict[int, _Version] = {}
        self.was_tried = False  # a load was asked for, and no unload since
        self.note = ""  # why nothing serves, where no version is known

    @property
    def is_forgotten(self) -> bool:
        """Whether there is nothing to say of this model: no version, no reason."""
        return not self._versions and not self.note

    def made_from(self, folder: Path) -> list[ServedVersion]:
        """The versions that serve and were opened from files below `folder`."""
        return [
            version.served
            for version in self._versions.values()
            if version.served and version.origin and folder in version.origin.file.path.parents
        ]

    async def apply(self, source: ModelSource) -> None:
        """Makes the wanted versions of `source` serve; returns when each does or has failed.

        Raises:
            LoadFailed: not all could be opened; what served before serves still.
        """
        self.was_tried = True
        self._changed()
        if source.error:
            self.note = source.error
            for version in self._versions.values():
                version.fail(source.error)
            raise LoadFailed(f"failed to load '{self.name}': {source.error}")
        wanted = {number: Origin(file, source.config) for number, file in source.wanted().items()}
        plan = plan_load(wanted, self._origins())
        failures = self._begin(plan, wanted)
        reasons = await asyncio.gather(*(self._open(n, wanted[n]) for n in plan.open))
        failures |= {n: reason for n, reason in zip(plan.open, reasons, strict=True) if reason}
        if failures:
            raise self._failed(failures, plan)
        for number in plan.close:
            self._unload(number, "not served any more by the version policy", forget=True)
        self._forget_unwanted(wanted)

    def origin(self, number: int) -> Origin | None:
        """What a version that serves is made from; None where it does not serve."""
        version = self._versions.get(number)
        return version.origin if version else None

    async def exchange(self, number: int, origin: Origin, optimized: Optimized | None) -> None:
        """Lets another form of a version serve: an artifact, or with None its own file.

        What serves goes on until the other one is open and warm; requests it has end on it.

        Raises:
            WrongState: the version does not serve, or is not what `origin` says any more.
            LoadFailed: the other form cannot be opened, or clients would notice a difference.
        """
        if self.origin(number) != origin:
            raise WrongState(f"{self._named(number)} has been changed or unloaded since")
        source = VersionSource(self.name, number, origin.file.path, origin.config, optimized)
        started = time.monotonic()
        served = await self._open_version(source)
        before = self.serving[number]
        if problem := difference(before, served):
            served.retire()
            raise LoadFailed(f"'{served.artifact_id}' cannot stand in: {problem}")
        served.succeed(before)
        self._serve(number, served, origin)
        seconds = time.monotonic() - started
        logger.info(
            "%s: '%s' serves in place of '%s', opened in %.2f s",
            *(self._named(number), served.artifact_id, before.artifact_id, seconds),
        )

    def unload(self, reason: str, forget: bool = False) -> None:
        """Takes no new requests from now on; versions close when their last request ends.

        With `forget`, the index does not keep them.
        """
        self.note, self.was_tried = "" if forget else reason, False
        for number, version in list(self._versions.items()):
            if version.served is not None:
                self._unload(number, reason, forget)
            elif version.ending is None:
                version.enter(ModelState.UNAVAILABLE, reason)
                if forget:
                    del self._versions[number]
        self._changed()

    def statuses(self) -> list[VersionStatus]:
        if self.is_forgotten:
            return []
        if not self._versions:
            return [VersionStatus(self.name, None, ModelState.UNAVAILABLE, self.note)]
        return [self._status(number) for number in sorted(self._versions)]

    def why_not(self, number: int | None) -> ModelNotFound | ModelNotReady:
        """Why no version, or not this one, can answer a request; worded as Triton does."""
        if self.is_forgotten:
            return unknown(self.name)
        statuses = self.statuses()
        if not self.was_tried and statuses[0].version is None:
            return unknown(self.name, f": it is there, but {statuses[0].reason}")
        request = f"Request for unknown model: '{self.name}'"
        if number is None:
            reasons = "; ".join(map(_why, statuses))
            return ModelNotReady(f"{request} has no available versions: {reasons}")
        if number not in self._versions:
            return ModelNotFound(f"{request} version {number} is not found")
        reason = _why(self._status(number))
        return ModelNotReady(f"{request} version {number} is not at ready state: {reason}")

    def _named(self, number: int) -> str:
        return f"model '{self.name}' version {number}"

    def _status(self, number: int) -> VersionStatus:
        version = self._versions[number]
        reason = version.reason
        if version.state is ModelState.LOADING:
            reason = f"loading for {time.monotonic() - version.since:.0f} s"
        if version.served is None:
            return VersionStatus(self.name, number, version.state, reason)
        notes = _notes(version.served)
        reason = version.served.problem or reason
        return VersionStatus(self.name, number, version.state, reason, notes)

    def _origins(self) -> dict[int, Origin]:
        versions = self._versions.items()
        return {number: version.origin for number, version in versions if version.origin}

    def _begin(self, plan: LoadPlan, wanted: Mapping[int, Origin]) -> dict[int, str]:
        """Marks what is about to happen; returns the failures that are known already."""
        for number in wanted:
            version = self._versions.setdefault(number, _Version())
            version.reason = ""
            if number in plan.open and version.served is None:
                version.enter(ModelState.LOADING)
        failures = {number: wanted[number].file.error for number in plan.broken}
        for number, reason in failures.items():
            self._versions[number].fail(reason)
        return failures

    async def _open(self, number: int, origin: Origin) -> str:
        """Opens a version and lets it serve; returns why not, or "" when it does."""
        version = self._versions[number]
        source = VersionSource(self.name, number, origin.file.path, origin.config)
        started = time.monotonic()
        try:
            served = await self._open_version(source)
        except asyncio.CancelledError:
            version.fail("the load was ended")
            raise
        except Exception as error:
            reason = _reason(error)
            version.fail(reason)
            return reason
        self._serve(number, served, origin)
        for warning in served.config.warnings:
            logger.warning("%s: %s", self._named(number), warning)
        seconds = time.monotonic() - started
        logger.info("%s: loaded in %.2f s", self._named(number), seconds)
        self._loaded(number)
        return ""

    def _serve(self, number: int, served: ServedVersion, origin: Origin) -> None:
        version = self._versions[number]
        replaced = version.served
        version.served, version.origin = served, origin
        version.enter(ModelState.READY)
        served.on_health = self._changed
        self.serving[number] = served
        self._changed()
        if replaced is not None:
            replaced.on_health = _nothing
            replaced.retire()

    def _unload(self, number: int, reason: str, forget: bool) -> None:
        version, served = self._versions[number], self.serving.pop(number)
        version.served, version.origin, version.ending = None, None, served
        version.enter(ModelState.UNLOADING, reason)
        self._changed()
        served.on_health = _nothing
        served.retire()
        self._spawn(self._end(number, served, forget))

    async def _end(self, number: int, served: ServedVersion, forget: bool) -> None:
        await served.closed()
        logger.info("%s: unloaded", self._named(number))
        version = self._versions.get(number)
        # A load may have come meanwhile: then the version is that load's, not ours.
        if version is None or version.ending is not served:
            return
        version.ending = None
        if version.state is ModelState.UNLOADING:
            version.enter(ModelState.UNAVAILABLE, version.reason)
            if forget:
                del self._versions[number]
                self._changed()

    def _failed(self, failures: Mapping[int, str], plan: LoadPlan) -> LoadFailed:
        for number in plan.close:
            kept = ", ".join(map(str, failures))
            self._versions[number].reason = f"serves on because version {kept} failed to load"
        each = "; ".join(f"version {number}: {failures[number]}" for number in sorted(failures))
        return LoadFailed(f"failed to load '{self.name}': {each}")

    def _forget_unwanted(self, wanted: Mapping[int, Origin]) -> None:
        for number, version in list(self._versions.items()):
            if number not in wanted and version.state is ModelState.UNAVAILABLE:
                del self._versions[number]


def unknown(model: str, more: str = "") -> ModelNotFound:
    """The answer to a request for a model that is not there."""
    return ModelNotFound(f"Request for unknown model: '{model}' is not found{more}")


def _why(status: VersionStatus) -> str:
    state = status.state if status.version is None else f"version {status.version} {status.state}"
    return f"{state} ({status.reason})" if status.reason else state


def _reason(error: Exception) -> str:
    if not isinstance(error, ServeError):
        logger.error("loading failed unexpectedly", exc_info=error)
    return str(error) or type(error).__name__


def _notes(served: ServedVersion) -> tuple[str, ...]:
    profile = served.profile
    unbatched = f"requests run one by one: {profile.reason}" if profile.reason else ""
    unpadded = f"requests are not padded: {profile.pad_reason}" if profile.pad_reason else ""
    notes = (_optimized(served), profile.fallback, unbatched, unpadded, *served.config.warnings)
    return tuple(note for note in notes if note)


def _optimized(served: ServedVersion) -> str:
    optimized = served.optimized
    if optimized is None:
        return ""
    techniques = ", ".join(optimized.artifact.techniques)
    return f"optimized by {optimized.optimization_id}: {techniques}"


def _nothing() -> None:
    """A version that is being replaced or unloaded has nobody to tell of its health."""
