"""Applies passes to a model in a folder of its own, and runs what they make."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from optimizer.artifact import Artifact, Runtime
from optimizer.candidate import Step
from optimizer.passes import apply_steps
from optimizer.passes.contract import PassInput, PassResult
from optimizer.runner import run_all
from optimizer.samples import Samples
from protos.tensors import Array
from server.backends.opener import open_artifact


@dataclass(frozen=True)
class Bench:
    """A folder with the original in it."""

    model: Path
    work: Path

    def apply(
        self, name: str, settings: Mapping[str, Any] | None = None, rows: Samples | None = None
    ) -> PassResult:
        """One pass, with everything it promises checked."""
        return apply_steps([Step(name, settings or {})], self.given(rows))

    def apply_in(
        self,
        folder: str,
        name: str,
        rows: Samples | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> PassResult:
        """The same in a folder of its own, to be done several times."""
        part = replace(self.given(rows), folder=self.work / folder)
        return apply_steps([Step(name, settings or {})], part)

    def given(self, rows: Samples | None = None) -> PassInput:
        return PassInput(self.model, self.work, {}, rows, open_artifact)

    def fingerprint(self) -> str:
        """Of everything beside the model."""
        digest = hashlib.sha256()
        for file in sorted(self.model.parent.iterdir()):
            digest.update(file.name.encode() + file.read_bytes())
        return digest.hexdigest()

    def error(self, made: Path, rows: Samples) -> float:
        """Largest difference of any answer from the original's, relative to the range of those."""
        wanted, found = run(self.model, rows), run(made, rows)
        assert wanted.keys() == found.keys()
        return max(_error(wanted[name], found[name]) for name in wanted)


def bench(tmp_path: Path, model: bytes) -> Bench:
    source, work = tmp_path / "source", tmp_path / "work"
    source.mkdir()
    work.mkdir()
    (source / "model.onnx").write_bytes(model)
    return Bench(source / "model.onnx", work)


def run(file: Path, rows: Samples) -> dict[str, Array]:
    runtime: Runtime = "openvino" if file.suffix == ".xml" else "onnxruntime"
    artifact = Artifact(file.parent, file.name, runtime, "test", options={"precision": "f32"})
    runner = open_artifact(artifact, 1)
    try:
        return run_all(runner, rows.inputs)
    finally:
        runner.close()


def _error(wanted: Array, found: Array) -> float:
    assert wanted.dtype == found.dtype
    assert wanted.shape == found.shape
    return float(np.abs(found - wanted).max() / (wanted.max() - wanted.min()))
