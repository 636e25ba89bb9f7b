"""One optimization job as the server follows it, from its request to its end."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from optimizer.candidate import Outcome
from optimizer.data import DataSpec
from optimizer.goal import Goal
from optimizer.job import LOG_LINES, CandidateProgress, Job, JobState
from optimizer.progress import Progress
from optimizer.source import SourceModel
from server.load_plan import Origin

_RELAY_S = 0.1


@dataclass(frozen=True, slots=True)
class Task:
    """What a job works on, and what becomes of its result."""

    origin: Origin  # what served when it was asked for
    source: SourceModel
    data: DataSpec | None
    goal: Goal
    promotes: bool = True  # the winner is to serve
    configured: str = ""  # print of what the model's configuration asks for, whatever the goal is


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

    def show(self, told: Sequence[Progress]) -> None:
        """Takes over how far it is; what comes after its end is late and left out."""
        if self.record.state is not JobState.RUNNING or not told:
            return
        *_, last = told
        candidates = tuple(map(CandidateProgress.of, last.outcomes))
        record = self.record
        for progress in told:
            record = record.show(last.phase, last.percent, candidates, progress.line)
        self.outcomes = last.outcomes
        self.become(record)

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


class Relay:
    """Brings what a job's thread tells to the event loop, ten times a second at most.

    A library that prints ten thousand lines would else keep requests waiting for most of a second.
    """

    def __init__(self, live: LiveJob) -> None:
        """Belongs to the event loop, but for `__call__`."""
        self._live, self._loop = live, asyncio.get_running_loop()
        self._told: deque[Progress] = deque(maxlen=LOG_LINES)
        self._is_due = False

    def __call__(self, progress: Progress) -> None:
        """The job's listener, on the job's thread."""
        self._told.append(progress)
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon_threadsafe(self._loop.call_later, _RELAY_S, self.flush)

    def flush(self) -> None:
        """Shows what was told until now."""
        self._is_due = False  # before the rest: what is told from now on is shown later
        told = [self._told.popleft() for _ in range(len(self._told))]
        self._live.show(told)
