"""A job without child processes: what its stages return is said in the test."""

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from optimizer.candidate import Verdict
from optimizer.candidate_store import CandidateStore
from optimizer.device import Device
from optimizer.goal import Goal
from optimizer.progress import Board
from optimizer.source import SourceModel
from optimizer.stage_runner import StageRunner
from optimizer.stages import Case, Original
from optimizer.store import ArtifactStore
from optimizer.work_folder import WorkFolder
from protos.signature import Signature, TensorSpec
from tests.unit.optimizer import openers

SIGNATURE = Signature((TensorSpec("x", "FP32", ("n", 2)),), (TensorSpec("y", "FP32", ("n", 2)),))
ACCEPTED = Verdict(True, "top1", 1.0, 0.99)
REFUSED = Verdict(False, "top1", 0.5, 0.99, reason="top1 0.5 of 0.99")
ORIGINAL = Original(SIGNATURE, None, ACCEPTED, 10, 10, True, False, "rows")


class StandIn(StageRunner):
    """Answers stages by their function's name."""

    def __init__(self, goal: Goal, board: Board, **answers: Callable[..., Any]) -> None:
        super().__init__(goal, board, threading.Event())
        self._answers = answers
        self.left_s = 1000.0

    @property
    def remaining_s(self) -> float:
        return self.left_s

    def run(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        cap_s: float,
        on_progress: Callable[[Any], None] | None = None,
    ) -> Any:
        answer = self._answers[function.__name__]
        return answer(*arguments) if on_progress is None else answer(*arguments, on_progress)


def case_in(folder: Path, goal: Goal) -> Case:
    """A case whose model is a file of no meaning."""
    model = folder / "model.onnx"
    model.write_bytes(b"graph")
    (folder / "work").mkdir()
    return Case(SourceModel(model, "onnx"), goal, openers.never_opens, WorkFolder(folder / "work"))


def store_in(folder: Path, goal: Goal) -> CandidateStore:
    store = ArtifactStore(folder / "store")
    device = Device("CPU", 1, 1)
    return CandidateStore(store, contextlib.ExitStack(), device, goal, ("model", "data"))
