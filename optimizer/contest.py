"""Has candidates measured against each other, and sees to it that no crash ends the contest."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from optimizer import device, plan, selection, stages
from optimizer.benchmark import Benchmark, Entry, Measured, Turn, budget_s
from optimizer.candidate import Outcome, State
from optimizer.errors import StageFailed
from optimizer.goal import Goal
from optimizer.progress import Board
from optimizer.stage_runner import StageRunner
from optimizer.stages import Case

_FACTOR = 4.0  # of the time for runs: warm-up, opening, and a run that was under way
_EXTRA_S = 120.0
_MEMORY_SHARE = 0.6  # of what is free, for all models that are open at once
_LAYOUT_SHARE = 0.25  # of the time for runs, again, to compare thread layouts


@dataclass(frozen=True, slots=True)
class MachineLoad:
    """What else the machine did while candidates were measured."""

    before: float  # processes that wanted to run, average of a minute
    after: float
    seconds: float


class Contest:
    """Brings candidates from MEASURING to MEASURED, or to another end."""

    def __init__(
        self, case: Case, stage_runner: StageRunner, board: Board, percents: tuple[float, float]
    ) -> None:
        self._case, self._goal = case, case.goal
        self._stages, self._board = stage_runner, board
        self._percents = percents

    def run(self, baseline: str) -> MachineLoad:
        """Measures all that are accepted, then the best one's thread layouts.

        Raises:
            StageFailed: the baseline cannot be measured.
        """
        entries = [self._entry(outcome) for outcome in self._board.in_state(State.MEASURING)]
        found = self._measured(entries, baseline, self._timed_goal(1.0))
        for measured in found.entries:
            self._record(measured)
        self._compare_layouts(baseline)
        return MachineLoad(found.load_before, found.load_after, found.seconds)

    def _entry(self, outcome: Outcome) -> Entry:
        assert outcome.artifact is not None
        threads = outcome.candidate.options.get("threads", usual_threads(self._goal))
        return Entry(outcome.candidate.name, outcome.artifact, threads)

    def _timed_goal(self, share: float) -> Goal:
        """The goal with as much time for runs as is left of the job."""
        most = budget_s(self._goal) * share
        left = (self._stages.remaining_s - _EXTRA_S / 4) / 2
        return replace(self._goal, benchmark_s=max(1.0, min(most, left)))

    def _measured(self, entries: Sequence[Entry], baseline: str, goal: Goal) -> Benchmark:
        """Again without whoever had its turn when the process ended."""
        failed: list[Measured] = []
        while True:
            in_hand = ""

            def on_turn(turn: Turn) -> None:
                nonlocal in_hand
                in_hand = turn.name
                low, high = self._percents
                line = f"opening {turn.name}" if not turn.batch else ""
                self._board.tell(line, low + turn.part * (high - low))

            try:
                found = self._stages.run(
                    stages.measure,
                    self._case,
                    goal,
                    entries,
                    baseline,
                    int(device.available_memory_mb() * _MEMORY_SHARE),
                    cap_s=_FACTOR * goal.benchmark_s + _EXTRA_S,
                    on_progress=on_turn,
                )
            except StageFailed as error:
                if in_hand in ("", baseline):
                    raise
                failed.append(Measured(in_hand, failed=str(error)))
                entries = [entry for entry in entries if entry.name != in_hand]
            else:
                return replace(found, entries=(*found.entries, *failed))

    def _record(self, measured: Measured) -> None:
        name = measured.name
        if measured.failed:
            reason = measured.failed.splitlines()[0]
            self._board.change(name, state=State.FAILED, reason=reason)
        elif measured.dropped:
            self._board.change(
                name, state=State.DROPPED, reason=measured.dropped, timings=measured.timings
            )
        else:
            self._board.change(name, state=State.MEASURED, timings=measured.timings)

    def _compare_layouts(self, baseline: str) -> None:
        """Adds the best one with another number of threads, where it is better so."""
        best = selection.select(self._board.outcomes, self._goal, self._board[baseline]).winner
        if best is None or best.artifact is None or not self._may_compare_layouts(best):
            return
        threads = 1 if usual_threads(self._goal) > 1 else self._goal.threads
        candidate = plan.with_threads(best.candidate, threads)
        artifact = replace(best.artifact, options=candidate.options)
        other = replace(best, candidate=candidate, artifact=artifact, timings=(), seconds={})
        entries = [self._entry(best), self._entry(other)]
        try:
            found = self._measured(entries, best.candidate.name, self._timed_goal(_LAYOUT_SHARE))
        except StageFailed as error:
            self._board.tell(f"thread layouts were not compared: {error}")
            return
        timings = {entry.name: entry.timings for entry in found.entries}
        usual, changed = (replace(o, timings=timings[o.candidate.name]) for o in (best, other))
        if not selection.select([changed], self._goal, usual).is_rejected:
            self._board.add([changed])

    def _may_compare_layouts(self, best: Outcome) -> bool:
        return (
            self._goal.threads > 1
            and not self._goal.is_quick
            and self._goal.allows("threads")
            and best.candidate.runtime in ("onnxruntime", "openvino")
            and best.state is State.MEASURED
            and self._stages.remaining_s > _EXTRA_S / 2
        )


def usual_threads(goal: Goal) -> int:
    """Compute threads of one run: all for latency, one of many side by side for throughput."""
    return 1 if goal.objective == "throughput" else goal.threads
