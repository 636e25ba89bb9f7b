"""A request, or a slice of a large one, while it waits and runs; and where its answer goes."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from protos.tensors import Array
from server.batch_queue import Group
from server.errors import BackendError, ServeError
from server.execution import Outputs, Part
from server.request import Timing

Answer = tuple[Outputs, Timing]


@dataclass(slots=True, eq=False)
class Entry:
    """One line in the queue. An answer to it is one part of its `Assembly`."""

    sequence: int
    priority: int
    group: Group
    rows: int
    part: Part
    assembly: "Assembly"
    enqueued: float
    deadline: float  # math.inf without one
    timer: asyncio.TimerHandle | None = None  # fires at the queue timeout


@dataclass(slots=True, eq=False)
class Assembly:
    """Puts the answers to a request's entries together: one, or several where it was split."""

    future: asyncio.Future[Answer]
    entries: list[Entry] = field(default_factory=list)
    answers: list[Answer | None] = field(default_factory=list)

    @property
    def is_done(self) -> bool:
        """Answered, failed, or its caller has left."""
        return self.future.done()

    def fail(self, error: ServeError) -> None:
        """Fails the whole request, unless it is done."""
        if not self.future.done():
            self.future.set_exception(error)

    def abandon(self) -> None:
        """The caller has left, perhaps without having looked at a failure."""
        if not self.future.cancel() and not self.future.cancelled():
            self.future.exception()

    def add(self, entry: Entry, outputs: Outputs, timing: Timing) -> None:
        """One entry's answer; with the last one the request is answered."""
        if self.future.done():
            return
        if len(self.entries) == 1:
            self.future.set_result((outputs, timing))
            return
        self.answers[self.entries.index(entry)] = (outputs, timing)
        answers = [answer for answer in self.answers if answer is not None]
        if len(answers) == len(self.entries):
            try:
                self.future.set_result(_joined(answers))
            except BackendError as error:  # a bad model must not keep batch-mates unanswered
                self.future.set_exception(error)


def _joined(answers: Sequence[Answer]) -> Answer:
    """Rows in order; compute times are sums, queue delay and company are those of the first slice.

    Raises:
        BackendError: the slices' outputs differ in more than their rows.
    """
    first, timing = answers[0]
    for _, other in answers[1:]:
        timing.compute_input_s += other.compute_input_s
        timing.compute_infer_s += other.compute_infer_s
        timing.compute_output_s += other.compute_output_s
    return {name: _stacked(name, [answer[name] for answer, _ in answers]) for name in first}, timing


def _stacked(name: str, slices: list[Array]) -> Array:
    try:
        return np.concatenate(slices)
    except ValueError:
        first = slices[0].shape[1:]
        other = next((a.shape[1:] for a in slices if a.shape[1:] != first), first)
        raise BackendError(
            f"output '{name}': rows differ in shape, {list(first)} and {list(other)}, so the"
            f" slices of a request larger than max_batch cannot be put together"
        ) from None
