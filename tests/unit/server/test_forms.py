"""What is remembered of the forms that serve."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from optimizer import device
from optimizer.artifact import Artifact
from optimizer.goal import Goal
from optimizer.source import source_of
from optimizer.store import ArtifactStore
from server.chosen import Choices
from server.forms import Forms, Made
from server.load_plan import Origin
from server.metrics import OptimizationFigures
from server.model_config import ModelConfig
from server.optimization_job import Task
from server.registry import Registry
from server.repository import VersionFile


class AlwaysServes:
    """A registry that exchanges whatever is asked."""

    def __init__(self) -> None:
        self.exchanged: list[str] = []

    async def exchange(self, model: str, version: int, origin: Origin, optimized: Any) -> None:
        self.exchanged.append(optimized.artifact.artifact_id)

    def resolve(self, model: str, version: int) -> None:
        """Nobody looks at what serves."""


async def at_once(call: Any, *arguments: Any) -> Any:
    return call(*arguments)


async def test_a_file_that_changes_during_the_swap_is_not_taken_for_what_the_artifact_is_of(
    tmp_path: Path,
) -> None:
    model, made_in = tmp_path / "model.onnx", tmp_path / "made"
    model.write_bytes(b"old")
    made_in.mkdir()
    (made_in / "m.onnx").write_bytes(b"fast")
    store, choices = ArtifactStore(tmp_path / "store"), Choices(tmp_path / "serving.json")
    artifact = store.put(made_in, Artifact(made_in, "m.onnx", "onnxruntime", "a"), {"model": "old"})
    origin = Origin(VersionFile(model, ()), ModelConfig("m"))
    task = Task(origin, source_of(model), None, Goal(), configured="a threshold")
    made_of = task.source.fingerprint()
    registry = AlwaysServes()
    forms = Forms(
        cast(Registry, registry), store, choices=choices, device=device.read(),
        figures=OptimizationFigures(), blocking=at_once,
    )  # fmt: skip
    model.write_bytes(b"new")
    await forms.serve("m", 1, task, Made(artifact.artifact_id, "opt-1", made_of))
    assert registry.exchanged == [artifact.artifact_id]
    assert not await forms.recall("m", 1, task), "after a restart the new file serves"
    model.write_bytes(b"old")
    assert await forms.recall("m", 1, task)
    assert registry.exchanged == [artifact.artifact_id] * 2
    other = replace(task, configured="another threshold")
    assert not await forms.recall("m", 1, other), "a job has to find out anew"
    assert registry.exchanged == [artifact.artifact_id] * 3, "it serves meanwhile"
