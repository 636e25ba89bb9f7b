"""One version that serves: its batcher, its statistics, and what keeps it alive.

A handle (`acquire` … `release`) holds a version open for one request. `retire` lets it go: it
closes when the last handle is released, so a request that began on a version ends on it. That is
the whole hot swap.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import partial

from protos.signature import Signature
from protos.tensors import Array
from server import execution
from server.backends.base import Backend
from server.batcher import Batcher
from server.execution import Plan
from server.instance import Instance
from server.instance_pool import InstancePool
from server.loader import LoadedModel
from server.model_config import ModelConfig, Optimized, VersionSource
from server.probe import Profile
from server.slots import ComputeSlots
from server.statistics import VersionStatistics
from server.validation import Validator

logger = logging.getLogger(__name__)

_LONGEST_END_S = 1.0  # runs that nobody waits for are waited for so long when a version closes


class ServedVersion:
    """A loaded version under traffic. All methods belong to the event loop."""

    def __init__(self, source: VersionSource, loaded: LoadedModel, slots: ComputeSlots) -> None:
        self.model: str = source.model
        self.version: int = source.version
        self.config: ModelConfig = source.config
        self.optimized: Optimized | None = source.optimized
        self.signature: Signature = loaded.signature
        self.profile: Profile = loaded.profile
        self.loaded = loaded
        self.stats = VersionStatistics()
        self.validator = Validator(self.model, self.signature, self.profile)
        self.problem = ""  # why the version cannot be relied on just now; empty when it can
        self.on_health: Callable[[], None] = _nothing  # called when `problem` changes
        self.batcher = Batcher(
            self.model,
            self.signature,
            self.profile,
            settings=loaded.settings,
            pool=_pool(self, slots),
            statistics=self.stats,
            on_health=self._on_health,
        )
        self._handles = 0
        self._is_retired = False
        self._closed = asyncio.Event()
        self._example: Mapping[str, Array] = loaded.example
        self._trial: Instance | None = None
        self._n_trials = 0  # threads inside the backend for a trial, given up on or not
        self._is_closing = False

    @property
    def platform(self) -> str:
        return self.loaded.narrow.platform

    @property
    def artifact_id(self) -> str:
        return self.loaded.narrow.artifact_id

    @property
    def backends(self) -> tuple[Backend, ...]:
        """The narrow session, and the wide one where there is one."""
        wide = self.loaded.wide
        return (self.loaded.narrow,) if wide is None else (self.loaded.narrow, wide)

    @property
    def memory_bytes(self) -> int:
        return sum(backend.memory_bytes for backend in self.backends)

    def succeed(self, other: "ServedVersion") -> None:
        """Looks to clients and operators as `other`, whose place it takes, looks to them.

        Its tensors are described in the same words, and what an operator set while the other
        served is set here too. Call it before the first request comes.
        """
        self.signature = other.signature
        self.validator = Validator(self.model, self.signature, self.profile)
        before, now = other.loaded.settings, other.batcher.settings
        kept = {
            f.name: getattr(now, f.name)
            for f in fields(now)
            if getattr(now, f.name) != getattr(before, f.name)
        }
        if kept:
            self.batcher.apply(replace(self.batcher.settings, **kept))

    def acquire(self) -> None:
        """Takes a handle."""
        self._handles += 1

    def release(self) -> None:
        """Gives a handle back; the last one of a retired version closes it."""
        self._handles -= 1
        if self._is_retired and not self._handles:
            self._close()

    def retire(self) -> None:
        """No new requests come; closes at once or with the last handle."""
        if not self._is_retired:
            self._is_retired = True
            if not self._handles:
                self._close()

    async def closed(self) -> None:
        """Waits until a retired version has closed, or all but a run that takes long."""
        await self._closed.wait()

    def check(self, hang_timeout_s: float) -> None:
        """The heartbeat, to be called every second or so."""
        self.batcher.check(time.monotonic(), hang_timeout_s)

    def _close(self) -> None:
        self.batcher.close()
        self._is_closing = True
        self.batcher.pool.on_empty = self._free
        self.batcher.pool.interrupt()
        if self._trial is not None:
            self.loaded.narrow.interrupt(self._trial.thread_id)
        self._free()
        if self._is_occupied:
            asyncio.get_running_loop().call_later(_LONGEST_END_S, self._closed.set)

    @property
    def _is_occupied(self) -> bool:
        """Whether a thread is inside a backend."""
        return bool(self.batcher.pool.n_inside or self._n_trials)

    def _free(self) -> None:
        """Closes the backends, unless a thread is inside one: then when it comes out."""
        if self._is_occupied:
            return
        freed = asyncio.get_running_loop().run_in_executor(None, self.loaded.close)
        freed.add_done_callback(self._freed)

    def _freed(self, freed: asyncio.Future[None]) -> None:
        self._closed.set()
        if (error := freed.exception()) is not None:
            logger.error(
                "model '%s' version %d: not freed", self.model, self.version, exc_info=error
            )

    def _on_health(self, problem: str) -> None:
        """Reports the version as unreliable until a batch, or an example, has been answered."""
        if problem:
            logger.error("model '%s' version %d: %s", self.model, self.version, problem)
            self._try_example()
        else:
            logger.info("model '%s' version %d answers again", self.model, self.version)
        self._set_problem(problem)

    def _try_example(self) -> None:
        if not self._example:
            return
        if self._trial is not None:
            self._trial.abandon(self._trial_left)
            self.loaded.narrow.interrupt(self._trial.thread_id)
        self._n_trials += 1
        trial = self._trial = Instance(f"{self.model}-trial", 1)
        outcomes: list[execution.Outcome] = []
        plan = _plan(self, self.loaded.narrow)
        part = execution.Part(self._example, 1, ())

        def work() -> None:
            outcomes.append(execution.run(plan, [part]))

        trial.run(work, partial(self._trial_ended, trial, outcomes))

    def _trial_ended(
        self, trial: Instance, outcomes: list[execution.Outcome], error: BaseException | None
    ) -> None:
        trial.close()
        self._trial = None
        self._trial_left()
        if error is None and self.problem and isinstance(outcomes[0].results[0], dict):
            self._on_health("")

    def _trial_left(self) -> None:
        self._n_trials -= 1
        if self._is_closing:
            self._free()

    def _set_problem(self, problem: str) -> None:
        self.problem = problem
        self.on_health()


def _nothing() -> None:
    """Nobody has asked to be told."""


def _plan(served: ServedVersion, backend: Backend) -> Plan:
    profile = served.profile
    has_rows = profile.batchable or profile.request_rows is not None
    return Plan(served.model, backend, has_rows, profile.pad)


def _pool(served: ServedVersion, slots: ComputeSlots) -> InstancePool:
    loaded = served.loaded
    wide = None if loaded.wide is None else _plan(served, loaded.wide)
    narrow = _plan(served, loaded.narrow)
    name = f"{served.model}-{served.version}"
    return InstancePool(name, narrow, wide, loaded.instances, slots)
