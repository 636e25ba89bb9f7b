"""All that a finished job knows, and the report that is made of it."""

import secrets
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from optimizer import report
from optimizer.artifact import Artifact
from optimizer.candidate import Outcome
from optimizer.contest import MachineLoad
from optimizer.device import Device
from optimizer.goal import Goal
from optimizer.report import Report, entry_of
from optimizer.selection import Selection
from optimizer.source import SourceModel
from optimizer.stages import Original


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The end of one job."""

    source: SourceModel
    fingerprint: str
    goal: Goal
    device: Device
    original: Original
    outcomes: tuple[Outcome, ...]  # the baseline first
    selection: Selection
    artifact: Artifact | None  # the winner, in the store; None: rejected
    stored: Mapping[str, str]  # ids of the artifacts that are in the store, by candidate
    load: MachineLoad
    seconds: Mapping[str, float]  # by stage
    notes: tuple[str, ...]  # what was found out on the way: why a conversion was refused


def report_of(end: Conclusion) -> Report:
    """What people and later jobs are told."""
    return Report(
        optimization_id=f"opt-{secrets.token_hex(6)}",
        status="rejected" if end.selection.is_rejected else "completed",
        model=_model(end),
        goal=end.goal,
        candidates=tuple(
            entry_of(outcome, end.stored.get(outcome.candidate.name)) for outcome in end.outcomes
        ),
        regimes=tuple(
            report.Regime(regime.max_rows, regime.outcome.candidate.name)
            for regime in end.selection.regimes
        ),
        artifact_id=end.artifact.artifact_id if end.artifact else None,
        artifact_size_bytes=end.artifact.size_bytes if end.artifact else 0,
        reason=end.selection.reason,
        data=_data(end.original),
        machine=_machine(end),
        seconds=_seconds(end),
        notes=end.notes,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _model(end: Conclusion) -> report.Model:
    return report.Model(
        name=end.source.path.stem,
        framework=end.source.framework,
        fingerprint=end.fingerprint,
        format=end.source.framework,
        size_bytes=end.outcomes[0].size_bytes,
    )


def _data(original: Original) -> report.Data:
    return report.Data(
        origin=original.data,
        is_real=original.is_real,
        calibration_rows=original.calibration_rows,
        validation_rows=original.validation_rows,
        has_labels=original.has_labels,
    )


def _machine(end: Conclusion) -> report.Machine:
    gpus = tuple(f"{gpu.name}, {gpu.memory_mb:,} MB" for gpu in end.device.gpus)
    return report.Machine(
        cpu=end.device.cpu,
        cores=end.device.cores,
        memory_mb=end.device.memory_mb,
        features=end.device.features,
        gpus=gpus,
        versions=end.device.versions,
        load_before=end.load.before,
        load_after=end.load.after,
    )


def _seconds(end: Conclusion) -> dict[str, float]:
    """Those of all candidates together, by stage, and of the job's own stages."""
    spent = Counter(end.seconds)
    for outcome in end.outcomes:
        spent.update(outcome.seconds)
    return {stage: round(seconds, 3) for stage, seconds in spent.items()}
