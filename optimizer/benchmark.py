"""Times artifacts against each other on a machine that does other things as well.

All of them are open in one process and run in turns, a short block each, round after round: what
disturbs the machine disturbs all alike. Measured one after the other, a candidate up to 55 %
slower than the best is chosen; in turns, the same one every time.
"""

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from optimizer.artifact import Artifact
from optimizer.candidate import Timing
from optimizer.goal import Goal
from optimizer.race import REAL, Clock, Contender, Race
from optimizer.runner import Opener
from optimizer.samples import Samples
from protos.signature import Signature

_ROUNDS, _QUICK_ROUNDS = 6, 4
_QUICK_BUDGET_S = 5.0
_FIRST_SHARE = 0.4


@dataclass(frozen=True, slots=True)
class Entry:
    """One artifact under measurement."""

    name: str
    artifact: Artifact
    threads: int  # compute threads of one run


@dataclass(frozen=True, slots=True)
class Measured:
    """What was found out about one entry."""

    name: str
    timings: tuple[Timing, ...] = ()
    dropped: str = ""  # why it was not measured to the end, at any batch size
    failed: str = ""  # why it could not be measured


@dataclass(frozen=True, slots=True)
class Benchmark:
    """All entries, and what the machine did beside."""

    entries: tuple[Measured, ...]
    load_before: float  # processes that wanted to run, average of a minute
    load_after: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Turn:
    """Who is in hand: told before it begins, so that whoever crashes the process is known."""

    name: str
    batch: int  # 0: being opened
    part: float  # of the whole, from 0 to 1


def measure(
    entries: Sequence[Entry],
    samples: Samples,
    goal: Goal,
    opener: Opener,
    *,
    baseline: str,
    memory_mb: int = 0,
    listener: Callable[[Turn], None] = lambda turn: None,
    clock: Clock = REAL,
) -> Benchmark:
    """Times all entries at every batch size, in turns, within the goal's time.

    `memory_mb`: what may be open at once; entries that do not fit together are measured in groups,
    the one named `baseline` in each. 0: no limit.
    """
    load, begin = os.getloadavg()[0], clock.now()
    groups = _groups(entries, baseline, memory_mb)
    found: dict[str, Measured] = {}
    for index, group in enumerate(groups):
        heat = _Heat(goal, baseline, budget_s(goal) / len(groups), clock, listener, len(groups))
        for measured in heat.run(index, group, samples, opener):
            found.setdefault(measured.name, measured)
    return Benchmark(tuple(found.values()), load, os.getloadavg()[0], clock.now() - begin)


def budget_s(goal: Goal) -> float:
    """Time for all runs together."""
    return min(goal.benchmark_s, _QUICK_BUDGET_S) if goal.is_quick else goal.benchmark_s


def batch_sizes(goal: Goal, signature: Signature) -> tuple[int, ...]:
    """What is measured: the goal's sizes that the server would form, or the model's only one."""
    fixed = fixed_rows(signature)
    if fixed is not None:
        return (fixed,)
    sizes = sorted({size for size in goal.batch_sizes if size <= goal.max_batch})
    sizes = sizes or [min(goal.batch_sizes)]
    return tuple(sorted({sizes[0], sizes[len(sizes) // 2]}) if goal.is_quick else sizes)


def shares(goal: Goal, sizes: int) -> list[float]:
    """How the time is divided among batch sizes: most for the first where it decides."""
    if sizes == 1 or goal.objective != "latency":
        return [1 / sizes] * sizes
    return [_FIRST_SHARE, *[(1 - _FIRST_SHARE) / (sizes - 1)] * (sizes - 1)]


def fixed_rows(signature: Signature) -> int | None:
    """The only number of rows a model takes; None where dimension 0 is open."""
    sizes = [spec.shape[0] for spec in signature.inputs if spec.shape]
    fixed = [size for size in sizes if isinstance(size, int)]
    return max(fixed) if fixed else None


@dataclass(frozen=True, slots=True)
class _Heat:
    """One group of entries, from opening to closing."""

    goal: Goal
    baseline: str
    budget_s: float
    clock: Clock
    listener: Callable[[Turn], None]
    heats: int

    def run(
        self, index: int, entries: Sequence[Entry], samples: Samples, opener: Opener
    ) -> list[Measured]:
        contenders: list[Contender] = []
        refused: list[Measured] = []
        try:
            for entry in entries:
                self.listener(Turn(entry.name, 0, index / self.heats))
                try:
                    contenders.append(self._open(entry, opener))
                except Exception as error:
                    refused.append(Measured(entry.name, failed=f"cannot be opened: {error}"))
            with _no_collections():
                self._race(index, contenders, samples)
            return [*map(_measured, contenders), *refused]
        finally:
            for contender in contenders:
                contender.runner.close()

    def _open(self, entry: Entry, opener: Opener) -> Contender:
        is_throughput = self.goal.objective == "throughput"
        side_by_side = max(1, self.goal.threads // entry.threads) if is_throughput else 1
        return Contender(entry.name, opener(entry.artifact, entry.threads), side_by_side)

    def _race(self, index: int, contenders: Sequence[Contender], samples: Samples) -> None:
        sizes = batch_sizes(self.goal, contenders[0].runner.signature) if contenders else ()
        parts = shares(self.goal, len(sizes)) if sizes else []
        for number, batch in enumerate(sizes):
            part = (index + sum(parts[:number])) / self.heats

            def on_turn(name: str, batch: int, part: float = part) -> None:
                self.listener(Turn(name, batch, part))

            race = Race(
                self.baseline,
                _QUICK_ROUNDS if self.goal.is_quick else _ROUNDS,
                self.goal.iterations,
                self.goal.warmup_iterations,
                on_turn,
                self.clock,
            )
            race.run(contenders, samples, batch, self.budget_s * parts[number])
            if self._is_too_large(contenders):
                return

    def _is_too_large(self, contenders: Sequence[Contender]) -> bool:
        """Whether the original itself takes no batches of this size: nobody has to then."""
        original = next((c for c in contenders if c.name == self.baseline), None)
        if original is None or not original.failed or not original.timings:
            return False
        size = original.failed.partition(":")[0]
        for contender in contenders:
            if contender.failed.partition(":")[0] == size:
                contender.failed = ""
        return True


def _measured(contender: Contender) -> Measured:
    is_given_up = all(timing.batch in contender.behind for timing in contender.timings)
    dropped = next(iter(contender.behind.values()), "") if is_given_up else ""
    return Measured(contender.name, tuple(contender.timings), dropped, contender.failed)


def _groups(entries: Sequence[Entry], baseline: str, memory_mb: int) -> list[list[Entry]]:
    """Entries that fit into memory together, the baseline first in each group."""
    first = [entry for entry in entries if entry.name == baseline]
    groups, used_mb = [list(first)], sum(map(_memory_mb, first))
    for entry in entries:
        if entry.name == baseline:
            continue
        used_mb += _memory_mb(entry)
        if memory_mb and used_mb > memory_mb and len(groups[-1]) > len(first):
            groups.append(list(first))
            used_mb = sum(map(_memory_mb, first)) + _memory_mb(entry)
        groups[-1].append(entry)
    return groups


def _memory_mb(entry: Entry) -> float:
    """Weights as they are stored and again as the runtime packs them, and its own things."""
    return 2.5 * entry.artifact.size_bytes / 2**20 + 50


@contextmanager
def _no_collections() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
