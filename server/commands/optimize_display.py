"""What `inflight optimize` shows: how far it is, and what came of it."""

import shutil
from collections import Counter
from typing import TextIO

from optimizer.artifact import Artifact
from optimizer.candidate import State
from optimizer.progress import Progress
from optimizer.report import Entry, Report
from optimizer.stage_runner import PRINTED
from server.commands.table import milliseconds, table

_BAR = 20  # characters
_AT_WORK = (State.BUILDING, State.VALIDATING, State.MEASURING)


class Display:
    """A line that changes in place on a terminal; elsewhere what happened, a line each."""

    def __init__(self, out: TextIO, *, verbose: bool = False) -> None:
        self._out, self._verbose = out, verbose
        self._is_terminal = out.isatty()

    def __enter__(self) -> "Display":
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_terminal:
            self._out.write("\r\x1b[K")
            self._out.flush()

    def show(self, progress: Progress) -> None:
        """Takes the place of what was shown before."""
        line = progress.line
        is_told = bool(line) and (self._verbose or not line.startswith(PRINTED))
        if self._is_terminal:
            columns = shutil.get_terminal_size().columns
            told = f"{line}\n" if is_told else ""
            self._out.write(f"\r\x1b[K{told}{status(progress)[: columns - 1]}")
            self._out.flush()
        elif is_told:
            print(f"{progress.percent:3.0f}% {progress.phase}: {line}", file=self._out, flush=True)


def status(progress: Progress) -> str:
    """One line: how far, what is in hand, and how many candidates have ended how."""
    filled = round(_BAR * progress.percent / 100)
    bar = "#" * filled + "." * (_BAR - filled)
    at_work = [o.candidate.name for o in progress.outcomes if o.state in _AT_WORK]
    in_hand = at_work[-1] if progress.phase == "building" and at_work else ""
    counts = Counter(outcome.state for outcome in progress.outcomes)
    ended = ", ".join(f"{n} {state}" for state, n in counts.items() if state not in _AT_WORK)
    parts = [f"[{bar}] {progress.percent:3.0f}% {progress.phase}", in_hand, ended]
    return "  ".join(part for part in parts if part)


def summary(report: Report, artifact: Artifact) -> str:
    """What came of it, for people."""
    lines = [_result(report), "", _candidates(report)]
    if report.unlock:
        lines += ["", report.unlock]
    lines += ["", *(f"note: {note}" for note in report.notes)]
    if report.artifact_id:
        lines.append(f"artifact: {artifact.folder}")
    return "\n".join(lines).rstrip()


def _result(report: Report) -> str:
    if report.status != "completed":
        return f"{report.status}: {report.reason}"
    changes = report.to_json()["improvement"]
    parts = [
        f"latency {_as_change(changes['latency_reduction'])}",
        f"size {_as_change(changes['size_reduction'])}",
        f"accuracy {changes['accuracy_change']}" if changes["accuracy_change"] else "",
    ]
    return f"{report.reason}\n{', '.join(part for part in parts if part)}"


def _as_change(reduction: str | None) -> str:
    """What was reduced by "55.3%" has changed by "-55.3%"."""
    if reduction is None:
        return "unknown"
    return f"+{reduction[1:]}" if reduction.startswith("-") else f"-{reduction}"


def _candidates(report: Report) -> str:
    """A row per candidate; those that were not tried are left to the report."""
    sizes = report.batch_sizes
    header = ("CANDIDATE", "STATE", *(f"B{n} MS" for n in sizes), "MB", "SCORE", "WHY")
    tried = [entry for entry in report.candidates if entry.state is not State.SKIPPED]
    rows = [_row(entry, sizes) for entry in tried]
    skipped = len(report.candidates) - len(tried)
    text = table(header, rows)
    return f"{text}\n{skipped} more were skipped: see the report" if skipped else text


def _row(entry: Entry, sizes: tuple[int, ...]) -> tuple[str, ...]:
    timings = [entry.timing(size) for size in sizes]
    return (
        entry.name,
        str(entry.state),
        *(milliseconds(timing.p50_s * 1e3) if timing else "-" for timing in timings),
        f"{entry.size_bytes / 1e6:.2f}" if entry.size_bytes else "-",
        f"{entry.verdict.score:.4f}" if entry.verdict else "-",
        entry.reason.splitlines()[0] if entry.reason else "",
    )
