"""The queue of jobs, with a job that breaks what runs it."""

import asyncio
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from optimizer.goal import Goal
from optimizer.job import Job, JobState
from optimizer.job_store import JobStore
from optimizer.source import SourceModel
from server.job_queue import JobQueue
from server.load_plan import Origin
from server.metrics import OptimizationFigures
from server.model_config import ModelConfig
from server.optimization_job import LiveJob, Task
from server.repository import VersionFile

FILE = Path("model.onnx")
TASK = Task(
    Origin(VersionFile(FILE, ()), ModelConfig("m")), SourceModel(FILE, "onnx"), None, Goal()
)


@pytest.fixture
def records(tmp_path: Path) -> Iterator[JobStore]:
    with closing(JobStore(tmp_path / "jobs.sqlite")) as store:
        yield store


async def at_once(call: Any, *arguments: Any) -> Any:
    return call(*arguments)


def live(number: int, **changes: Any) -> LiveJob:
    job = Job(id=f"opt-{number}", model="m", version=1, created_s=float(number))
    return LiveJob(replace(job, **changes), TASK)


async def test_a_job_that_breaks_the_queue_fails_alone(
    records: JobStore, caplog: pytest.LogCaptureFixture
) -> None:
    async def rejects(job: LiveJob) -> Job:
        return job.record.reject(2.0, "nothing is better", "{}")

    async def breaks(job: LiveJob) -> Job:
        ended = await rejects(job)
        return replace(ended, goal={"what": object()}) if job is broken else ended

    queue = JobQueue(records, breaks, at_once, OptimizationFigures())
    unwritable, broken, good = live(1, goal={"what": object()}), live(2), live(3)
    with suppress(TypeError):
        await queue.add(unwritable)
    await queue.add(broken)
    await queue.add(good)
    running = asyncio.create_task(queue.run())
    for job in (unwritable, broken, good):
        await job.put_away.wait()
    running.cancel()
    assert unwritable.record.state is JobState.FAILED
    assert "internal error" in unwritable.record.reason
    assert good.record.state is JobState.REJECTED
    assert caplog.text.count("ended unexpectedly") == 2
    found = [(job.id, job.state) for job in await queue.latest("m", 10)]
    assert found == [("opt-3", JobState.REJECTED), ("opt-2", JobState.RUNNING)]
