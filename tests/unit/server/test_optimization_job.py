"""What a job's thread tells, and when the event loop hears of it."""

import asyncio
from pathlib import Path

from optimizer.candidate import Candidate, Outcome, State
from optimizer.goal import Goal
from optimizer.job import LOG_LINES, Job
from optimizer.progress import Progress
from optimizer.source import SourceModel
from server.load_plan import Origin
from server.model_config import ModelConfig
from server.optimization_job import LiveJob, Relay, Task
from server.repository import VersionFile

FILE = Path("model.onnx")
ORIGIN = Origin(VersionFile(FILE, ()), ModelConfig("m"))
OUTCOME = Outcome(Candidate("int8", (), "onnxruntime"), State.BUILDING)


def running() -> LiveJob:
    job = Job(id="opt-1", model="m", version=1).begin(1.0)
    return LiveJob(job, Task(ORIGIN, SourceModel(FILE, "onnx"), None, Goal()))


async def test_a_flood_of_lines_wakes_the_loop_a_few_times_only() -> None:
    live = running()
    seen: list[Job] = []

    async def watch() -> None:
        async for job in live.watch():
            seen.append(job)

    def flood(relay: Relay) -> None:
        for number in range(5000):
            relay(Progress("building", number / 50, (OUTCOME,), f"line {number}"))

    watching = asyncio.create_task(watch())
    relay = Relay(live)
    await asyncio.to_thread(flood, relay)
    relay.flush()
    assert live.record.log == tuple(f"line {number}" for number in range(5000 - LOG_LINES, 5000))
    assert (live.record.percent, live.outcomes) == (4999 / 50, (OUTCOME,))
    assert [candidate.name for candidate in live.record.candidates] == ["int8"]
    live.become(live.record.reject(2.0, "nothing is better", ""))
    await watching
    assert len(seen) < 100
    assert seen[-1] == live.record


async def test_what_is_told_is_shown_without_a_flush_and_not_after_the_end() -> None:
    live = running()
    relay = Relay(live)
    relay(Progress("building", 5.0, (), "one"))
    relay(Progress("measuring", 6.0, (), ""))
    states = live.watch()
    assert (await anext(states)).phase == ""
    job = await anext(states)
    assert (job.phase, job.percent, job.log) == ("measuring", 6.0, ("one",))
    live.become(live.record.cancel(2.0))
    relay(Progress("selecting", 7.0, (), "late"))
    relay.flush()
    assert live.record.log == ("one",)
