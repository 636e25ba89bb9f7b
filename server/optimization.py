"""Makes models faster while they serve: what may be asked for, and what happens at load.

A job is one blocking call on a thread that does nothing but wait for child processes, so no
request waits for it. What is asked for is checked in `optimization_request.py`, jobs wait in
`job_queue.py` and run in `job_runner.py`; which form of a version serves is kept by `forms.py`.
"""

import asyncio
import logging
import shutil
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import asdict
from typing import Any, TypeVar

from optimizer import device
from optimizer.errors import OptimizationError
from optimizer.job import Job, new_id
from optimizer.job_store import JobStore
from optimizer.runner import Opener
from optimizer.source import source_of
from optimizer.store import ArtifactStore
from server.chosen import Choices
from server.errors import InvalidRequest, ModelNotReady, ServeError, WrongState
from server.forms import Forms, Made
from server.job_queue import JobQueue
from server.job_runner import JobRunner, Optimize, Workshop
from server.load_plan import Origin
from server.loader import lower_priority
from server.memory import available_bytes
from server.metrics import OptimizationFigures
from server.optimization_job import LiveJob, Task
from server.optimization_request import (
    DataPlaces,
    Machine,
    OptimizationRequest,
    configured_print,
    data_spec,
    goal,
)
from server.registry import Registry
from server.repository import Repository
from server.served import ServedVersion
from server.settings import ServeSettings

logger = logging.getLogger(__name__)

T = TypeVar("T")

_MEMORY_SHARE = 0.8  # of what is available: what one child process may take


class Optimization:
    """The one entry to optimization. Belongs to the event loop."""

    def __init__(
        self,
        registry: Registry,
        repository: Repository,
        settings: ServeSettings,
        *,
        optimize: Optimize,
        opener: Opener,
    ) -> None:
        self._registry, self._repository, self._settings = registry, repository, settings
        self._optimize, self._opener = optimize, opener
        self._disk = ThreadPoolExecutor(1, "optimization-disk", initializer=lower_priority)
        self._loaded: asyncio.Queue[tuple[str, int]] = asyncio.Queue()
        self._problem = ""  # why nothing can be optimized; "" where it can
        self._opened = asyncio.Event()  # what follows is there, or there is a problem
        self._is_open = False
        self._records: JobStore
        self._forms: Forms
        self._runner: JobRunner
        self._jobs: JobQueue
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
        return await self._add(served, await self._task(served, request))

    async def get(self, job_id: str) -> Job:
        """A job with its report. Raises JobNotFound."""
        await self._until_opened()
        return await self._jobs.get(job_id)

    async def watch(self, job_id: str) -> AsyncGenerator[Job, None]:
        """A job now and whenever it has changed, until it has ended. Raises JobNotFound."""
        await self._until_opened()
        async with aclosing(self._jobs.watch(job_id)) as states:
            async for job in states:
                yield job

    async def wait(self, job_id: str, wait_s: float) -> Job:
        """A job at its end, or as it is after so many seconds. Raises JobNotFound."""
        await self._until_opened()
        return await self._jobs.wait(job_id, wait_s)

    async def jobs(self, model: str = "", limit: int = 100) -> list[Job]:
        """All jobs, or those of one model, without their reports; the latest first."""
        await self._until_opened()
        return await self._jobs.latest(model, limit)

    def position(self, job_id: str) -> int:
        """How many jobs are before one that waits; 0 for all others."""
        return self._jobs.position(job_id)

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
        await self._until_opened()
        return await self._jobs.cancel(job_id, reason)

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
        made = await self._promotable(served, task, job_id)
        if served.artifact_id == made.artifact_id:
            raise WrongState(f"'{made.artifact_id}' serves already")
        return await self._forms.serve(model, served.version, task, made)

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
        if self._is_open:
            reason = "the model was changed or unloaded meanwhile"
            self._jobs.cancel_where(self._is_outdated, reason)
            self._forms.forget_gone()

    def _is_outdated(self, live: LiveJob) -> bool:
        return self._registry.origin(*live.version) != live.task.origin

    # -- life

    async def run(self) -> None:
        """Works until it is cancelled."""
        try:
            await self._open()
            self._is_open = True
        except (OptimizationError, OSError) as error:
            self._problem = f"nothing can be optimized: {error}"
            logger.error("%s", self._problem)
            return
        finally:
            self._opened.set()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._greet_all())
            tasks.create_task(self._jobs.run())

    async def stop(self) -> None:
        """Cancels all jobs, takes no more; returns when their processes have ended."""
        self._problem = "the server is shutting down"
        self._opened.set()
        if self._is_open:
            await self._jobs.stop("the server was stopped")

    def close(self) -> None:
        """Frees what is left, when `run` has been cancelled."""
        if self._is_open:
            self._runner.close()
            self._disk.submit(self._records.close)
        self._disk.shutdown(wait=False)

    async def _open(self) -> None:
        settings, folder = self._settings, self._settings.state_dir
        limit_bytes = settings.artifact_limit_mb * 2**20
        store = await self._blocking(ArtifactStore, folder / "artifacts", limit_bytes)
        self._records = await self._blocking(JobStore, folder / "jobs.sqlite")
        await self._blocking(self._remove_leftovers)
        self._forms = Forms(
            self._registry,
            store,
            choices=await self._blocking(Choices, folder / "serving.json"),
            device=await self._blocking(device.read),
            figures=self.figures,
            blocking=self._blocking,
        )
        workshop = Workshop(
            self._optimize, self._opener, store, settings.databases, folder / "work"
        )
        self._runner = JobRunner(workshop, self._registry, self._forms, self._blocking)
        self._jobs = JobQueue(self._records, self._runner.run, self._blocking, self.figures)

    def _remove_leftovers(self) -> None:
        """Removes the work folders of jobs that ended without a chance to do so."""
        for folder in (self._settings.state_dir / "work").glob("*"):
            job = self._records.get(folder.name)
            if job is None or job.is_ended:
                shutil.rmtree(folder, ignore_errors=True)

    async def _until_opened(self) -> None:
        """Raises ModelNotReady where nothing can be optimized; what was done can still be read."""
        await self._opened.wait()
        if not self._is_open:
            raise ModelNotReady(self._problem)

    async def _blocking(self, call: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._disk, call, *arguments)

    # -- at load

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
            await self._add(served, task, is_automatic=True)

    def _is_wanted(self, served: ServedVersion) -> bool:
        return self._settings.optimize == "auto" and served.config.optimization.enabled

    # -- what is asked for, as a task and as a job

    async def _task(self, served: ServedVersion, request: OptimizationRequest) -> Task:
        origin = self._registry.origin(served.model, served.version)
        if origin is None:
            raise ModelNotReady(f"{_named(served)} is being unloaded")
        return await self._blocking(self._prepared, served, origin, request)

    def _prepared(
        self, served: ServedVersion, origin: Origin, request: OptimizationRequest
    ) -> Task:
        """Checks a request against a version and the disk; runs on a thread."""
        config, settings = origin.config, self._settings
        machine = Machine(settings.threads, _memory_mb())
        is_batched = served.profile.batchable
        wanted = goal(request, config.optimization, settings, machine, is_batched=is_batched)
        data = data_spec(request, config.data, self._places(served.model))
        try:
            source = source_of(origin.file.path)
            configured = configured_print(config, settings)
            return Task(origin, source, data, wanted, request.promotes, configured)
        except OptimizationError as error:
            raise InvalidRequest(f"{_named(served)} cannot be optimized: {error}") from None

    def _places(self, model: str) -> DataPlaces:
        folder = self._repository.folder_of(model)
        own = [folder] if folder else []
        allowed = [*self._repository.folders(), *own, *self._settings.data_folders]
        return DataPlaces(folder, allowed, self._settings.databases)

    async def _add(self, served: ServedVersion, task: Task, *, is_automatic: bool = False) -> Job:
        source = await self._blocking(task.source.fingerprint)
        if self._problem:
            raise ModelNotReady(self._problem)
        record = Job(
            id=new_id(),
            model=served.model,
            version=served.version,
            goal={**asdict(task.goal), "source": source},
            is_automatic=is_automatic,
            created_s=time.time(),
        )
        live = LiveJob(record, task)
        await self._jobs.add(live)
        return live.record

    async def _promotable(self, served: ServedVersion, task: Task, job_id: str) -> Made:
        """The artifact to promote."""
        if job_id:
            job = await self._jobs.get(job_id)
            if (job.model, job.version) != (served.model, served.version):
                raise WrongState(f"{job_id} is of model '{job.model}' version {job.version}")
            made_of, artifact_id = str(job.goal.get("source")), job.artifact_id
        else:
            choice = self._forms.latest(served.model, served.version)
            if choice is None:
                raise WrongState(f"{_named(served)}: no artifact has served for it yet, name a job")
            made_of, artifact_id, job_id = choice.source, choice.artifact_id, choice.optimization_id
        if not artifact_id:
            raise WrongState(f"{job_id} has no artifact")
        if made_of != await self._blocking(task.source.fingerprint):
            raise WrongState(f"{_named(served)} has been changed since '{artifact_id}' was made")
        return Made(artifact_id, job_id, made_of)


def _named(served: ServedVersion) -> str:
    return f"model '{served.model}' version {served.version}"


def _memory_mb() -> int:
    """What one child process may take; 0, no limit, where nothing tells what is available."""
    return int((available_bytes() or 0) * _MEMORY_SHARE) // 2**20
