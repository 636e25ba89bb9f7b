"""One candidate as a report shows it: an outcome without the folders of this machine."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from optimizer.artifact import Runtime
from optimizer.candidate import Outcome, State, Step, Timing, Verdict


@dataclass(frozen=True, slots=True)
class Entry:
    """What was tried, how far it came, and every figure that is known of it."""

    name: str
    runtime: Runtime
    state: State
    reason: str = ""  # for every end but MEASURED
    techniques: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    is_lossless: bool = True
    needs_data: bool = False
    artifact_id: str | None = None  # in the store
    size_bytes: int = 0
    verdict: Verdict | None = None
    timings: tuple[Timing, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def timing(self, batch: int) -> Timing | None:
        return next((timing for timing in self.timings if timing.batch == batch), None)

    @property
    def accuracy(self) -> float | None:
        """On the labels where there are any, else how far it agrees with the original."""
        if self.verdict is None:
            return None
        labelled = self.verdict.optimized
        return self.verdict.score if labelled is None else labelled

    def to_json(self) -> dict[str, Any]:
        """As a JSON value that `from_json` reads back."""
        return {
            "name": self.name,
            "state": str(self.state),
            "reason": self.reason,
            "runtime": self.runtime,
            "techniques": list(self.techniques),
            "steps": [{"name": s.name, "settings": dict(s.settings)} for s in self.steps],
            "options": dict(self.options),
            "is_lossless": self.is_lossless,
            "needs_data": self.needs_data,
            "artifact_id": self.artifact_id,
            "size_mb": megabytes(self.size_bytes),
            "size_bytes": self.size_bytes,
            "accuracy": self.accuracy,
            "verdict": None if self.verdict is None else _of_verdict(self.verdict),
            "results": results_of(self.timings),
            "seconds": dict(self.seconds),
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Entry":
        """Raises KeyError, TypeError or ValueError where `value` is not what `to_json` makes."""
        verdict = value["verdict"]
        return cls(
            value["name"],
            value["runtime"],
            State(value["state"]),
            value["reason"],
            tuple(value["techniques"]),
            tuple(Step(step["name"], step["settings"]) for step in value["steps"]),
            value["options"],
            value["is_lossless"],
            value["needs_data"],
            value["artifact_id"],
            value["size_bytes"],
            None if verdict is None else Verdict(**verdict),
            tuple(_timing(name, figures) for name, figures in value["results"].items()),
            value["seconds"],
            tuple(value["notes"]),
        )


def entry_of(outcome: Outcome, artifact_id: str | None = None) -> Entry:
    """What a report shows of an outcome; `artifact_id`: in the store, None where it is not kept."""
    candidate = outcome.candidate
    return Entry(
        candidate.name,
        candidate.runtime,
        outcome.state,
        outcome.reason,
        candidate.techniques,
        candidate.steps,
        candidate.options,
        candidate.is_lossless,
        candidate.needs_data,
        artifact_id,
        outcome.size_bytes,
        outcome.verdict,
        outcome.timings,
        outcome.seconds,
        outcome.notes,
    )


def results_of(timings: tuple[Timing, ...]) -> dict[str, dict[str, float]]:
    """{"batch_1": {"p50_ms": ...}}."""
    return {f"batch_{timing.batch}": _of_timing(timing) for timing in timings}


def megabytes(size_bytes: int) -> float:
    """Millions of bytes, to three digits after the point."""
    return round(size_bytes / 1e6, 3)


def _of_timing(timing: Timing) -> dict[str, float]:
    return {
        "p50_ms": _milliseconds(timing.p50_s),
        "p95_ms": _milliseconds(timing.p95_s),
        "p99_ms": _milliseconds(timing.p99_s),
        "min_ms": _milliseconds(timing.min_s),
        "steady_ms": _milliseconds(timing.steady_s),
        "rows_per_s": round(timing.rows_per_s, 3),
        "samples": timing.samples,
    }


def _timing(name: str, figures: Mapping[str, float]) -> Timing:
    return Timing(
        int(name.removeprefix("batch_")),
        int(figures["samples"]),
        figures["min_ms"] / 1e3,
        figures["p50_ms"] / 1e3,
        figures["p95_ms"] / 1e3,
        figures["p99_ms"] / 1e3,
        figures["rows_per_s"],
        figures.get("steady_ms", 0.0) / 1e3,
    )


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1e3, 6)


def _of_verdict(verdict: Verdict) -> dict[str, Any]:
    """JSON has no NaN and no infinity."""
    value = asdict(verdict)
    value["figures"] = {k: v for k, v in verdict.figures.items() if math.isfinite(v)}
    for name in ("score", "worst", "original", "optimized"):
        number = value[name]
        if number is not None and not math.isfinite(number):
            value[name] = None if name in ("original", "optimized") else 0.0
    return value
