"""Openers that child processes find by their names: the real one, with something going wrong."""

import os
from collections.abc import Mapping, Sequence

import numpy as np

from optimizer.artifact import Artifact
from optimizer.runner import Runner
from protos.signature import Signature
from protos.tensors import Array
from server.backends.opener import open_artifact


def dies_at_basic(artifact: Artifact, threads: int) -> Runner:
    """The process ends without a word when one of the candidates is opened."""
    if artifact.options.get("graph_level") == "basic":
        os._exit(3)
    return open_artifact(artifact, threads)


def dies_when_measured(artifact: Artifact, threads: int) -> Runner:
    """The same, in a run, and only beside others."""
    opened = open_artifact(artifact, threads)
    return _Dies(opened) if artifact.options.get("graph_level") == "basic" else opened


def answers_wrongly(artifact: Artifact, threads: int) -> Runner:
    """Whatever is not the original is very fast, and wrong."""
    opened = open_artifact(artifact, threads)
    return opened if artifact.options.get("graph_level") == "all" else _Wrong(opened)


def never_opens(artifact: Artifact, threads: int) -> Runner:
    raise AssertionError("nothing is to be opened")


class _Wrapped:
    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self.threads = runner.threads

    @property
    def signature(self) -> Signature:
        return self._runner.signature

    def run(self, inputs: Mapping[str, Array], output_names: Sequence[str]) -> list[Array]:
        return self._runner.run(inputs, output_names)

    def close(self) -> None:
        self._runner.close()


class _Dies(_Wrapped):
    runs = 0

    def run(self, inputs: Mapping[str, Array], output_names: Sequence[str]) -> list[Array]:
        if len(next(iter(inputs.values()))) == 1:  # rows are compared in larger batches
            os._exit(3)
        return super().run(inputs, output_names)


class _Wrong(_Wrapped):
    answer: list[Array] | None = None

    def run(self, inputs: Mapping[str, Array], output_names: Sequence[str]) -> list[Array]:
        rows = len(next(iter(inputs.values())))
        if self.answer is None or len(self.answer[0]) != rows:
            self.answer = [np.roll(a, 1, axis=-1) for a in super().run(inputs, output_names)]
        return self.answer
