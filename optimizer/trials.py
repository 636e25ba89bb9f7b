"""Builds candidates and has them judged, one after the other, until none waits or time is up."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from optimizer import assembly, plan, stages
from optimizer.artifact import Artifact
from optimizer.candidate import Candidate, Outcome, State, Verdict
from optimizer.candidate_store import CandidateStore
from optimizer.engines import Engines
from optimizer.errors import Cancelled, OptimizationError, Unavailable
from optimizer.progress import Board
from optimizer.stage_runner import StageRunner
from optimizer.stages import Case, Original

Result = TypeVar("Result")

_BUILD_S, _CHECK_S = 900.0, 600.0
_TAIL_LINES = 5  # of what a stage printed before it died


class Trials:
    """Brings candidates from WAITING to MEASURING, or to another end."""

    def __init__(
        self,
        case: Case,
        stage_runner: StageRunner,
        board: Board,
        store: CandidateStore,
        original: Original,
    ) -> None:
        self._case, self._stages = case, stage_runner
        self._board, self._store, self._original = board, store, original
        self._engines = Engines(case, stage_runner, store, original)
        self._refused: dict[str, Candidate] = {}  # of 8 bits, by their pass

    def run(self, model: Path, reserved_s: float, percents: tuple[float, float]) -> None:
        """Tries all that wait. `model` is the ONNX form, `reserved_s` time left for the rest."""
        number = 0
        while waiting := self._board.in_state(State.WAITING) or self._second_chances():
            if self._stages.remaining_s <= reserved_s:
                self._give_up(waiting)
                return
            part = number / (number + len(waiting))
            percent = percents[0] + part * (percents[1] - percents[0])
            self._board.tell(f"trying {waiting[0].candidate.name}", percent)
            self._try(waiting[0].candidate, model, number)
            number += 1

    def _second_chances(self) -> list[Outcome]:
        """Refused ones without the layers that break them, where nothing else gains as much.

        The search takes as long as all other candidates together.
        """
        accepted = self._board.in_state(State.MEASURING)
        if any(not outcome.candidate.is_lossless for outcome in accepted):
            return []
        known = {outcome.candidate.name for outcome in self._board.outcomes}
        again = [plan.retry(candidate, self._case.goal) for candidate in self._refused.values()]
        self._refused.clear()
        outcomes = [Outcome(found) for found in again if found and found.name not in known]
        self._board.add(outcomes)
        return outcomes

    def _give_up(self, waiting: Iterable[Outcome]) -> None:
        for outcome in waiting:
            self._board.change(
                outcome.candidate.name, state=State.CANCELLED, reason=self._stages.time_is_up
            )

    def _try(self, candidate: Candidate, model: Path, number: int) -> None:
        name = candidate.name
        try:
            artifact = self._artifact(candidate, model, number)
            self._board.change(name, state=State.VALIDATING, size_bytes=artifact.size_bytes)
            verdict = self._timed(name, "validate", lambda: self._check(candidate, artifact))
        except Cancelled:
            self._board.change(name, state=State.CANCELLED, reason="the job was cancelled")
            raise
        except Unavailable as error:
            self._board.change(name, state=State.SKIPPED, reason=str(error))
        except OptimizationError as error:
            reason, *tail = str(error).splitlines() or ["it gave no reason"]
            notes = (*self._board[name].notes, *tail[-_TAIL_LINES:])
            self._board.change(name, state=State.FAILED, reason=reason, notes=notes)
        else:
            self._judged(candidate, artifact, verdict)

    def _judged(self, candidate: Candidate, artifact: Artifact, verdict: Verdict) -> None:
        if verdict.is_accepted:
            kept = self._store.keep(candidate, artifact) if candidate.steps else artifact
            self._board.change(
                candidate.name, state=State.MEASURING, artifact=kept, verdict=verdict
            )
            return
        self._board.change(
            candidate.name, state=State.REFUSED, verdict=verdict, reason=verdict.reason
        )
        if candidate.steps and candidate.steps[-1].name != "mixed_precision":
            self._refused.setdefault(candidate.steps[-1].name, candidate)

    def _artifact(self, candidate: Candidate, model: Path, number: int) -> Artifact:
        self._board.change(candidate.name, state=State.BUILDING)
        if candidate.runtime == "tensorrt":
            return self._engine(candidate, model, number)
        source, signature = self._case.source, self._original.signature
        if not candidate.steps:
            return assembly.artifact_of(candidate, source, model, signature)
        found = self._store.find(candidate)
        if found is not None:
            self._note(candidate.name, "found in the store")
            return found
        folder = self._case.folder.candidate(number)
        built = self._timed(
            candidate.name,
            "build",
            lambda: self._stages.run(
                stages.build, self._case, candidate.steps, model, folder, cap_s=_BUILD_S
            ),
        )
        self._note(candidate.name, *built.notes)
        if not built.modified:
            raise Unavailable("there is nothing to change in this model")
        artifact = assembly.artifact_of(candidate, source, folder / built.file, signature)
        artifact.write()
        return artifact

    def _engine(self, candidate: Candidate, model: Path, number: int) -> Artifact:
        name, folder = candidate.name, self._case.folder.candidate(number)

        def tell(text: str) -> None:
            self._note(name, text)
            self._board.tell(f"{name}: {text}")

        ways = self._engines.ways(candidate, model)
        found = self._engines.find(ways)
        if found is not None:
            tell("found in the store")
            return found
        return self._timed(
            name, "build", lambda: self._engines.build(ways, candidate, model, folder, tell)
        )

    def _check(self, candidate: Candidate, artifact: Artifact) -> Verdict:
        return self._stages.run(
            stages.check,
            self._case,
            artifact,
            self._original,
            candidate.is_lossless,
            cap_s=_CHECK_S,
        )

    def _timed(self, name: str, what: str, call: Callable[[], Result]) -> Result:
        begin = time.monotonic()
        try:
            return call()
        finally:
            self._board.spent(name, what, time.monotonic() - begin)

    def _note(self, name: str, *notes: str) -> None:
        self._board.change(name, notes=(*self._board[name].notes, *notes))
