"""Finds the layers that quantization must leave alone: ranked by damage, as few as will do."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np

from optimizer.candidate import Verdict
from optimizer.errors import PassError
from optimizer.passes.answers import Answers, answers, finite_answers
from optimizer.passes.calibration_rows import checked
from optimizer.passes.contract import PassInput
from optimizer.passes.multiply_adds import constants_of, weights_of
from optimizer.passes.onnx_files import load_graph
from optimizer.samples import Samples
from optimizer.validation import judge
from protos.tensors import Array

_ROWS = 256  # the gate's figure is coarse on few
_RANKING_ROWS = 32
_TRIALS = 64
_FOR_CHOOSING = 10  # of the trials; the others rank
_REST = "everything between the layers"


@dataclass(frozen=True, slots=True)
class Quantizer:
    """What quantizes a prepared model."""

    build: Callable[[Path, Sequence[str]], None]  # into a file, but for the nodes named
    kinds: Sequence[str]  # operators that it quantizes


@dataclass(frozen=True, slots=True)
class Found:
    """What a search ended with."""

    layers: tuple[str, ...]  # left in float, the worst first
    excluded: tuple[str, ...]  # names of their nodes
    total: int  # layers there are
    verdict: Verdict
    trials: int  # models built


def search(given: PassInput, source: Path, work: Path, quantizer: Quantizer) -> Found:
    """The fewest layers of a prepared model to leave in float.

    First every layer is quantized alone and ranked by the error of the answers, then the worst of
    that ranking are left out: one, two, four, ..., and back by halves. Neighbours are taken
    together where there are more layers than trials.

    Raises:
        PassError: not even one layer with weights can be quantized.
    """
    trial = _Trial(given, source, work, quantizer)
    verdict = trial.verdict(())
    ranked = [] if verdict.is_accepted else trial.ranked()
    count, verdict = (0, verdict) if verdict.is_accepted else _fewest(ranked, trial)
    layers = tuple(name for group in ranked[:count] for name in group)
    return Found(layers, trial.nodes(layers), len(trial.layers), verdict, trial.built)


def layers_of(source: Path, kinds: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Nodes of these operators by layer: each that has weights, and all others together."""
    graph = load_graph(source)
    constants = constants_of(graph)
    layers: dict[str, tuple[str, ...]] = {}
    rest: list[str] = []
    for node in (node for node in graph.graph.node if node.op_type in kinds):
        is_table = node.op_type == "Gather" and node.input[0] in constants
        if is_table or any(weights_of(node, constants)):
            layers[node.name] = (node.name,)
        else:
            rest.append(node.name)
    return {**layers, _REST: tuple(rest)} if rest else layers


class _Trial:
    """Builds models, runs them and compares their answers with the original's."""

    def __init__(self, given: PassInput, source: Path, work: Path, quantizer: Quantizer) -> None:
        samples = checked(given)
        rows = min(samples.rows, given.settings.get("rows", _ROWS))
        self._samples: Samples = samples.take(np.arange(rows))
        self._few = min(rows, _RANKING_ROWS)
        self._given, self._build = given, quantizer.build
        self._file = work / "trial.onnx"
        self._reference: Answers = finite_answers(given, given.model, self._samples)
        self._most: int = given.settings.get("trials", _TRIALS)
        self.layers: Mapping[str, tuple[str, ...]] = layers_of(source, quantizer.kinds)
        self.built = 0

    def nodes(self, layers: Sequence[str]) -> tuple[str, ...]:
        return tuple(name for layer in layers for name in self.layers[layer])

    def verdict(self, layers: Sequence[str]) -> Verdict:
        """The gate's, on the calibration set, with these layers left in float."""
        settings = self._given.settings
        return judge(
            self._reference.outputs,
            self._answers(self.nodes(layers), self._samples),
            self._samples,
            task=settings.get("task"),
            metric=settings.get("metric", "auto"),
            threshold=settings.get("threshold", 0.99),
            is_lossless=False,
            signature=self._reference.signature,
        )

    def ranked(self) -> list[tuple[str, ...]]:
        """Layers in groups of neighbours, the most harmful first."""
        names = list(self.layers)
        size = ceil(len(names) / max(self._most - _FOR_CHOOSING, 1))
        groups = [tuple(names[at : at + size]) for at in range(0, len(names), size)]
        damage = {group: self._damage(group) for group in groups}
        return sorted(groups, key=lambda group: damage[group], reverse=True)

    def _damage(self, alone: Sequence[str]) -> float:
        """Relative error of the answers where only these layers are quantized."""
        others = [name for name in self.layers if name not in alone]
        found = self._answers(self.nodes(others), self._samples.take(np.arange(self._few)))
        reference = self._reference.outputs
        return max(_error(reference[name][: len(array)], array) for name, array in found.items())

    def _answers(self, exclude: Sequence[str], samples: Samples) -> dict[str, Array]:
        self._file.unlink(missing_ok=True)
        self._build(self._file, exclude)
        self.built += 1
        return answers(self._given, self._file, samples).outputs


def _fewest(ranked: Sequence[tuple[str, ...]], trial: _Trial) -> tuple[int, Verdict]:
    most = _most(ranked)
    refused, accepted = 0, min(1, most)
    verdict = trial.verdict(_first(ranked, accepted))
    while not verdict.is_accepted:
        if accepted == most:
            raise PassError(
                f"not even with {most} of {len(ranked)} layers in float: {verdict.reason}"
            )
        refused, accepted = accepted, min(2 * accepted, most)
        verdict = trial.verdict(_first(ranked, accepted))
    while accepted - refused > 1:
        middle = (accepted + refused) // 2
        found = trial.verdict(_first(ranked, middle))
        if found.is_accepted:
            accepted, verdict = middle, found
        else:
            refused = middle
    return accepted, verdict


def _most(ranked: Sequence[tuple[str, ...]]) -> int:
    """How many can be left out so that something worth it is still quantized."""
    worth = [at for at, group in enumerate(ranked) if set(group) != {_REST}]
    return worth[-1] if worth else 0


def _first(ranked: Sequence[tuple[str, ...]], count: int) -> list[str]:
    return [name for group in ranked[:count] for name in group]


def _error(reference: Array, found: Array) -> float:
    if reference.shape != found.shape:
        return float("inf")
    if reference.dtype.kind != "f":
        return float(np.mean(reference != found))
    difference = found.astype(np.float64) - reference
    size = float(np.sqrt(np.mean(np.square(reference.astype(np.float64)))))
    error = float(np.sqrt(np.mean(np.square(difference)))) / max(size, 1e-12)
    return error if np.isfinite(error) else float("inf")
