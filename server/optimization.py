"""Makes models faster while they serve: queues jobs, runs one at a time, lets the winner serve.

A job is one blocking call on a thread that does nothing but wait for child processes, so no
request waits for it. What is asked for is checked in `optimization_request.py`, what happens in a
job is the optimizer's affair, and which form of a version serves is that of `forms.py`.
"""

import asyncio
import json
import logging
import shutil
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from optimizer import device
from optimizer.data import DataSpec
from optimizer.errors import Cancelled, OptimizationError
from optimizer.goal import Goal
from optimizer.job import Job, new_id
from optimizer.job_store import JobStore
from optimizer.progress import Listener, Progress
from optimizer.report import Report
from optimizer.runner import Opener
from optimizer.source import SourceModel, source_of
from optimizer.store import ArtifactStore
from server.chosen import Choices
from server.errors import (
    InvalidRequest,
    JobNotFound,
    LoadFailed,
    ModelNotReady,
    QueueFull,
    ServeError,
    WrongState,
)
from server.forms import Forms
from server.load_plan import Origin
from server.loader import lower_priority
from server.memory import available_bytes
from server.metrics import OptimizationFigures
from server.optimization_job import LiveJob, Task
from server.optimization_request import DataPlaces, Machine, OptimizationRequest, data_spec, goal
from server.registry import Registry
from server.repository import Repository, is_as_it_was
from server.served import ServedVersion
from server.settings import ServeSettings

logger = logging.getLogger(__name__)

T = TypeVar("T")

QUEUE_LIMIT = 32  # jobs asked for by requests that wait; the server's own are one per version
_STOP_S = 15.0  # for the processes of a running job to end
_MEMORY_SHARE = 0.8  # of what is available: what one child process may take
_STOPPED = "the server was stopped"


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


class Optimization:
    """The jobs of one server. Belongs to the event loop."""

    def __init__(
        self,
        registry: Registry,
        repository: Repository,
        settings: ServeSettings,
        optimize: Optimize,
        opener: Opener,
    ) -> None:
        self._registry, self._repository, self._settings = registry, repository, settings
        self._optimize, self._opener = optimize, opener
        self._disk = ThreadPoolExecutor(1, "optimization-disk", initializer=lower_priority)
        # Of ordinary priority, which its child processes lower by themselves.
        self._thread = ThreadPoolExecutor(1, "optimization")
        self._live: dict[str, LiveJob] = {}  # those that have not ended, by id
        self._requested: deque[LiveJob] = deque()
        self._automatic: deque[LiveJob] = deque()
        self._running: LiveJob | None = None
        self._loaded: asyncio.Queue[tuple[str, int]] = asyncio.Queue()
        self._wake = asyncio.Event()
        self._opened = asyncio.Event()  # what follows is there, or there is a problem
        self._store: ArtifactStore
        self._records: JobStore
        self._forms: Forms
        self._is_open = False
        self.problem = ""  # why nothing can be optimized; "" where it can
        self.figures = OptimizationFigures()

    # -- what may be asked

    async def submit(self, request: OptimizationRequest) -> Job:
        """Queues a job.

        Raises:
            InvalidRequest: the request makes no sense for this model.
            ModelNotFound, ModelNotReady: the model does not serve, or nothing can be optimized.
            QueueFull: too many jobs wait.
        """
        await self._until_opened()
        served = self._registry.resolve(request.model, request.version)
        task = await self._task(served, request)
        if len(self._requested) >= QUEUE_LIMIT:
            message = f"{len(self._requested)} optimization jobs wait already"
            raise QueueFull(message, self._settings.optimization_max_time_minutes * 60)
        return await self._queue(self._requested, served, task)

    async def get(self, job_id: str) -> Job:
        """A job with its report. Raises JobNotFound."""
        live = self._live.get(job_id)
        if live is not None:
            return live.record
        await self._until_opened()
        job: Job | None = await self._blocking(self._records.get, job_id)
        if job is None:
            raise JobNotFound(f"there is no optimization '{job_id}'")
        return job

    async def watch(self, job_id: str) -> AsyncGenerator[Job, None]:
        """A job now and whenever it has changed, until it has ended. Raises JobNotFound."""
        live = self._live.get(job_id)
        if live is None:
            yield await self.get(job_id)
            return
        async with aclosing(live.watch()) as states:
            async for job in states:
                yield job

    async def wait(self, job_id: str, wait_s: float) -> Job:
        """A job at its end, or as it is after so many seconds. Raises JobNotFound."""
        live = self._live.get(job_id)
        if live is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    return await live.ended()
        return await self.get(job_id)

    async def jobs(self, model: str = "", limit: int = 100) -> list[Job]:
        """All jobs, or those of one model, without their reports; the latest first."""
        await self._until_opened()
        stored: list[Job] = await self._blocking(self._records.latest, model, limit)
        now = {job.id: job for job in stored} | {
            live.record.id: live.record
            for live in self._live.values()
            if model in ("", live.record.model)
        }
        return sorted(now.values(), key=lambda job: -job.created_s)[:limit]

    def position(self, job_id: str) -> int:
        """How many jobs are before one that waits; 0 for all others."""
        waiting = [live.record.id for live in (*self._requested, *self._automatic)]
        before = int(self._running is not None)
        return waiting.index(job_id) + before if job_id in waiting else 0

    def serving(self, model: str, version: int) -> ServedVersion | None:
        """What answers for a version now."""
        try:
            return self._registry.resolve(model, version)
        except ServeError:
            return None

    async def cancel(self, job_id: str, reason: str) -> Job:
        """Ends a job that waits, at once, or runs, within a moment.

        Raises:
            JobNotFound: there is none of that id.
            WrongState: it has ended already.
        """
        live = self._live.get(job_id)
        if live is None:
            job = await self.get(job_id)
            raise WrongState(f"optimization '{job_id}' has ended already: {job.state}")
        live.cancel(reason)
        await self._put_away_ended(live)
        return live.record

    async def promote(self, model: str, version: int | None, job_id: str = "") -> ServedVersion:
        """Lets the artifact of a job serve; what was last decided on where none is named.

        Raises:
            ModelNotFound, ModelNotReady: the model does not serve.
            JobNotFound: there is no job of that id.
            WrongState: there is no artifact, it serves already, or it is not of what serves.
            LoadFailed: it cannot be opened, or clients would notice a difference.
        """
        await self._until_opened()
        served = self._registry.resolve(model, version)
        task = await self._task(served, OptimizationRequest(model, served.version))
        artifact_id, made_by = await self._promotable(served, task, job_id)
        if served.artifact_id == artifact_id:
            raise WrongState(f"'{artifact_id}' serves already")
        return await self._forms.serve(model, served.version, task, artifact_id, made_by)

    async def roll_back(self, model: str, version: int | None) -> ServedVersion:
        """Lets a version's own file serve again; see `Forms.roll_back`."""
        await self._until_opened()
        return await self._forms.roll_back(model, version)

    # -- what the registry tells

    def version_loaded(self, model: str, version: int) -> None:
        """A version serves what was on disk: what is known of it may serve in its place."""
        self._loaded.put_nowait((model, version))
        self.models_changed()

    def models_changed(self, *_: object) -> None:
        """Ends the jobs whose version has been changed or unloaded."""
        for live in list(self._live.values()):
            if self._registry.origin(*live.version) != live.task.origin:
                live.cancel("the model was changed or unloaded meanwhile")
        if self._is_open:
            self._forms.forget_gone()

    # -- life

    async def run(self) -> None:
        """Works until it is cancelled."""
        try:
            await self._open()
            self._is_open = True
        except (OptimizationError, OSError) as error:
            self.problem = f"nothing can be optimized: {error}"
            logger.error("%s", self.problem)
            return
        finally:
            self._opened.set()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._greet_all())
            tasks.create_task(self._work())

    async def stop(self) -> None:
        """Cancels all jobs, takes no more; returns when their processes have ended."""
        self.problem = "the server is shutting down"
        self._opened.set()
        for live in list(self._live.values()):
            live.cancel(_STOPPED)
            await self._put_away_ended(live)
        with suppress(TimeoutError):
            async with asyncio.timeout(_STOP_S):
                while self._live:
                    await next(iter(self._live.values())).put_away.wait()

    def close(self) -> None:
        """Frees what is left, when `run` has been cancelled."""
        if self._is_open:
            self._disk.submit(self._records.close)
        self._disk.shutdown(wait=False)
        self._thread.shutdown(wait=False)

    async def _open(self) -> None:
        folder = self._settings.state_dir
        limit_bytes = self._settings.artifact_limit_mb * 2**20
        self._store = await self._blocking(ArtifactStore, folder / "artifacts", limit_bytes)
        self._records = await self._blocking(JobStore, folder / "jobs.sqlite")
        await self._blocking(self._remove_leftovers)
        choices = await self._blocking(Choices, folder / "serving.json")
        self._forms = Forms(
            self._registry,
            self._store,
            choices=choices,
            device=await self._blocking(device.read),
            figures=self.figures,
            blocking=self._blocking,
        )

    def _remove_leftovers(self) -> None:
        """Removes the work folders of jobs that ended without a chance to do so."""
        for folder in self._work_folder.glob("*"):
            job = self._records.get(folder.name)
            if job is None or job.is_ended:
                shutil.rmtree(folder, ignore_errors=True)

    @property
    def _work_folder(self) -> Path:
        return self._settings.state_dir / "work"

    async def _until_opened(self) -> None:
        await self._opened.wait()
        if self.problem:
            raise ModelNotReady(self.problem)

    async def _blocking(self, call: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._disk, call, *arguments)

    # -- what is asked for, as a task

    async def _task(self, served: ServedVersion, request: OptimizationRequest) -> Task:
        origin = self._registry.origin(served.model, served.version)
        if origin is None:
            name = f"model '{served.model}' version {served.version}"
            raise ModelNotReady(f"{name} is being unloaded")
        return await self._blocking(self._prepared, served, origin, request)

    def _prepared(
        self, served: ServedVersion, origin: Origin, request: OptimizationRequest
    ) -> Task:
        """Checks a request against a version and the disk; runs on a thread."""
        config, settings = origin.config, self._settings
        wanted = goal(
            request,
            config.optimization,
            settings,
            Machine(settings.threads, _memory_mb()),
            is_batched=served.profile.batchable,
        )
        data = data_spec(request, config.data, self._places(served.model))
        try:
            return Task(origin, source_of(origin.file.path), data, wanted, request.promotes)
        except OptimizationError as error:
            raise InvalidRequest(f"model '{served.model}' cannot be optimized: {error}") from None

    def _places(self, model: str) -> DataPlaces:
        folder = self._repository.folder_of(model)
        own = [folder] if folder else []
        allowed = [*self._repository.folders(), *own, *self._settings.data_folders]
        return DataPlaces(folder, allowed, self._settings.databases)

    async def _promotable(self, served: ServedVersion, task: Task, job_id: str) -> tuple[str, str]:
        """The artifact to promote, and the job that made it."""
        name = f"model '{served.model}' version {served.version}"
        if not job_id:
            choice = self._forms.latest(served.model, served.version)
            if choice is None:
                raise WrongState(f"{name}: no artifact has served for it; name an optimization")
            made_of, artifact_id, job_id = choice.source, choice.artifact_id, choice.optimization_id
        else:
            job = await self.get(job_id)
            if (job.model, job.version) != (served.model, served.version):
                raise WrongState(f"{job_id} is of model '{job.model}' version {job.version}")
            made_of, artifact_id = str(job.goal.get("source")), job.artifact_id
        if not artifact_id:
            raise WrongState(f"{job_id} has no artifact")
        if made_of != await self._blocking(task.source.fingerprint):
            raise WrongState(f"{name} has been changed since '{artifact_id}' was made")
        return artifact_id, job_id

    # -- the queue

    async def _queue(self, queue: deque[LiveJob], served: ServedVersion, task: Task) -> Job:
        source = await self._blocking(task.source.fingerprint)
        if self.problem:
            raise ModelNotReady(self.problem)
        record = Job(
            id=new_id(),
            model=served.model,
            version=served.version,
            goal={**asdict(task.goal), "source": source},
            is_automatic=queue is self._automatic,
            created_s=time.time(),
        )
        live = self._live[record.id] = LiveJob(record, task)
        queue.append(live)
        self._wake.set()
        await self._blocking(self._records.save, record)
        return live.record

    async def _greet_all(self) -> None:
        while True:
            model, version = await self._loaded.get()
            try:
                await self._greet(model, version)
            except (ServeError, OptimizationError) as error:
                logger.info("model '%s' version %d is not optimized: %s", model, version, error)
            except Exception:
                logger.exception("model '%s' version %d is not optimized", model, version)

    async def _greet(self, model: str, version: int) -> None:
        """Lets serve what is known of a version that was loaded, else queues a job for it."""
        served = self.serving(model, version)
        if served is None or not self._is_wanted(served):
            return
        task = await self._task(served, OptimizationRequest(model, version))
        if not await self._forms.recall(model, version, task):
            await self._queue(self._automatic, served, task)

    def _is_wanted(self, served: ServedVersion) -> bool:
        return self._settings.optimize == "auto" and served.config.optimization.enabled

    async def _next(self) -> LiveJob:
        """The job whose turn it is; those that were asked for go first."""
        while not (self._requested or self._automatic):
            self._wake.clear()
            await self._wake.wait()
        return (self._requested or self._automatic).popleft()

    async def _put_away_ended(self, live: LiveJob) -> None:
        """Keeps the record of a job that has ended, and forgets the rest of it."""
        if not live.record.is_ended or live.record.id not in self._live:
            return
        await self._blocking(self._records.save, live.record)
        self._live.pop(live.record.id, None)
        for queue in (self._requested, self._automatic):
            if live in queue:
                queue.remove(live)
        self._count(live)
        live.put_away.set()

    def _count(self, live: LiveJob) -> None:
        self.figures.jobs[live.record.state] += 1
        for outcome in live.outcomes:
            for stage, seconds in outcome.seconds.items():
                self.figures.add_stage(stage, seconds)

    # -- one job

    async def _work(self) -> None:
        while True:
            live = await self._next()
            if not live.record.is_ended:
                self._running = live
                try:
                    await self._run(live)
                finally:
                    self._running = None
            await self._put_away_ended(live)

    async def _run(self, live: LiveJob) -> None:
        live.become(live.record.begin(time.time()))
        await self._blocking(self._records.save, live.record)
        name = f"{live.record.id} (model '{live.record.model}' version {live.record.version})"
        logger.info("%s: optimization begins", name)
        live.become(await self._ended(live))
        job = live.record
        seconds = job.ended_s - job.started_s
        logger.info("%s: %s after %.1f s %s", name, job.state, seconds, job.reason)

    async def _ended(self, live: LiveJob) -> Job:
        """Runs a job; the job at its end, whatever that is."""
        try:
            return await self._concluded(live, await self._report(live))
        except Cancelled:
            return live.record.cancel(time.time(), live.cancel_reason)
        except (OptimizationError, ServeError) as error:
            if live.is_cancelled.is_set():
                return live.record.cancel(time.time(), live.cancel_reason)
            return live.record.fail(time.time(), str(error))
        except Exception:
            logger.exception("%s failed", live.record.id)
            return live.record.fail(time.time(), "internal error, the server's log says more")

    async def _report(self, live: LiveJob) -> Report:
        await self._check_unchanged(live)
        task, loop = live.task, asyncio.get_running_loop()
        work = self._work_folder / live.record.id
        await self._blocking(partial(work.mkdir, parents=True))

        def listener(progress: Progress) -> None:
            loop.call_soon_threadsafe(live.show, progress)

        call = partial(
            self._optimize,
            task.source,
            task.data,
            task.goal,
            opener=self._opener,
            store=self._store,
            work=work,
            databases=self._settings.databases,
            listener=listener,
            cancelled=live.is_cancelled,
        )
        try:
            return await loop.run_in_executor(self._thread, call)
        finally:
            await self._blocking(partial(shutil.rmtree, work, ignore_errors=True))

    async def _concluded(self, live: LiveJob, report: Report) -> Job:
        """The end of a job whose report is there; its winner serves by then, if it is to."""
        own = replace(report.model, name=live.record.model)
        report = replace(report, optimization_id=live.record.id, model=own)
        text = json.dumps(report.to_json())
        if report.artifact_id is None:
            return live.record.reject(time.time(), report.reason, text)
        await self._check_unchanged(live)
        artifact = await self._blocking(self._store.get, report.artifact_id)
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
        served = self.serving(model, version)
        if served is not None and served.artifact_id == artifact_id:
            return ""
        try:
            await self._forms.serve(model, version, live.task, artifact_id, live.record.id)
            return ""
        except (LoadFailed, WrongState) as error:
            logger.warning("model '%s' version %d serves as it did: %s", model, version, error)
            return str(error)

    async def _check_unchanged(self, live: LiveJob) -> None:
        """Raises WrongState where a job's model is not what was to be optimized any more."""
        origin = live.task.origin
        is_same = self._registry.origin(*live.version) == origin
        if not is_same or not await self._blocking(is_as_it_was, origin.file):
            raise WrongState("the model's files were changed, or it was unloaded, meanwhile")


def _memory_mb() -> int:
    """What one child process may take; 0, no limit, where nothing tells what is available."""
    return int((available_bytes() or 0) * _MEMORY_SHARE) // 2**20
