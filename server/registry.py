"""All models by name: which version answers, and loads and unloads as they are asked for.

Loads and unloads of one model happen one after the other, those of different models side by
side. Opening a version is done by the function given (in a thread of its own); everything here
belongs to the event loop and only ever waits. What happens to one model's versions is in
`model_versions.py`, what is on disk in `repository.py`.
"""

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from server.errors import (
    InvalidRequest,
    LoadFailed,
    ModelNotFound,
    ModelNotReady,
    ServeError,
    WrongState,
)
from server.fingerprint import Fingerprint
from server.formats import Unservable
from server.load_plan import Origin, settled_changes
from server.model_config import Optimized
from server.model_versions import ModelVersions, VersionStatus, unknown
from server.opening import OpeningQueue, OpenVersion
from server.overrides import NO_OVERRIDES, Overrides
from server.repository import (
    ModelSource,
    Repository,
    RepositoryError,
    is_as_it_was,
    is_model_name,
)
from server.served import ServedVersion

logger = logging.getLogger(__name__)

T = TypeVar("T")
Subscriber = Callable[[str, bool], None]
"""Told a model's name and whether it is ready now; called on the loop, must not block."""
Follower = Callable[[str, int], None]
"""Told model and version of what begins to serve from disk; called on the loop, must not block."""

_NOT_LOADED = "not loaded"
_PROGRESS_INTERVAL_S = 5.0  # between two log lines while many models load


class Registry:
    """The models of one server. All methods belong to the event loop."""

    def __init__(
        self,
        repository: Repository,
        open_version: OpenVersion,
        control: str = "all",
        loads_at_once: int = 2,
        load_timeout_s: float = 3600.0,
    ) -> None:
        """`control` is "all", "explicit" (only by request) or "poll" (follow the repository).

        `load_timeout_s`: a version not open by then has failed, and others get its turn.
        """
        self._repository, self._control = repository, control
        self._open = OpeningQueue(open_version, loads_at_once, load_timeout_s)
        self._models: dict[str, ModelVersions] = {}
        # The hot path's answer to (model, version); None stands for the highest ready version.
        self._serving: dict[str, dict[int | None, ServedVersion]] = {}
        self._was_ready: dict[str, bool] = {}  # as subscribers were told last
        self._subscribers: list[Subscriber] = []
        self._followers: list[Follower] = []
        self._loads: set[asyncio.Future[Any]] = set()  # loads and unloads under way
        self._endings: set[asyncio.Future[Any]] = set()  # versions finishing their last requests
        self._acted_on: dict[str, Fingerprint] = {}
        self._seen: dict[str, Fingerprint] = {}

    async def start(self) -> None:
        """Loads every model (with control "explicit": none); returns when each serves or failed.

        Raises:
            RepositoryError: the repository cannot be read.
        """
        if self._control == "explicit":
            await self.refresh()
            return
        sources = await asyncio.to_thread(self._repository.scan)
        self._seen = {name: source.fingerprint for name, source in sources.items()}
        self._acted_on = dict(self._seen)
        loads = [self._begin(self._load(name, source)) for name, source in sources.items()]
        await _all_done(loads)

    def resolve(self, model: str, version: int | None) -> ServedVersion:
        """The version that answers a request; the highest that is ready where none is named.

        Raises:
            ModelNotFound: no such model, or no such version of it.
            ModelNotReady: there is one, but it does not serve; the message says why.
        """
        try:
            return self._serving[model][version]
        except KeyError:
            versions = self._models.get(model)
            raise (unknown(model) if versions is None else versions.why_not(version)) from None

    def index(self) -> list[VersionStatus]:
        """Every known model and version, by name and number, with its state and the reason."""
        return [status for name in sorted(self._models) for status in self._models[name].statuses()]

    def statuses(self, model: str) -> list[VersionStatus]:
        """The index of one model; empty where there is none of that name."""
        return self._models[model].statuses() if model in self._models else []

    def versions(self, model: str) -> list[int]:
        """The versions that serve, ascending."""
        return sorted(self._models[model].serving) if model in self._models else []

    def is_ready(self, model: str, version: int | None = None) -> bool:
        """Whether a request would be answered: the version serves and its instances are well."""
        served = self._serving.get(model, {}).get(version)
        return served is not None and not served.problem

    def served(self) -> list[ServedVersion]:
        """Every version that serves, by model and version."""
        models = (self._models[name].serving for name in sorted(self._models))
        return [serving[number] for serving in models for number in sorted(serving)]

    def counts(self) -> tuple[int, int]:
        """How many models serve, and how many were to be loaded and serve in no version."""
        n_serving = len(self._serving)
        return n_serving, sum(model.was_tried for model in self._models.values()) - n_serving

    def is_wanted(self, model: str) -> bool:
        """Whether a load of a model was asked for, and no unload since."""
        return model in self._models and self._models[model].was_tried

    async def load(self, model: str, overrides: Overrides = NO_OVERRIDES) -> None:
        """Loads or reloads a model by request; versions that did not change are left alone.

        Without overrides the repository's files count again. A caller that goes away does not
        stop the load.

        Raises:
            ModelNotReady: loading by request is not allowed here.
            ModelNotFound: the repository has no such model.
            InvalidRequest: the overrides make no sense.
            LoadFailed: not all its versions could be opened; what served before serves on.
        """
        self._check_control()
        overrides.check()
        if not is_model_name(model):
            raise InvalidRequest(f"'{model}' cannot be a model's name")
        await asyncio.shield(self._begin(self._load_by_request(model, overrides)))

    async def unload(self, model: str) -> bool:
        """Stops new requests to a model; returns when they are refused, False if it is unknown.

        Raises:
            ModelNotReady: unloading by request is not allowed here.
        """
        self._check_control()
        return await asyncio.shield(self._begin(self._unload(model, "unloaded")))

    def origin(self, model: str, version: int) -> Origin | None:
        """What a version that serves is made from; None where it does not serve."""
        return self._models[model].origin(version) if model in self._models else None

    async def exchange(
        self, model: str, version: int, origin: Origin, optimized: Optimized | None
    ) -> None:
        """Lets another form of a version serve: an artifact, or with None its own file.

        No request fails or waits for it. A caller that goes away does not stop it.

        Raises:
            WrongState: the version does not serve, or is not what `origin` says any more.
            LoadFailed: the other form cannot be opened, or clients would notice a difference.
        """
        work = self._exchange(model, version, origin, optimized)
        await asyncio.shield(self._begin(work))

    async def poll_once(self) -> None:
        """One look at the repository: begins to load and unload what changed and came to rest.

        Does not wait for the loads, so that a slow one never keeps the next change waiting.
        A repository that cannot be read changes nothing.
        """
        try:
            sources = await asyncio.to_thread(self._repository.scan)
        except RepositoryError as error:
            logger.warning("repository not read, all models stay as they are: %s", error)
            return
        now = {name: source.fingerprint for name, source in sources.items()}
        for name in settled_changes(now, self._seen, self._acted_on):
            if name in now:
                self._acted_on[name] = now[name]
                self._begin(self._load(name, sources[name]))
            else:
                del self._acted_on[name]
                self._begin(self._unload(name, "removed from the repository", forget=True))
        self._seen = now

    @property
    def n_loading(self) -> int:
        """Models being loaded, or waiting for their turn."""
        return len(self._loads)

    async def refresh(self) -> None:
        """Brings models that could be loaded by request into the index, and takes out those gone.

        A repository that cannot be read changes nothing.
        """
        if self._control != "explicit":
            return
        try:
            names = await asyncio.to_thread(self._repository.names)
        except RepositoryError as error:
            logger.warning("repository not read: %s", error)
            return
        for name in names - self._models.keys():
            self._model(name).unload(_NOT_LOADED)
        for name in [name for name, model in self._models.items() if model.note == _NOT_LOADED]:
            if name not in names:
                self._models[name].unload("", forget=True)

    async def idle(self) -> None:
        """Returns when no load or unload is under way."""
        while self._loads:
            await asyncio.wait(set(self._loads))

    def subscribe(self, subscriber: Subscriber) -> None:
        """Has `subscriber` told from now on of each new model, and when its readiness changes."""
        self._subscribers.append(subscriber)

    def follow(self, follower: Follower) -> None:
        """Has `follower` told from now on of every version that serves what was on disk.

        That is after a load or a reload, not after an exchange.
        """
        self._followers.append(follower)

    async def close(self) -> None:
        """Ends loads under way, unloads everything; returns when the last request has ended."""
        for load in self._loads:
            load.cancel()
        await self._open.close()
        await self.idle()
        for versions in list(self._models.values()):
            versions.unload("the server is shutting down")
        while self._endings:
            await asyncio.wait(set(self._endings))

    def _model(self, name: str) -> ModelVersions:
        if name not in self._models:
            changed, loaded = partial(self._changed, name), partial(self._loaded, name)
            self._models[name] = ModelVersions(name, self._open, self._spawn, changed, loaded)
        return self._models[name]

    @asynccontextmanager
    async def _turn(self, name: str) -> AsyncIterator[ModelVersions]:
        """The model, when all earlier loads and unloads of it are done."""
        while True:
            versions = self._model(name)
            async with versions.turn:
                # Forgotten while we waited: the next round makes it anew.
                if self._models.get(name) is versions:
                    try:
                        yield versions
                    finally:
                        self._drop_forgotten(name)
                    return

    async def _load(self, name: str, source: ModelSource) -> None:
        """A load nobody waits for: its failure is in the index and in the log."""
        async with self._turn(name) as versions:
            with suppress(LoadFailed):
                await _apply(versions, source)

    async def _load_by_request(self, name: str, overrides: Overrides) -> None:
        async with self._turn(name) as versions:
            if overrides.files:
                await self._load_files(versions, overrides)
                return
            source = await asyncio.to_thread(self._repository.find, name, overrides.config)
            if source is None:
                raise ModelNotFound(
                    f"failed to load '{name}', failed to poll from model repository:"
                    f" no folder of that name in {self._repository.describe()}"
                )
            await _apply(versions, source)

    async def _load_files(self, versions: ModelVersions, overrides: Overrides) -> None:
        try:
            self._repository.check_sent(overrides.files)
        except Unservable as error:
            raise LoadFailed(f"failed to load '{versions.name}': {error}") from None
        folder = await asyncio.to_thread(overrides.write, versions.name)
        try:
            read = self._repository.read
            await _apply(versions, await asyncio.to_thread(read, folder, overrides.config))
        finally:
            self._spawn(_remove_after(folder.parent, partial(versions.made_from, folder)))

    async def _exchange(
        self, name: str, number: int, origin: Origin, optimized: Optimized | None
    ) -> None:
        async with self._turn(name) as versions:
            if optimized is None and not await asyncio.to_thread(is_as_it_was, origin.file):
                raise WrongState(
                    f"the files of model '{name}' version {number} are not the ones it was loaded"
                    " from any more"
                )
            await versions.exchange(number, origin, optimized)

    async def _unload(self, name: str, reason: str, forget: bool = False) -> bool:
        async with self._turn(name) as versions:
            is_known = not versions.is_forgotten
            if is_known:
                versions.unload(reason, forget)
            return is_known

    def _changed(self, name: str) -> None:
        """Brings the hot path's answer up to date and tells subscribers what changed."""
        versions = self._models[name]
        if versions.serving:
            self._serving[name] = {None: versions.serving[max(versions.serving)]}
            self._serving[name].update(versions.serving.items())
        else:
            self._serving.pop(name, None)
        is_ready = self.is_ready(name)
        if is_ready is not self._was_ready.get(name):
            self._was_ready[name] = is_ready
            for subscriber in self._subscribers:
                subscriber(name, is_ready)
        if not versions.turn.locked():
            self._drop_forgotten(name)

    def _loaded(self, name: str, number: int) -> None:
        for follower in self._followers:
            follower(name, number)

    def _drop_forgotten(self, name: str) -> None:
        if self._models[name].is_forgotten:
            del self._models[name]
            self._was_ready.pop(name, None)

    def _begin(self, load: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Runs a load or unload as a task of its own: a caller that goes away does not stop it."""
        task = asyncio.create_task(load)
        _keep(task, self._loads)
        task.add_done_callback(_log_bug)
        return task

    def _spawn(self, ending: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(ending)
        _keep(task, self._endings)
        task.add_done_callback(_log_bug)

    def _check_control(self) -> None:
        if self._control != "explicit":
            # The first words are Triton's, whatever the mode: its clients look for them.
            raise ModelNotReady(
                "explicit model load / unload is not allowed if polling is enabled:"
                f' the server runs with load control "{self._control}", not "explicit"'
            )


async def _apply(versions: ModelVersions, source: ModelSource) -> None:
    """As `ModelVersions.apply`; a failure is in the log once, whoever asked for the load."""
    try:
        await versions.apply(source)
    except LoadFailed as error:
        logger.error("%s", error)
        raise


def _keep(task: asyncio.Future[Any], owner: set[asyncio.Future[Any]]) -> None:
    owner.add(task)
    task.add_done_callback(owner.discard)


def _log_bug(task: asyncio.Task[Any]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, ServeError):
        logger.error("a load or unload failed unexpectedly", exc_info=error)


async def _all_done(loads: list[asyncio.Task[None]]) -> None:
    """Waits for loads and says every few seconds how far they are."""
    left: set[asyncio.Task[None]] = set(loads)
    while left:
        _, left = await asyncio.wait(left, timeout=_PROGRESS_INTERVAL_S)
        if left:
            logger.info("loading: %d of %d models done", len(loads) - len(left), len(loads))


async def _remove_after(folder: Path, made_from: Callable[[], list[ServedVersion]]) -> None:
    """Removes the files of a load call when no version made from them is open any more.

    One that an artifact serves for counts as open: its file may be wanted back.
    """
    while versions := made_from():
        for served in versions:
            await served.closed()
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
