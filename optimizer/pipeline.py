"""One optimization from begin to end: which stage comes next, and what its end means.

Only orchestrates. Every heavy step is a function of `stages.py` in a child process; who is tried
and who wins is decided by `plan.py` and `selection.py`. A stage that fails, hangs or is killed
costs its candidate; the job goes on.
"""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from optimizer import assembly, device, keys, plan, selection, stages
from optimizer.artifact import Artifact
from optimizer.benchmark import budget_s
from optimizer.candidate import Outcome, State
from optimizer.candidate_store import CandidateStore
from optimizer.conclusion import Conclusion, report_of
from optimizer.contest import Contest
from optimizer.data.spec import DataSpec
from optimizer.device import Device
from optimizer.errors import Cancelled, OptimizationError, SourceError, StageFailed
from optimizer.goal import Goal
from optimizer.plan import ModelFacts
from optimizer.progress import Board, Listener, Progress
from optimizer.report import Report
from optimizer.runner import Opener
from optimizer.samples import Samples
from optimizer.selection import Selection
from optimizer.source import SourceModel
from optimizer.stage_runner import StageRunner
from optimizer.stages import Case, Original
from optimizer.store import ArtifactStore, key_of
from optimizer.trials import Trials
from optimizer.work_folder import WorkFolder

__all__ = ["Progress", "optimize"]

Result = TypeVar("Result")

_PREPARE_S, _CONVERT_S, _LOOK_S, _PACK_S = 600.0, 900.0, 120.0, 300.0
_RESERVED = 0.4  # of the job's time that is kept for the benchmark, at most


def optimize(
    source: SourceModel,
    data: DataSpec | Samples | None,
    goal: Goal,
    *,
    opener: Opener,
    store: ArtifactStore,
    work: Path,
    databases: Mapping[str, str],
    listener: Listener,
    cancelled: threading.Event,
) -> Report:
    """Finds the fastest acceptable form of a model and puts it into the store.

    Blocks; may be called on any thread, which the listener is called on. What the store remembers
    of the same model, goal, data, libraries and machine is returned at once. `work` is an empty
    folder; what is left in it afterwards is of no use.

    Raises:
        SourceError: the model cannot be read, or was changed meanwhile.
        DataError: the data cannot be read or do not fit.
        Cancelled: `cancelled` was set.
        OptimizationError: the original does not run, or the store cannot be written.
    """
    machine, board = device.read(), Board(listener)
    check = partial(_check_unchanged, source, source.state())
    prints = (source.fingerprint(), keys.data_print(data))
    with contextlib.ExitStack() as held:
        kept = CandidateStore(store, held, machine, goal, prints, check=check)
        known = store.winner(key_of(kept.winner_parts()))
        if known is not None:
            board.begin("done", 100.0, "found in the store: nothing had to be done")
            return Report.from_json(json.loads(known.report))
        board.tell(f"not in the store: {store.explain_miss(kept.winner_parts())}")
        case = Case(source, goal, opener, WorkFolder(work))
        stage_runner = StageRunner(goal, board, cancelled)
        return _Job(case, machine, stage_runner, board, kept).run(data, databases)


class _Job:
    """One run, on the stack of `optimize`."""

    def __init__(
        self,
        case: Case,
        machine: Device,
        stage_runner: StageRunner,
        board: Board,
        store: CandidateStore,
    ) -> None:
        self._case, self._goal, self._machine = case, case.goal, machine
        self._stages, self._board, self._store = stage_runner, board, store
        self._notes: list[str] = []
        self._seconds: dict[str, float] = {}
        self._has_failed = False  # the conversion, in a way that may not be the model's fault

    def run(self, data: DataSpec | Samples | None, databases: Mapping[str, str]) -> Report:
        original = self._timed("prepare", lambda: self._prepare(data, databases))
        model = self._timed("convert", self._onnx_form)
        facts = self._timed("look", lambda: self._facts(model))
        self._board.add([self._baseline(facts, original)])
        planned = plan.candidates(facts, self._machine, self._goal, has_data=original.is_real)
        self._board.add(planned)
        if model is not None:
            self._board.begin("building", 20.0, f"{len(planned)} candidates")
            trials = Trials(self._case, self._stages, self._board, self._store, original)
            trials.run(model, self._reserved_s(), (20.0, 65.0))
        return self._conclude(original)

    def _conclude(self, original: Original) -> Report:
        baseline = self._board.outcomes[0].candidate.name
        self._board.begin("measuring", 65.0)
        contest = Contest(self._case, self._stages, self._board, (65.0, 95.0))
        load = self._timed("benchmark", lambda: contest.run(baseline))
        self._board.begin("selecting", 95.0)
        chosen = selection.select(self._board.outcomes, self._goal, self._board[baseline])
        artifact = self._winner(chosen)
        end = Conclusion(
            source=self._case.source,
            fingerprint=self._store.source,
            goal=self._goal,
            device=self._machine,
            original=original,
            outcomes=self._board.outcomes,
            selection=chosen,
            artifact=artifact,
            stored=self._stored(chosen, artifact),
            load=load,
            seconds={**self._seconds, "total": self._stages.elapsed_s},
            notes=tuple(self._notes),
        )
        report = report_of(end)
        if self._is_lasting(chosen):
            self._store.remember(artifact, json.dumps(report.to_json()))
        self._board.begin("done", 100.0, report.reason)
        return report

    def _is_lasting(self, chosen: Selection) -> bool:
        """Whether another run would find the same: time did not run out, and nothing crashed.

        A winner is one whatever crashed beside it.
        """
        if self._board.in_state(State.CANCELLED):
            return False
        has_failed = self._has_failed or bool(self._board.in_state(State.FAILED))
        return not (chosen.is_rejected and has_failed)

    def _prepare(self, data: DataSpec | Samples | None, databases: Mapping[str, str]) -> Original:
        self._board.begin("preparing", 0.0, f"opening {self._case.source.path.name}")
        given: DataSpec | Path | None = data if isinstance(data, DataSpec) else None
        if isinstance(data, Samples):
            given = self._case.folder.path / "samples.npz"
            data.save(given)
        original = self._stages.run(stages.prepare, self._case, given, databases, cap_s=_PREPARE_S)
        self._board.tell(f"{original.validation_rows:,} rows to compare on: {original.data}")
        if original.has_labels and original.verdict.original is None:
            self._note(
                "the labels were not used: the original's answers have no more to do with them than"
                " chance has"
            )
        return original

    def _onnx_form(self) -> Path | None:
        """The model as ONNX; None where it cannot be had, or is not the same model."""
        if self._case.source.framework == "onnx":
            return self._case.source.path
        self._board.begin("converting", 5.0, f"converting from {self._case.source.framework}")
        folder = self._case.folder.converted
        folder.mkdir()
        target = folder / "model.onnx"
        try:
            found = self._stages.run(stages.convert, self._case, target, cap_s=_CONVERT_S)
        except Cancelled:
            raise
        except OptimizationError as error:
            self._has_failed |= isinstance(error, StageFailed)
            self._note(f"not converted to ONNX: {_first_line(error)}")
            return None
        for note in found.notes:
            self._note(note)
        return target

    def _facts(self, model: Path | None) -> ModelFacts:
        framework = self._case.source.framework
        if model is None:
            return ModelFacts(framework, None)
        self._board.tell("looking at the graph", 15.0)
        try:
            graph, levels = self._stages.run(stages.look, model, self._goal.is_quick, cap_s=_LOOK_S)
        except Cancelled:
            raise
        except OptimizationError as error:
            self._has_failed |= isinstance(error, StageFailed)
            self._note(f"not changed, as its graph cannot be read: {_first_line(error)}")
            return ModelFacts(framework, None)
        return ModelFacts(framework, graph, levels)

    def _baseline(self, facts: ModelFacts, original: Original) -> Outcome:
        candidate = plan.baseline(facts)
        artifact = stages.original_artifact(self._case.source, original.signature)
        return Outcome(
            candidate,
            State.MEASURING,
            artifact=artifact,
            size_bytes=artifact.size_bytes,
            verdict=original.verdict,
        )

    def _reserved_s(self) -> float:
        """Time that the benchmark is to have, whatever the candidates take."""
        return min(2 * budget_s(self._goal), _RESERVED * self._goal.time_limit_s)

    def _winner(self, chosen: Selection) -> Artifact | None:
        """Puts what was chosen into the store, unless it is there."""
        if chosen.is_rejected:
            return None
        regimes, folder = chosen.regimes, self._case.folder.path / "winner"
        won = regimes[0].outcome
        if len(regimes) == 1 and won.artifact is not None:
            if self._store.has(won.artifact):
                return won.artifact
            packed = self._stages.run(assembly.pack, won.artifact, folder, cap_s=_PACK_S)
        else:
            packed = self._stages.run(assembly.pack_regimes, regimes, folder, cap_s=_PACK_S)
        return self._store.put(folder, packed, {**self._store.winner_parts(), "what": "winner"})

    def _stored(self, chosen: Selection, winner: Artifact | None) -> dict[str, str]:
        """Ids of the artifacts that are in the store, by candidate."""
        made = [(outcome.candidate.name, outcome.artifact) for outcome in self._board.outcomes]
        if winner is not None and len(chosen.regimes) == 1:
            made.append((chosen.regimes[0].outcome.candidate.name, winner))
        return {
            name: artifact.artifact_id
            for name, artifact in made
            if artifact is not None and self._store.is_held(artifact)
        }

    def _timed(self, stage: str, call: Callable[[], Result]) -> Result:
        begin = time.monotonic()
        result = call()
        self._seconds[stage] = time.monotonic() - begin
        return result

    def _note(self, text: str) -> None:
        self._notes.append(text)
        self._board.tell(text)


def _check_unchanged(source: SourceModel, state: Sequence[object]) -> None:
    """What is kept under a model's fingerprint has to be made from that model."""
    if source.state() != state:
        raise SourceError(f"'{source.path.name}' was changed while it was optimized")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")
