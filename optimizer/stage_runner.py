"""Runs the stages of one job under its limits, and keeps the time."""

import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from optimizer import stage
from optimizer.errors import StageTimeout
from optimizer.goal import Goal
from optimizer.progress import Board
from optimizer.stage import Limits

Result = TypeVar("Result")

PRINTED = "| "
"""Begins lines of the log that libraries printed, not the job."""


class StageRunner:
    """The only one who starts a job's child processes. Used by the job's thread."""

    def __init__(self, goal: Goal, board: Board, cancelled: threading.Event) -> None:
        self._goal, self._board, self._cancelled = goal, board, cancelled
        self._begin = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._begin

    @property
    def remaining_s(self) -> float:
        """Of the job's time; negative when it is over."""
        return self._goal.time_limit_s - self.elapsed_s

    def run(
        self,
        function: Callable[..., Result],
        *arguments: Any,
        cap_s: float,
        on_progress: Callable[[Any], None] | None = None,
    ) -> Result:
        """Calls a stage in a child process that has at most `cap_s`, or what is left of the job.

        Raises:
            StageTimeout: it took longer, or nothing was left.
            Cancelled, StageFailed, OptimizationError: as `stage.run`.
        """
        if self.remaining_s <= 0:
            raise StageTimeout(f"{function.__qualname__}: {self.time_is_up}")
        limits = Limits(
            time_s=min(cap_s, self.remaining_s),
            memory_mb=self._goal.memory_limit_mb,
            threads=self._goal.threads,
        )
        return stage.run(
            function,
            *arguments,
            limits=limits,
            cancelled=self._cancelled,
            on_line=lambda line: self._board.tell(PRINTED + line),
            on_progress=on_progress,
        )

    @property
    def time_is_up(self) -> str:
        """The words for it."""
        return f"the job's time limit of {self._goal.time_limit_s / 60:g} min was reached"
