"""The jobs of one server: which wait, which one runs, what is remembered of the others."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress

from optimizer.job import Job
from optimizer.job_store import JobStore
from server.errors import JobNotFound, QueueFull, WrongState
from server.forms import Blocking
from server.metrics import OptimizationFigures
from server.optimization_job import LiveJob

logger = logging.getLogger(__name__)

QUEUE_LIMIT = 32  # jobs asked for by requests that wait; the server's own are one per version
_STOP_S = 15.0  # for the processes of a running job to end


class JobQueue:
    """Runs one job at a time. Belongs to the event loop; what blocks runs by `blocking`."""

    def __init__(
        self, records: JobStore, run: Callable[[LiveJob], Awaitable[Job]], blocking: Blocking,
        figures: OptimizationFigures,
    ) -> None:  # fmt: skip
        """`run` runs a job that has begun, and returns it at its end."""
        self._records, self._run_job = records, run
        self._blocking, self._figures = blocking, figures
        self._live: dict[str, LiveJob] = {}  # those that have not ended, by id
        self._requested: deque[LiveJob] = deque()
        self._automatic: deque[LiveJob] = deque()
        self._running: LiveJob | None = None
        self._wake = asyncio.Event()

    # -- reading

    async def get(self, job_id: str) -> Job:
        """A job with its report. Raises JobNotFound."""
        live = self._live.get(job_id)
        if live is not None:
            return live.record
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

    async def latest(self, model: str, limit: int) -> list[Job]:
        """All jobs, or those of one model, without their reports; the latest first."""
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

    # -- changing

    async def add(self, live: LiveJob) -> None:
        """Puts a job into its queue; those that the server itself wants go last.

        Raises:
            QueueFull: too many wait.
        """
        queue = self._automatic if live.record.is_automatic else self._requested
        if queue is self._requested and len(queue) >= QUEUE_LIMIT:
            message = f"{len(queue)} optimization jobs wait already"
            raise QueueFull(message, live.task.goal.time_limit_s)
        self._live[live.record.id] = live
        queue.append(live)
        self._wake.set()
        await self._blocking(self._records.save, live.record)

    async def cancel(self, job_id: str, reason: str) -> Job:
        """Ends a job that waits, at once, or runs, within a moment.

        Raises:
            JobNotFound: there is none of that id.
            WrongState: it has ended already.
        """
        live = self._live.get(job_id)
        if live is None or live.record.is_ended:
            job = await self.get(job_id)
            raise WrongState(f"optimization '{job_id}' has ended already: {job.state}")
        live.cancel(reason)
        await self._put_away(live)
        return live.record

    def cancel_where(self, is_meant: Callable[[LiveJob], bool], reason: str) -> None:
        """Asks all jobs that are meant to end."""
        for live in self._live.values():
            if is_meant(live):
                live.cancel(reason)

    async def stop(self, reason: str) -> None:
        """Cancels all jobs; returns when their processes have ended."""
        self.cancel_where(lambda _: True, reason)
        for live in list(self._live.values()):
            await self._put_away(live)
        with suppress(TimeoutError):
            async with asyncio.timeout(_STOP_S):
                while self._live:
                    await next(iter(self._live.values())).put_away.wait()

    # -- running

    async def run(self) -> None:
        """Works off the queues until it is cancelled."""
        while True:
            live = await self._next()
            try:
                if not live.record.is_ended:
                    await self._run(live)
                await self._put_away(live)
            except Exception:  # a bug, for which the jobs behind it are not to wait for ever
                logger.exception("%s ended unexpectedly", live.record.id)
                await self._give_up(live)

    async def _next(self) -> LiveJob:
        """The job whose turn it is; those that were asked for go first."""
        while not (self._requested or self._automatic):
            self._wake.clear()
            await self._wake.wait()
        return (self._requested or self._automatic).popleft()

    async def _run(self, live: LiveJob) -> None:
        self._running = live
        try:
            await self._begin_and_end(live)
        finally:
            self._running = None

    async def _give_up(self, live: LiveJob) -> None:
        if not live.record.is_ended:
            reason = "internal error, the server's log says more"
            live.become(live.record.fail(time.time(), reason))
        with suppress(Exception):
            await self._put_away(live)

    async def _begin_and_end(self, live: LiveJob) -> None:
        live.become(live.record.begin(time.time()))
        await self._blocking(self._records.save, live.record)
        name = f"{live.record.id} (model '{live.record.model}' version {live.record.version})"
        logger.info("%s: optimization begins", name)
        live.become(await self._run_job(live))
        job = live.record
        seconds = job.ended_s - job.started_s
        logger.info("%s: %s after %.1f s %s", name, job.state, seconds, job.reason)

    async def _put_away(self, live: LiveJob) -> None:
        """Keeps the record of a job, if it has ended, and forgets the rest of it."""
        if not live.record.is_ended or live.is_put_away:
            return
        live.is_put_away = True
        for queue in (self._requested, self._automatic):
            if live in queue:
                queue.remove(live)
        self._count(live)
        try:
            await self._blocking(self._records.save, live.record)
        finally:
            del self._live[live.record.id]
            live.put_away.set()

    def _count(self, live: LiveJob) -> None:
        self._figures.jobs[live.record.state] += 1
        for outcome in live.outcomes:
            for stage, seconds in outcome.seconds.items():
                self._figures.add_stage(stage, seconds)
