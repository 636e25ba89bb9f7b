"""What is known of a job while it runs, and who is told."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from optimizer.candidate import Outcome, State

Phase = Literal["preparing", "converting", "building", "measuring", "selecting", "done"]

_ENDS = (State.DROPPED, State.REFUSED, State.SKIPPED, State.FAILED, State.CANCELLED)


@dataclass(frozen=True, slots=True)
class Progress:
    """A job at one moment."""

    phase: Phase
    percent: float  # of the whole job, a guess
    outcomes: tuple[Outcome, ...]  # the baseline first
    line: str = ""  # what happened just now, for a log; may be empty


Listener = Callable[[Progress], None]


class Board:
    """All candidates of a job by name, in order; every change is told. Used by one thread."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._outcomes: dict[str, Outcome] = {}
        self._phase: Phase = "preparing"
        self._percent = 0.0

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        return tuple(self._outcomes.values())

    def __getitem__(self, name: str) -> Outcome:
        return self._outcomes[name]

    def in_state(self, *states: State) -> list[Outcome]:
        return [outcome for outcome in self._outcomes.values() if outcome.state in states]

    def begin(self, phase: Phase, percent: float, line: str = "") -> None:
        """Enters a phase."""
        self._phase = phase
        self.tell(line, percent)

    def add(self, outcomes: Iterable[Outcome]) -> None:
        for outcome in outcomes:
            self._outcomes[outcome.candidate.name] = outcome
        self.tell()

    def change(self, name: str, **changes: Any) -> Outcome:
        """Replaces fields of an outcome; its end goes to the log with its reason."""
        outcome = replace(self._outcomes[name], **changes)
        self._outcomes[name] = outcome
        is_end = outcome.state in _ENDS and "state" in changes
        self.tell(f"{name}: {outcome.state}: {outcome.reason}" if is_end else "")
        return outcome

    def spent(self, name: str, stage: str, seconds: float) -> None:
        """Adds to the time a candidate has cost."""
        before = self._outcomes[name].seconds
        total = {**before, stage: before.get(stage, 0.0) + seconds}
        self._outcomes[name] = replace(self._outcomes[name], seconds=total)

    def tell(self, line: str = "", percent: float | None = None) -> None:
        """Says how it stands; percents never go back."""
        self._percent = max(self._percent, percent or 0.0)
        self._listener(Progress(self._phase, self._percent, self.outcomes, line))
