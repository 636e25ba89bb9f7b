"""What an optimization found out: values, and the JSON form in which they are kept and sent."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from optimizer.candidate import Timing
from optimizer.errors import OptimizationError
from optimizer.goal import Goal
from optimizer.report_entry import Entry, entry_of, megabytes, results_of

__all__ = ["Data", "Entry", "Machine", "Model", "Regime", "Report", "Status", "entry_of"]

_LACKS_DATA = "real rows"  # in the reasons of the plan and of the gate

Status = Literal["running", "completed", "rejected", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class Model:
    """Whose report it is."""

    name: str = ""
    framework: str = ""
    fingerprint: str = ""  # SHA-256 of its content
    format: str = ""  # "onnx", "sklearn": of the original
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Data:
    """The rows that candidates were calibrated with and judged by."""

    origin: str = ""
    is_real: bool = False
    calibration_rows: int = 0
    validation_rows: int = 0
    has_labels: bool = False


@dataclass(frozen=True, slots=True)
class Machine:
    """Where it was measured."""

    cpu: str = ""
    cores: int = 0
    memory_mb: int = 0
    features: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    load_before: float | None = None  # processes that wanted to run, average of a minute
    load_after: float | None = None


@dataclass(frozen=True, slots=True)
class Regime:
    """Which candidate answers batches of up to so many rows."""

    max_rows: int | None  # None: any number
    candidate: str


@dataclass(frozen=True, slots=True)
class Report:
    """One job's. Everything but its id and status may still be unknown.

    `candidates` has the baseline first: what every other has to beat.
    """

    optimization_id: str
    status: Status
    model: Model = Model()
    goal: Goal = field(default_factory=Goal)
    candidates: tuple[Entry, ...] = ()
    regimes: tuple[Regime, ...] = ()  # ascending by rows; empty: the original stays
    artifact_id: str | None = None  # of the winner
    artifact_size_bytes: int = 0
    reason: str = ""  # why this one won, or none did, or the job failed
    data: Data = Data()
    machine: Machine = Machine()
    seconds: Mapping[str, float] = field(default_factory=dict)  # by stage; "total" among them
    notes: tuple[str, ...] = ()  # found out on the way: why a conversion was refused
    created: str = ""  # ISO 8601, UTC

    @property
    def baseline(self) -> Entry | None:
        return self.candidates[0] if self.candidates else None

    @property
    def winner(self) -> Entry | None:
        """Who answers the smallest batches."""
        return self.candidate(self.regimes[0].candidate) if self.regimes else None

    @property
    def least_accurate(self) -> Entry | None:
        """Of the winners, the one with the lowest score: what clients have to expect."""
        entries = [self.candidate(regime.candidate) for regime in self.regimes]
        judged = [entry for entry in entries if entry is not None]
        return min(
            judged, key=lambda entry: entry.verdict.score if entry.verdict else 1.0, default=None
        )

    def candidate(self, name: str) -> Entry | None:
        return next((entry for entry in self.candidates if entry.name == name), None)

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Those that the baseline was measured at, ascending."""
        timings = self.baseline.timings if self.baseline else ()
        return tuple(sorted(timing.batch for timing in timings))

    @property
    def optimized_timings(self) -> tuple[Timing, ...]:
        """By batch size, of whoever answers such a batch."""
        found = (self._answering(batch) for batch in self.batch_sizes)
        return tuple(timing for timing in found if timing is not None)

    @property
    def metric(self) -> str:
        """What `accuracy` is: of the labels, or the agreement with the original."""
        entry = self.least_accurate or self.baseline
        return entry.verdict.metric if entry and entry.verdict else ""

    @property
    def unlock(self) -> str:
        """What real data would make possible; empty where there were some."""
        waiting = [entry.name for entry in self.candidates if _LACKS_DATA in entry.reason]
        if self.data.is_real or not waiting:
            return ""
        return (
            "Real rows, some hundred of those that the model was made for, would let"
            f" {len(waiting)} more candidates compete, which change the arithmetic:"
            f" {', '.join(waiting)}. With labels, accuracy is measured instead of agreement."
        )

    def to_json(self) -> dict[str, Any]:
        """The form of the REST interface, and everything else beside it."""
        return {
            "optimization_id": self.optimization_id,
            "status": self.status,
            "created": self.created,
            "model": asdict(self.model),
            "original": self._original(),
            "optimized": self._optimized(),
            "improvement": self._improvement(),
            "artifact_id": self.artifact_id,
            "artifact_size_bytes": self.artifact_size_bytes,
            "reason": self.reason,
            "regimes": [asdict(regime) for regime in self.regimes],
            "unlock": self.unlock,
            "candidates": [entry.to_json() for entry in self.candidates],
            "benchmark": self._benchmark(),
            "goal": _of_goal(self.goal),
            "data": asdict(self.data),
            "machine": _of_machine(self.machine),
            "seconds": dict(self.seconds),
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Report":
        """Reads what `to_json` made.

        Raises:
            OptimizationError: it is something else.
        """
        try:
            return _read(value)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise OptimizationError(f"no report of an optimization: {error!r}") from None

    def _answering(self, batch: int) -> Timing | None:
        for regime in self.regimes:
            if regime.max_rows is None or batch <= regime.max_rows:
                entry = self.candidate(regime.candidate)
                return entry.timing(batch) if entry else None
        return None

    def _original(self) -> dict[str, Any]:
        entry = self.baseline
        return {
            "format": self.model.format,
            "size_mb": megabytes(self.model.size_bytes),
            "latency_ms": _latency_ms(entry.timings) if entry else None,
            "accuracy": _original_accuracy(self.least_accurate or entry),
            "candidate": entry.name if entry else None,
        }

    def _optimized(self) -> dict[str, Any] | None:
        entry, least = self.winner, self.least_accurate
        if entry is None or least is None:
            return None
        return {
            "format": entry.runtime,
            "size_mb": megabytes(self.artifact_size_bytes or entry.size_bytes),
            "latency_ms": _latency_ms(self.optimized_timings),
            "accuracy": least.accuracy,
            "accuracy_metric": self.metric,
            "candidate": entry.name,
            "techniques": list(entry.techniques),
        }

    def _improvement(self) -> dict[str, str | None] | None:
        before, after = self._original(), self._optimized()
        if after is None:
            return None
        return {
            "size_reduction": reduction(before["size_mb"], after["size_mb"]),
            "latency_reduction": reduction(before["latency_ms"], after["latency_ms"]),
            "accuracy_change": change(before["accuracy"], after["accuracy"]),
        }

    def _benchmark(self) -> dict[str, Any]:
        before = self.baseline.timings if self.baseline else ()
        return {
            "iterations": self.goal.iterations,
            "warmup_iterations": self.goal.warmup_iterations,
            "batch_sizes": list(self.batch_sizes or self.goal.batch_sizes),
            "results": results_of(self.optimized_timings or before),
            "original_results": results_of(before),
        }


def reduction(before: float | None, after: float | None) -> str | None:
    """How much less it has become: "74.7%"; negative where it is more."""
    if not before or after is None:
        return None
    return f"{(1 - after / before) * 100:.1f}%"


def change(before: float | None, after: float | None) -> str | None:
    """The difference with its sign: "-0.002"."""
    if before is None or after is None:
        return None
    text = f"{after - before:+.3f}"
    return "+0.000" if text == "-0.000" else text


def _latency_ms(timings: tuple[Timing, ...]) -> float | None:
    """The median at the smallest batch."""
    first = min(timings, key=lambda timing: timing.batch, default=None)
    return round(first.p50_s * 1e3, 6) if first else None


def _original_accuracy(entry: Entry | None) -> float | None:
    """On the labels; without labels the original agrees with itself."""
    if entry is None or entry.verdict is None:
        return None
    return 1.0 if entry.verdict.original is None else entry.verdict.original


def _of_machine(machine: Machine) -> dict[str, Any]:
    lists = {"features": list(machine.features), "gpus": list(machine.gpus)}
    return asdict(machine) | lists


def _of_goal(goal: Goal) -> dict[str, Any]:
    value = asdict(goal)
    value["batch_mix"] = {str(rows): share for rows, share in goal.batch_mix.items()}
    return {name: list(item) if isinstance(item, tuple) else item for name, item in value.items()}


def _goal(value: Mapping[str, Any]) -> Goal:
    known = {**value, "batch_mix": {int(k): share for k, share in value["batch_mix"].items()}}
    for name in ("techniques", "batch_sizes"):
        known[name] = tuple(known[name])
    return Goal(**known)


def _read(value: Mapping[str, Any]) -> Report:
    machine = dict(value["machine"])
    machine["features"], machine["gpus"] = tuple(machine["features"]), tuple(machine["gpus"])
    return Report(
        value["optimization_id"],
        value["status"],
        Model(**value["model"]),
        _goal(value["goal"]),
        tuple(Entry.from_json(entry) for entry in value["candidates"]),
        tuple(Regime(**regime) for regime in value["regimes"]),
        value["artifact_id"],
        value["artifact_size_bytes"],
        value["reason"],
        Data(**value["data"]),
        Machine(**machine),
        value["seconds"],
        tuple(value["notes"]),
        value["created"],
    )
