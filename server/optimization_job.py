"""One optimization job as the server follows it, from its request to its end."""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from optimizer.candidate import Outcome
from optimizer.data import DataSpec
from optimizer.goal import Goal
from optimizer.job import CandidateProgress, Job, JobState
from optimizer.progress import Progress
from optimizer.source import SourceModel
from server.load_plan import Origin


@dataclass(frozen=True, slots=True)
class Task:
    """What a job works on, and what becomes of its result."""

    origin: Origin  # what served when it was asked for
    source: SourceModel
    data: DataSpec | None
    goal: Goal
    promotes: bool = True  # the winner is to serve


@dataclass(slots=True, eq=False)
class LiveJob:
    """A job that waits or runs. Belongs to the event loop, but for `is_cancelled`."""

    record: Job
    task: Task
    is_cancelled: threading.Event = field(default_factory=threading.Event)
    cancel_reason: str = ""
    outcomes: tuple[Outcome, ...] = ()  # the candidates as last heard of
    is_put_away: bool = False  # its end is counted, and about to be on record
    put_away: asyncio.Event = field(default_factory=asyncio.Event)  # its end is on record
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def version(self) -> tuple[str, int]:
        """Model and version."""
        return self.record.model, self.record.version

    def become(self, record: Job) -> None:
        """Is another from now on; wakes those who watch."""
        self.record = record
        self._changed.set()
        self._changed = asyncio.Event()

    def show(self, progress: Progress) -> None:
        """Takes over how far it is; what comes after its end is late and left out."""
        if self.record.state is JobState.RUNNING:
            candidates = tuple(map(CandidateProgress.of, progress.outcomes))
            self.outcomes = progress.outcomes
            shown = progress.phase, progress.percent, candidates, progress.line
            self.become(self.record.show(*shown))

    def cancel(self, reason: str) -> None:
        """Asks for its end; one that waits has ended at once."""
        self.cancel_reason = self.cancel_reason or reason
        self.is_cancelled.set()
        if self.record.state is JobState.QUEUED:
            self.become(self.record.cancel(time.time(), reason))

    async def watch(self) -> AsyncGenerator[Job, None]:
        """The job now and whenever it has changed, until it has ended."""
        while True:
            changed = self._changed
            yield self.record
            if self.record.is_ended:
                return
            await changed.wait()

    async def ended(self) -> Job:
        """The job at its end."""
        async for _ in self.watch():
            pass
        return self.record
