"""A job as a value: where it is, and where it may go from there.

    QUEUED --begin--> RUNNING --complete--> COMPLETED   something better was found
      |                  |-----reject-----> REJECTED    nothing acceptable beats the original
      |----fail----------|-----fail-------> FAILED      it could not do its work
      |----cancel--------|-----cancel-----> CANCELLED

The four to the right are ends. Nothing here looks at a clock: times are given, in seconds since
1970 (UTC).
"""

import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from optimizer.candidate import Outcome, State
from optimizer.errors import OptimizationError

LOG_LINES = 200  # kept of each job


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    REJECTED = "rejected"
    FAILED = "failed"
    CANCELLED = "cancelled"


_NEXT: Mapping[JobState, tuple[JobState, ...]] = {
    JobState.QUEUED: (JobState.RUNNING, JobState.FAILED, JobState.CANCELLED),
    JobState.RUNNING: (
        JobState.COMPLETED,
        JobState.REJECTED,
        JobState.FAILED,
        JobState.CANCELLED,
    ),
}


class IllegalTransition(OptimizationError):
    """A job cannot go from where it is to where it was sent."""


@dataclass(frozen=True, slots=True)
class CandidateProgress:
    """How far one candidate is, in what a record keeps of it."""

    name: str
    state: State
    reason: str = ""
    techniques: tuple[str, ...] = ()
    size_bytes: int = 0  # 0: not known yet
    score: float | None = None  # None: not known yet
    p50_ms: float = 0.0  # of a batch of one row; 0: not measured

    @classmethod
    def of(cls, outcome: Outcome) -> "CandidateProgress":
        timing, verdict = outcome.timing(1), outcome.verdict
        return cls(
            outcome.candidate.name,
            outcome.state,
            outcome.reason,
            outcome.candidate.techniques,
            outcome.size_bytes,
            verdict.score if verdict else None,
            timing.p50_s * 1e3 if timing else 0.0,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One optimization of one version of a model."""

    id: str  # "opt-<hex>"
    model: str
    version: int
    goal: Mapping[str, Any] = field(default_factory=dict)  # what was asked for, as JSON
    is_automatic: bool = False  # asked for by the server itself
    state: JobState = JobState.QUEUED
    reason: str = ""  # why it ended as it did
    phase: str = ""  # what it is doing; empty while it waits and after its end
    percent: float = 0.0
    candidates: tuple[CandidateProgress, ...] = ()
    log: tuple[str, ...] = ()  # its last lines
    created_s: float = 0.0
    started_s: float = 0.0  # 0: has not
    ended_s: float = 0.0  # 0: has not
    artifact_id: str = ""  # of what was found to be best
    techniques: tuple[str, ...] = ()  # that made it
    not_serving_reason: str = ""  # why that artifact could not be put into service
    report: str = ""  # JSON

    @property
    def is_ended(self) -> bool:
        return self.state not in _NEXT

    def begin(self, now_s: float) -> "Job":
        return self._to(JobState.RUNNING, started_s=now_s)

    def show(
        self,
        phase: str,
        percent: float,
        candidates: tuple[CandidateProgress, ...] = (),
        line: str = "",
    ) -> "Job":
        """The job that is so far; without candidates it keeps those it has. Not after its end."""
        if self.state is not JobState.RUNNING:
            raise IllegalTransition(f"job {self.id} is {self.state}, so it makes no progress")
        log = (*self.log, line)[-LOG_LINES:] if line else self.log
        known = candidates or self.candidates
        return replace(self, phase=phase, percent=percent, candidates=known, log=log)

    def complete(
        self, now_s: float, artifact_id: str, techniques: tuple[str, ...], report: str
    ) -> "Job":
        made = {"artifact_id": artifact_id, "techniques": techniques, "report": report}
        return self._end(JobState.COMPLETED, now_s, percent=100.0, **made)

    def reject(self, now_s: float, reason: str, report: str) -> "Job":
        return self._end(JobState.REJECTED, now_s, percent=100.0, reason=reason, report=report)

    def fail(self, now_s: float, reason: str) -> "Job":
        return self._end(JobState.FAILED, now_s, reason=reason)

    def cancel(self, now_s: float, reason: str = "") -> "Job":
        return self._end(JobState.CANCELLED, now_s, reason=reason)

    def to_json(self) -> dict[str, Any]:
        """All but the report, which is large."""
        value = asdict(self)
        del value["report"]
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any], report: str = "") -> "Job":
        """Raises KeyError, TypeError or ValueError for what `to_json` did not make."""
        candidates = tuple(map(_candidate, value["candidates"]))
        rest = {
            "state": JobState(value["state"]),
            "candidates": candidates,
            "log": tuple(value["log"]),
            "techniques": tuple(value["techniques"]),
            "report": report,
        }
        return cls(**{**value, **rest})

    def _end(self, state: JobState, now_s: float, **changes: Any) -> "Job":
        return self._to(state, ended_s=now_s, phase="", **changes)

    def _to(self, state: JobState, **changes: Any) -> "Job":
        if state not in _NEXT.get(self.state, ()):
            raise IllegalTransition(f"job {self.id} is {self.state} and cannot become {state}")
        return replace(self, state=state, **changes)


def new_id() -> str:
    """An id that no other job has: "opt-<12 hex digits>"."""
    return f"opt-{secrets.token_hex(6)}"


def _candidate(value: Mapping[str, Any]) -> CandidateProgress:
    rest = {"state": State(value["state"]), "techniques": tuple(value["techniques"])}
    return CandidateProgress(**{**value, **rest})
