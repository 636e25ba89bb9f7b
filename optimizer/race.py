"""Open models that run in turns, block after block, until it is clear who is fast."""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from math import ceil
from statistics import median

from optimizer.candidate import SIGNIFICANT, Timing
from optimizer.runner import Runner
from optimizer.samples import Samples
from optimizer.standing import laggards
from protos.tensors import Array

_PAUSE_S = 0.02  # runtimes whose threads spin for a while disturb whoever comes next
_FEW = 5  # runs of a look at somebody who is behind
_SURE = 3  # blocks that somebody who is given up was bad in
_OVERTIME = 0.5  # of the time at a batch size, on top, for as many rounds
_WARM_UP_SHARE = 0.1  # of the time at a batch size
_ROUNDS_SHARE = 0.7  # of it; what is left is for the percentiles of the best
_PORTION = 20  # runs, of those for percentiles: in turns as well, so that none is disturbed alone
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
    """One open model, and what its runs at the present batch size took.

    `blocks` has one figure a turn: what a run took, or a row where runs are side by side.
    """

    name: str
    runner: Runner
    side_by_side: int  # runs at once
    times: list[float] = field(default_factory=list)
    blocks: list[float] = field(default_factory=list)
    middles: list[float] = field(default_factory=list)  # median of each turn's runs
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
        """At the batch size that was measured last, undisturbed."""
        last = self.timings[-1]
        return last.min_s / last.batch

    def forget(self) -> None:
        """Begins another batch size, or ends the warm-up."""
        self.times, self.blocks, self.middles, self.rows_per_s = [], [], [], 0.0

    def add(self, times: Sequence[float], rows_per_s: float) -> None:
        """What one turn took."""
        self.times += times
        self.middles.append(median(times))
        self.blocks.append(1 / rows_per_s if self.side_by_side > 1 else self.middles[-1])
        self.rows_per_s = max(self.rows_per_s, rows_per_s)


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
        begin = self.clock.now()
        able = self._affordable([c for c in contenders if not c.failed], batch, budget_s)
        share_s = budget_s * _ROUNDS_SHARE / max(1, len(able)) / self.rounds
        runs = ceil(self.iterations / self.rounds)
        block = Block(_inputs(samples, batch), batch, share_s, runs)
        able = self._warm_up(able, block, budget_s * _WARM_UP_SHARE)
        running = self._rounds(able, block, begin + budget_s, budget_s)
        self._complete(running, block, begin + budget_s)
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

    def _warm_up(self, able: list[Contender], block: Block, budget_s: float) -> list[Contender]:
        warm_up = replace(block, seconds=budget_s / max(1, len(able)), runs=self.warm_up)
        for contender in able:
            contender.forget()
            self._turn(contender, warm_up)
            contender.forget()
        return [contender for contender in able if not contender.failed]

    def _rounds(
        self, running: list[Contender], block: Block, end: float, budget_s: float
    ) -> list[Contender]:
        """Everybody once a round, in an order that is another one in each; who keeps up."""
        look = replace(block, runs=min(block.runs, _FEW))
        behind: dict[str, float] = {}
        for number in range(self.rounds):
            for contender in self._shuffled(running, block.batch, number):
                self._turn(contender, look if contender.name in behind else block)
            running = [contender for contender in running if not contender.failed]
            behind = laggards({c.name: c.blocks for c in running}, number + 1)
            behind.pop(self.baseline, None)
            if self.clock.now() >= (end if number + 1 >= _SURE else end + _OVERTIME * budget_s):
                break
        for contender in running:
            if contender.name in behind and len(contender.blocks) >= _SURE:
                times = f"{behind[contender.name]:.1f} times the best one's time"
                contender.behind[block.batch] = f"{times} at batch {block.batch}"
        return [contender for contender in running if contender.name not in behind]

    def _shuffled(self, running: list[Contender], batch: int, number: int) -> list[Contender]:
        """Whoever always came after the same one would always be disturbed by its threads."""
        order = random.Random(f"{batch}, {number}")
        return order.sample(running, len(running))

    def _complete(self, running: list[Contender], block: Block, end: float) -> None:
        """More runs of the best and of the baseline, for percentiles that mean something."""
        best = min(running, key=lambda contender: contender.pace, default=None)
        enough = min(SIGNIFICANT, self.iterations)
        wanting = [c for c in running if c is best or c.name == self.baseline]
        while wanting := [c for c in wanting if len(c.times) < enough and not c.failed]:
            for contender in wanting:
                left_s = end - self.clock.now()
                if left_s < contender.blocks[-1]:
                    return
                runs = min(_PORTION, enough - len(contender.times))
                self._turn(contender, replace(block, runs=runs, seconds=left_s))

    def _turn(self, contender: Contender, block: Block) -> None:
        self.on_turn(contender.name, block.batch)
        begin = self.clock.now()
        try:
            times = self._side_by_side(contender, block, begin + block.seconds)
        except Exception as error:
            contender.failed = f"batch {block.batch}: {error}"
            return
        elapsed_s = self.clock.now() - begin
        contender.add(times, len(times) * block.batch / elapsed_s)
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
    steady = min(contender.middles)
    return Timing(batch, len(times), times[0], p50, p95, p99, rows_per_s, steady)


def _percentile(ordered: Sequence[float], share: float) -> float:
    return ordered[ceil(share * len(ordered)) - 1]


def _inputs(samples: Samples, batch: int) -> list[dict[str, Array]]:
    first = samples.batch(batch)
    size = sum(array.nbytes for array in first.values())
    count = max(1, min(_INPUTS, _INPUT_BYTES // max(1, size)))
    return [first, *(samples.batch(batch, number * batch) for number in range(1, count))]
