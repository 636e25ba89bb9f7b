"""TensorRT engines on a real GPU: built by a job, found after a restart, shapes out of the profile.

`make test-gpu` runs them. Where TensorRT or a device is missing they are skipped.
"""

import importlib.util
import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from loadtests.models import VOCABULARY, minilm
from optimizer import device
from optimizer.artifact import Artifact
from optimizer.candidate import State
from optimizer.engine_builder import TensorRtBuilder
from optimizer.engine_cache import EngineCache, profile_of_engine
from optimizer.engine_key import key_here
from optimizer.goal import Goal
from optimizer.pipeline import optimize
from optimizer.report import Report
from optimizer.samples import Samples
from optimizer.shape_profile import profile_of
from optimizer.source import SourceModel, source_of
from optimizer.store import ArtifactStore
from protos.signature import Signature, TensorSpec
from protos.tensors import Array
from server.backends import providers
from server.backends.opener import open_artifact
from server.backends.profiled import ProfiledBackend
from server.backends.tensorrt import TensorRtBackend
from tests import models
from tests.gpu.test_cuda import TOLERANCE, assert_close, on_cpu


def _is_here(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not providers.has_gpu(), reason="there is no NVIDIA device here"),
]


def _why_no_provider() -> str:
    if providers.NAMES["tensorrt"] not in onnxruntime.get_available_providers():
        return "this onnxruntime is built without TensorRT: install onnxruntime-gpu"
    if not providers.has_gpu():
        return "there is no NVIDIA device here"
    providers.load_libraries(onnxruntime, ["tensorrt"])
    return providers.missing_library("tensorrt", onnxruntime)


needs_provider = pytest.mark.skipif(bool(_why_no_provider()), reason=_why_no_provider() or "none")
needs_package = pytest.mark.skipif(
    not (_is_here("tensorrt") and _is_here("cuda")),
    reason="tensorrt or cuda-bindings is not installed",
)

LENGTH, MOST_ROWS = 24, 8


class Job:
    """Optimizations that share a store, as those before and after a restart do."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.runs = folder, 0
        (folder / "encoder.onnx").write_bytes(minilm(layers=2))

    @property
    def store(self) -> ArtifactStore:
        return ArtifactStore(self.folder / "store")

    def run(self, **goal: Any) -> Report:
        self.runs += 1
        work = self.folder / f"work{self.runs}"
        work.mkdir()
        wanted = Goal(
            backend="tensorrt",
            is_quick=True,
            benchmark_s=2,
            iterations=50,
            max_batch=MOST_ROWS,
            workspace_gb=1,
            **goal,
        )
        return optimize(
            source_of(self.folder / "encoder.onnx"), Samples(sentences(200)), wanted,
            opener=open_artifact, store=self.store, work=work, databases={},
            listener=lambda progress: None, cancelled=threading.Event(),
        )  # fmt: skip


def sentences(rows: int, length: int = LENGTH) -> dict[str, Array]:
    ids = np.random.default_rng(rows).integers(0, VOCABULARY, (rows, length))
    mask = np.ones_like(ids)
    mask[:, length - 4 :] = 0
    return {"input_ids": ids, "attention_mask": mask}


@needs_provider
def test_engines_are_built_found_after_a_restart_and_never_built_for_other_shapes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job = Job(tmp_path)
    first = job.run(accuracy_threshold=0.9)
    for entry in first.candidates[1:]:
        assert entry.state in (State.MEASURED, State.DROPPED), f"{entry.name}: {entry.reason}"
        assert entry.verdict is not None
        assert entry.verdict.is_accepted
        assert entry.notes[0].startswith("an engine is built: ")
    again = job.run(accuracy_threshold=0.89)
    for before, after in zip(first.candidates[1:], again.candidates[1:], strict=True):
        assert after.notes == ("found in the store",)
        assert after.artifact_id == before.artifact_id
    assert list((tmp_path / "store" / "timing").glob("*/*")), "the times of kernels are kept"
    full = next(entry for entry in first.candidates if entry.name == "TensorRT")
    assert full.artifact_id is not None
    engine = job.store.get(full.artifact_id)
    assert engine is not None
    _serve(engine, tmp_path / "encoder.onnx", caplog)


def _serve(engine: Artifact, model: Path, caplog: pytest.LogCaptureFixture) -> None:
    profile = profile_of_engine(engine)
    assert profile.covers({name: array.shape for name, array in sentences(MOST_ROWS).items()})
    backend = open_artifact(engine, 1)
    assert isinstance(backend, ProfiledBackend)
    assert backend.devices == ("cuda:0",)
    files = {path: path.stat().st_mtime_ns for path in engine.folder.rglob("*")}
    names = [spec.name for spec in backend.signature.outputs]
    for rows, length in ((1, LENGTH), (MOST_ROWS, LENGTH), (MOST_ROWS + 1, LENGTH), (2, 40)):
        inputs = sentences(rows, length)
        answers = backend.run(inputs, names)
        expected = on_cpu(model.read_bytes(), inputs)
        for name, answer in zip(names, answers, strict=True):
            assert_close(answer, expected[name], TOLERANCE["FP32"])
    backend.close()
    assert backend.runs_elsewhere == 2
    told = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert sum("runs without its TensorRT engine, on cuda:0" in r.getMessage() for r in told) == 2
    assert {path: path.stat().st_mtime_ns for path in engine.folder.rglob("*")} == files


@needs_package
def test_engines_of_tensorrt_itself_answer_as_the_model_does(tmp_path: Path) -> None:
    path = tmp_path / "convolution.onnx"
    path.write_bytes(models.convolution())
    signature = Signature((TensorSpec("image", "FP32", ("n", 3, "height", "width")),), ())
    seen = [{"image": (1, 3, 40, 48)}]
    profile = profile_of(signature, MOST_ROWS, seen)
    fingerprint = SourceModel(path, "onnx").fingerprint()
    key = key_here(device.read(), fingerprint, profile, "fp32", uses_onnxruntime=False)
    cache = EngineCache(ArtifactStore(tmp_path / "store"), tmp_path / "timing")
    engine = cache.find_or_build(path, key, TensorRtBuilder(), tmp_path)
    assert cache.find(key).engine == engine
    backend = open_artifact(engine, 1)
    assert isinstance(backend, ProfiledBackend)
    assert isinstance(backend.engine, TensorRtBackend)
    names = [spec.name for spec in backend.signature.outputs]
    wrong: list[int] = []

    def work(rows: int) -> None:
        image = np.random.default_rng(rows).random((rows, 3, 40, 48), np.float32)
        expected = on_cpu(path.read_bytes(), {"image": image})
        for _ in range(20):
            for name, answer in zip(names, backend.run({"image": image}, names), strict=True):
                gap = np.abs(answer - expected[name]).max() / np.abs(expected[name]).max()
                if gap > TOLERANCE["FP32"]:
                    wrong.append(rows)

    threads = [threading.Thread(target=work, args=(rows,)) for rows in (1, 3, MOST_ROWS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert backend.runs_elsewhere == 0
    work(MOST_ROWS + 1)
    assert not wrong
    assert backend.runs_elsewhere == 20
    backend.close()
