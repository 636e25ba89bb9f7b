"""Candidates and what is found out about them: values only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from optimizer.artifact import Artifact, Runtime


@dataclass(frozen=True, slots=True)
class Step:
    """One pass with its settings, applied to what the step before made."""

    name: str  # of the pass, in `passes.PASSES`
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A way to run the model that may turn out faster."""

    name: str  # unique in a job, for people: "int8 static, ONNX Runtime"
    steps: tuple[Step, ...]
    runtime: Runtime
    options: Mapping[str, Any] = field(default_factory=dict)  # of the artifact, see artifact.py
    techniques: tuple[str, ...] = ()  # by their names in `goal.TECHNIQUES`
    is_lossless: bool = True  # the same arithmetic up to rounding: may win without real data
    needs_data: bool = False  # steps need a calibration set of real rows
    rank: int = 0  # cheap ones are built first


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a candidate answers as the original does, and in which figures."""

    is_accepted: bool
    metric: str  # what `score` is: "top1", "f1", "rmse", "r2", "nn1", "relative_error", "exact"
    score: float  # 1: as good as the original; compared with the threshold
    threshold: float
    original: float | None = None  # accuracy of the original on the labels, where there are any
    optimized: float | None = None
    worst: float = 0.0  # largest difference of any row, relative to the output's range
    rows: int = 0
    reason: str = ""  # why it is refused
    figures: Mapping[str, float] = field(default_factory=dict)  # everything else that was measured


SIGNIFICANT: Final = 200
"""Runs that a 99th percentile needs to mean something."""


@dataclass(frozen=True, slots=True)
class Timing:
    """One candidate at one batch size; seconds."""

    batch: int
    samples: int
    min_s: float
    p50_s: float
    p95_s: float
    p99_s: float
    rows_per_s: float  # with the thread layout's runs side by side
    steady_s: float = 0.0  # median of the block that was disturbed least; 0: not known

    @property
    def has_p99(self) -> bool:
        """Whether it comes from enough runs; of fewer it is little more than the worst one."""
        return self.samples >= SIGNIFICANT

    @property
    def undisturbed_s(self) -> float:
        """What a run usually takes where nothing else runs."""
        return self.steady_s or self.p50_s


class State(StrEnum):
    """Where a candidate is.

    WAITING -> BUILDING -> VALIDATING -> MEASURING -> MEASURED; from each, one of the other ends.
    """

    WAITING = "waiting"
    BUILDING = "building"
    VALIDATING = "validating"
    MEASURING = "measuring"
    MEASURED = "measured"  # end: may win
    DROPPED = "dropped"  # end: hopeless after the first rounds
    REFUSED = "refused"  # end: answers not as the original does
    SKIPPED = "skipped"  # end: not on this machine, or lacks what it needs
    FAILED = "failed"  # end: crashed, hung, could not be built
    CANCELLED = "cancelled"  # end


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that is known of a candidate."""

    candidate: Candidate
    state: State = State.WAITING
    reason: str = ""  # for every end but MEASURED; and notes
    artifact: Artifact | None = None
    size_bytes: int = 0
    verdict: Verdict | None = None
    timings: tuple[Timing, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)  # spent, by stage
    notes: tuple[str, ...] = ()

    def timing(self, batch: int) -> Timing | None:
        return next((timing for timing in self.timings if timing.batch == batch), None)
