"""Whole races on a simulated machine that is disturbed all the time."""

import random
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from optimizer.candidate import Candidate, Outcome, State, Verdict
from optimizer.goal import Goal
from optimizer.race import Clock, Contender, Race
from optimizer.samples import Samples
from optimizer.selection import select
from optimizer.standing import laggards
from protos.signature import Signature, TensorSpec
from protos.tensors import Array

SIGNATURE = Signature((TensorSpec("x", "FP32", ("n", 2)),), (TensorSpec("y", "FP32", ("n", 2)),))
SAMPLES = Samples({"x": np.ones((5, 2), np.float32)})
TRUE_MS = {"original": 10.0, "close": 6.2, "best": 5.0, "slower": 9.0, "hopeless": 70.0}
BUDGET_S = 10.0


class Machine:
    """Runs take their true time, times noise of each run, times what a whole block suffers."""

    def __init__(self, seed: int, disturbed: float) -> None:
        self._random = random.Random(seed)
        self._disturbed, self._now, self._factor = disturbed, 0.0, 1.0

    def race(self) -> list[Contender]:
        contenders = [Contender(name, _Model(self, name), 1) for name in TRUE_MS]
        clock = Clock(lambda: self._now, self._pass)
        race = Race("original", 6, 60, 2, self._begin_block, clock)
        race.run(contenders, SAMPLES, 1, BUDGET_S)
        return contenders

    def work(self, name: str) -> None:
        self._pass(TRUE_MS[name] / 1e3 * self._factor * self._random.lognormvariate(0.1, 0.08))

    def _begin_block(self, name: str, batch: int) -> None:
        is_disturbed = self._random.random() < self._disturbed
        self._factor = min(100, 10 * self._random.paretovariate(1.2)) if is_disturbed else 1.0

    def _pass(self, seconds: float) -> None:
        self._now += seconds


class _Model:
    signature = SIGNATURE
    threads = 1

    def __init__(self, machine: Machine, name: str) -> None:
        self._machine, self._name = machine, name

    def run(self, inputs: Mapping[str, Array], output_names: Sequence[str]) -> list[Array]:
        self._machine.work(self._name)
        return [inputs["x"]]

    def close(self) -> None: ...


def outcomes(contenders: Sequence[Contender]) -> list[Outcome]:
    return [
        Outcome(
            Candidate(contender.name, (), "onnxruntime"),
            State.DROPPED if contender.behind else State.MEASURED,
            verdict=Verdict(True, "top1", 1.0, 0.99),
            timings=tuple(contender.timings),
        )
        for contender in contenders
    ]


@pytest.mark.parametrize(("disturbed", "races"), [(0.0, 200), (0.1, 1000), (0.2, 500)])
def test_the_best_is_never_dropped_and_always_wins(disturbed: float, races: int) -> None:
    lost = []
    for seed in range(races):
        found = outcomes(Machine(seed, disturbed).race())
        chosen = select(found, Goal(), found[0])
        if chosen.winner is None or chosen.winner.candidate.name != "best":
            lost.append(seed)
    assert lost == []


def test_the_hopeless_cost_little_time() -> None:
    found = {contender.name: contender for contender in Machine(0, 0.0).race()}
    assert "times the best one's time" in found["hopeless"].behind[1]
    assert found["hopeless"].timings[0].samples < 60


def test_one_good_block_is_enough() -> None:
    assert laggards({"a": [1.0], "b": [30.0]}, 1) == {"b": 30.0}
    assert laggards({"a": [1.0, 1.0], "b": [30.0, 1.4]}, 2) == {}
    assert laggards({"a": [1.0, 1.0], "b": [30.0, 1.6]}, 2) == {"b": 1.6}
    assert laggards({"a": [1.0] * 6, "b": [30.0] * 5 + [1.3]}, 6) == {"b": 1.3}
    assert laggards({}, 1) == {}
