"""How the optimizer runs a model: through whatever opens artifacts where they are to serve.

The optimizer never imports the server. It is given an `Opener`, a function at the top level of a
module so that a child process can be told its name, and so measures with the code that serves.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from optimizer.artifact import Artifact
from protos.signature import Signature
from protos.tensors import Array

Run = Callable[[Mapping[str, Array]], Mapping[str, Array]]
"""Runs a model once: inputs by name in, all outputs by name out. Raises what the model raises."""


class Runner(Protocol):
    """One artifact, open. `run` may be called from several threads at once."""

    @property
    def signature(self) -> Signature: ...

    @property
    def threads(self) -> int:
        """Compute threads one `run` uses."""
        ...

    def run(self, inputs: Mapping[str, Array], output_names: Sequence[str]) -> list[Array]:
        """Runs one batch; blocks; one array per output name, in their order."""
        ...

    def close(self) -> None:
        """Frees the model. No `run` is under way or follows."""
        ...


class Opener(Protocol):
    """Opens an artifact with so many compute threads.

    Raises:
        Unavailable: its runtime or provider is not on this machine; the reason.
        Exception: it cannot be opened.
    """

    def __call__(self, artifact: Artifact, threads: int) -> Runner: ...


def run_all(runner: Runner, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Runs a batch and returns all outputs by name."""
    names = [spec.name for spec in runner.signature.outputs]
    return dict(zip(names, runner.run(inputs, names), strict=True))
