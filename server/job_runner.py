"""One job from its turn to its end: runs the optimizer on a thread, lets the winner serve."""

import asyncio
import json
import logging
import shutil
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from optimizer.data import DataSpec
from optimizer.errors import Cancelled, OptimizationError
from optimizer.goal import Goal
from optimizer.job import Job
from optimizer.progress import Listener
from optimizer.report import Report
from optimizer.runner import Opener
from optimizer.source import SourceModel
from optimizer.store import ArtifactStore
from server.errors import ServeError, WrongState
from server.forms import Blocking, Forms, Made
from server.optimization_job import LiveJob, Relay
from server.registry import Registry
from server.repository import is_as_it_was

logger = logging.getLogger(__name__)


class Optimize(Protocol):
    """`optimizer.pipeline.optimize`."""

    def __call__(
        self,
        source: SourceModel,
        data: DataSpec | None,
        goal: Goal,
        *,
        opener: Opener,
        store: ArtifactStore,
        work: Path,
        databases: Mapping[str, str],
        listener: Listener,
        cancelled: threading.Event,
    ) -> Report: ...


@dataclass(frozen=True, slots=True)
class Workshop:
    """What every job is given: the optimizer, and what it works with."""

    optimize: Optimize
    opener: Opener
    store: ArtifactStore
    databases: Mapping[str, str]
    folder: Path  # of the folders of running jobs


class JobRunner:
    """Runs one job after the other. Belongs to the event loop; what blocks runs by `blocking`."""

    def __init__(
        self, workshop: Workshop, registry: Registry, forms: Forms, blocking: Blocking
    ) -> None:
        self._workshop, self._registry, self._forms = workshop, registry, forms
        self._blocking = blocking
        # Of ordinary priority, which its child processes lower by themselves.
        self._thread = ThreadPoolExecutor(1, "optimization")

    def close(self) -> None:
        """No job runs any more, or it is not waited for."""
        self._thread.shutdown(wait=False)

    async def run(self, live: LiveJob) -> Job:
        """Runs a job that has begun; returns it at its end, whatever that is."""
        try:
            return await self._concluded(live, await self._report(live))
        except Cancelled:
            return live.record.cancel(time.time(), live.cancel_reason)
        except (OptimizationError, ServeError) as error:
            if live.is_cancelled.is_set():
                return live.record.cancel(time.time(), live.cancel_reason)
            # A stage's last lines come after the first one; they are in the log already.
            return live.record.fail(time.time(), str(error).partition("\n")[0])
        except Exception:
            logger.exception("%s failed", live.record.id)
            return live.record.fail(time.time(), "internal error, the server's log says more")

    async def _report(self, live: LiveJob) -> Report:
        await self._check_unchanged(live)
        task, loop = live.task, asyncio.get_running_loop()
        workshop = self._workshop
        work = workshop.folder / live.record.id
        await self._blocking(partial(work.mkdir, parents=True))
        relay = Relay(live)
        call = partial(
            workshop.optimize,
            task.source,
            task.data,
            task.goal,
            opener=workshop.opener,
            store=workshop.store,
            work=work,
            databases=workshop.databases,
            listener=relay,
            cancelled=live.is_cancelled,
        )
        try:
            return await loop.run_in_executor(self._thread, call)
        finally:
            relay.flush()
            await self._blocking(partial(shutil.rmtree, work, ignore_errors=True))

    async def _concluded(self, live: LiveJob, report: Report) -> Job:
        """The end of a job whose report is there; its winner serves by then, if it is to."""
        own = replace(report.model, name=live.record.model)
        report = replace(report, optimization_id=live.record.id, model=own)
        text = json.dumps(report.to_json())
        if report.artifact_id is None:
            await self._withdrawn(live)
            return live.record.reject(time.time(), report.reason, text)
        await self._check_unchanged(live)
        artifact = await self._blocking(self._workshop.store.get, report.artifact_id)
        if artifact is None:
            raise WrongState(f"the artifact '{report.artifact_id}' is not in the store any more")
        if live.is_cancelled.is_set():
            raise Cancelled(live.cancel_reason)
        problem = await self._promoted(live, artifact.artifact_id) if live.task.promotes else ""
        made = artifact.artifact_id, artifact.techniques
        job = live.record.complete(time.time(), *made, text)
        return replace(job, reason=report.reason, not_serving_reason=problem)

    async def _promoted(self, live: LiveJob, artifact_id: str) -> str:
        """Lets the winner of a job serve; returns why it does not, "" where it does."""
        model, version = live.version
        try:
            made = Made(artifact_id, live.record.id, str(live.record.goal["source"]))
            if self._registry.resolve(model, version).artifact_id == artifact_id:
                await self._forms.remember(model, version, live.task, made)
                return ""
            await self._forms.serve(model, version, live.task, made)
            return ""
        except ServeError as error:
            logger.warning("model '%s' version %d serves as it did: %s", model, version, error)
            return str(error)

    async def _withdrawn(self, live: LiveJob) -> None:
        """What served meanwhile is not what the model's configuration asks for now."""
        if not live.record.is_automatic:
            return
        try:
            await self._forms.withdraw(*live.version, live.task)
        except ServeError as error:
            logger.warning("model '%s' version %d serves as it did: %s", *live.version, error)

    async def _check_unchanged(self, live: LiveJob) -> None:
        """Raises WrongState where a job's model is not what was to be optimized any more."""
        origin = live.task.origin
        is_same = self._registry.origin(*live.version) == origin
        if not is_same or not await self._blocking(is_as_it_was, origin.file):
            raise WrongState("the model's files were changed, or it was unloaded, meanwhile")
