"""Open models that run in turns, block after block, until it is clear who is fast."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from math import ceil
from statistics import median

from optimizer.candidate import Timing
from optimizer.runner import Runner
from optimizer.samples import Samples
from protos.tensors import Array

SIGNIFICANT = 200
"""Runs that a 99th percentile needs to mean something."""
_PAUSE_S = 0.02  # runtimes whose threads spin for a while disturb whoever comes next
_BEHIND = (2.0, 1.5, 1.25)  # times slower than the best, after each round: not measured further
_FEW = 5  # runs, whose fastest may still have been disturbed: then not after the first round
_WARM_UP_SHARE = 0.1  # of the time at a batch size
_EXTRA_SHARE = 0.5  # of it, on top, for the percentiles of the best
_INPUTS = 4  # different batches in turn: trees take another path for each
_INPUT_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Clock:
    """Time, as tests can make it."""

    now: Callable[[], float] = time.perf_counter
    sleep: Callable[[float], None] = time.sleep


REAL = Clock()


@dataclass(slots=True)
class Contender:
    """One open model, and what its runs at the present batch size took."""

    name: str
    runner: Runner
    side_by_side: int  # runs at once
    times: list[float] = field(default_factory=list)
    rows_per_s: float = 0.0  # the best block's
    timings: list[Timing] = field(default_factory=list)
    behind: dict[int, str] = field(default_factory=dict)  # by batch: why it was given up there
    failed: str = ""
    outputs: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.outputs = [spec.name for spec in self.runner.signature.outputs]

    @property
    def pace(self) -> float:
        """What ranks: seconds of the fastest run, or of a row where runs are side by side."""
        return 1 / self.rows_per_s if self.side_by_side > 1 else min(self.times)

    @property
    def seconds_per_row(self) -> float:
        """At the batch size that was measured last."""
        last = self.timings[-1]
        return last.p50_s / last.batch

    def forget(self) -> None:
        """Begins another batch size, or ends the warm-up."""
        self.times, self.rows_per_s = [], 0.0


@dataclass(frozen=True, slots=True)
class Block:
    """What one contender does in its turn: so many runs, or for so long; at least one."""

    inputs: Sequence[Mapping[str, Array]]
    batch: int
    seconds: float
    runs: int


@dataclass(frozen=True, slots=True)
class Race:
    """The rules. `on_turn` hears of every turn before it begins."""

    baseline: str  # is never given up
    rounds: int
    iterations: int  # wanted of each, at each batch size
    warm_up: int
    on_turn: Callable[[str, int], None]  # name, batch
    clock: Clock = REAL

    def run(
        self, contenders: Sequence[Contender], samples: Samples, batch: int, budget_s: float
    ) -> None:
        """Measures one batch size; adds a timing to all that ran, the reason to all that failed."""
        able = self._affordable([c for c in contenders if not c.failed], batch, budget_s)
        share_s = budget_s / max(1, len(able)) / self.rounds
        runs = ceil(self.iterations / self.rounds)
        block = Block(_inputs(samples, batch), batch, share_s, runs)
        able = self._warm_up(able, block)
        running = self._rounds(able, block, self.clock.now() + budget_s * (1 - _WARM_UP_SHARE))
        self._complete(running, replace(block, seconds=budget_s * _EXTRA_SHARE))
        for contender in able:
            if contender.times:
                contender.timings.append(_timing(contender, batch))

    def _affordable(self, able: list[Contender], batch: int, budget_s: float) -> list[Contender]:
        """Who can be run at all in the time there is: the baseline, and the fastest so far."""
        if not all(contender.timings for contender in able):
            return able  # nothing is known yet
        kept: list[Contender] = []
        needed_s = 0.0
        for contender in sorted(able, key=lambda c: (c.name != self.baseline, c.seconds_per_row)):
            needed_s += 2 * batch * contender.seconds_per_row  # to warm up, and to be measured
            if needed_s > budget_s and len(kept) > 2:
                contender.behind[batch] = f"too slow to be measured at batch {batch}"
            else:
                kept.append(contender)
        return kept

    def _warm_up(self, able: list[Contender], block: Block) -> list[Contender]:
        seconds = block.seconds * self.rounds * _WARM_UP_SHARE
        for contender in able:
            contender.forget()
            self._turn(contender, replace(block, seconds=seconds, runs=self.warm_up))
            contender.forget()
        return [contender for contender in able if not contender.failed]

    def _rounds(self, running: list[Contender], block: Block, end: float) -> list[Contender]:
        for number in range(self.rounds):
            for contender in running:
                self._turn(contender, block)
            running = [contender for contender in running if not contender.failed]
            running = self._without_hopeless(running, block.batch, number)
            if self.clock.now() >= end:
                break
        return running

    def _without_hopeless(
        self, running: list[Contender], batch: int, number: int
    ) -> list[Contender]:
        limit = _BEHIND[min(number, len(_BEHIND) - 1)]
        fastest = min((contender.pace for contender in running), default=0.0)
        for contender in running:
            times = contender.pace / fastest
            is_unsure = number == 0 and len(contender.times) < _FEW
            if times > limit and not is_unsure and contender.name != self.baseline:
                contender.behind[batch] = f"{times:.1f} times the best one's time at batch {batch}"
        return [contender for contender in running if batch not in contender.behind]

    def _complete(self, running: list[Contender], block: Block) -> None:
        """More runs of the best and of the baseline, for percentiles that mean something."""
        best = min(running, key=lambda contender: contender.pace, default=None)
        enough = min(SIGNIFICANT, self.iterations)
        missing = [
            (contender, enough - len(contender.times))
            for contender in running
            if contender is best or contender.name == self.baseline
        ]
        if sum(max(0, n) * median(c.times) for c, n in missing) > block.seconds:
            return
        for contender, runs in missing:
            if runs > 0:
                self._turn(contender, replace(block, runs=runs))

    def _turn(self, contender: Contender, block: Block) -> None:
        self.on_turn(contender.name, block.batch)
        begin = self.clock.now()
        try:
            times = self._side_by_side(contender, block, begin + block.seconds)
        except Exception as error:
            contender.failed = f"batch {block.batch}: {error}"
            return
        elapsed_s = self.clock.now() - begin
        contender.times += times
        contender.rows_per_s = max(contender.rows_per_s, len(times) * block.batch / elapsed_s)
        self.clock.sleep(_PAUSE_S)

    def _side_by_side(self, contender: Contender, block: Block, until: float) -> list[float]:
        if contender.side_by_side == 1:
            return self._runs(contender, block, until, 0)
        with ThreadPoolExecutor(contender.side_by_side) as threads:
            lanes = [
                threads.submit(self._runs, contender, block, until, lane)
                for lane in range(contender.side_by_side)
            ]
            return [taken for lane in lanes for taken in lane.result()]

    def _runs(self, contender: Contender, block: Block, until: float, lane: int) -> list[float]:
        now, run, names = self.clock.now, contender.runner.run, contender.outputs
        times: list[float] = []
        for number in range(lane, lane + max(1, block.runs)):
            inputs = block.inputs[number % len(block.inputs)]
            begin = now()
            run(inputs, names)
            end = now()
            times.append(end - begin)
            if end >= until:
                break
        return times


def _timing(contender: Contender, batch: int) -> Timing:
    times = sorted(contender.times)
    p50 = median(times)
    rows_per_s = contender.rows_per_s if contender.side_by_side > 1 else batch / p50
    p95, p99 = _percentile(times, 0.95), _percentile(times, 0.99)
    return Timing(batch, len(times), times[0], p50, p95, p99, rows_per_s)


def _percentile(ordered: Sequence[float], share: float) -> float:
    return ordered[ceil(share * len(ordered)) - 1]


def _inputs(samples: Samples, batch: int) -> list[dict[str, Array]]:
    first = samples.batch(batch)
    size = sum(array.nbytes for array in first.values())
    count = max(1, min(_INPUTS, _INPUT_BYTES // max(1, size)))
    return [first, *(samples.batch(batch, number * batch) for number in range(1, count))]
