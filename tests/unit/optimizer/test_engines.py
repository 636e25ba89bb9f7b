import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from optimizer.artifact import Artifact
from optimizer.candidate import Candidate, State, Verdict
from optimizer.candidate_store import CandidateStore
from optimizer.device import Device, Gpu
from optimizer.engine_cache import profile_of_engine
from optimizer.engines import Engines
from optimizer.errors import Unavailable
from optimizer.goal import Goal
from optimizer.pipeline import Progress, optimize
from optimizer.report import Report
from optimizer.runner import Opener
from optimizer.samples import Samples
from optimizer.shape_profile import ShapeRange
from optimizer.source import SourceModel
from optimizer.stages import Case, Original
from optimizer.store import ArtifactStore
from optimizer.work_folder import WorkFolder
from protos.signature import Signature, TensorSpec
from tests.models import mlp
from tests.unit.optimizer import engine_openers
from tests.unit.optimizer.fake_tensorrt import FakeTensorRt

GPU = Gpu("NVIDIA H200", 143_771, "9.0", "580.65.06")
VERSIONS = {"tensorrt-cu13": "10.13.3", "onnxruntime-gpu": "1.31.1"}
MACHINE = Device("cpu", 8, 1000, gpus=(GPU,), versions=VERSIONS)
FP16 = Candidate("fp16, TensorRT", (), "tensorrt", {"precision": "fp16"}, ("tensorrt", "fp16"))
GOAL = Goal(max_batch=8, workspace_gb=0.5)
SIGNATURE = Signature(
    (TensorSpec("x", "FP32", ("rows", "length")), TensorSpec("bias", "FP32", (1,), optional=True)),
    (TensorSpec("y", "FP32", ("rows", "length")),),
)
SHAPES = {"x": (5,), "bias": ()}


@pytest.fixture(autouse=True)
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeTensorRt, "builds", 0)
    monkeypatch.setitem(sys.modules, "tensorrt", FakeTensorRt("tensorrt"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"model")
    return path


class Provider:
    """Stands in for the opener; a provider that starts, or says why not."""

    def __init__(self, problem: str = "") -> None:
        self.problem, self.builds = problem, 0

    def __call__(self, artifact: Artifact, threads: int) -> "Provider":
        self.builds += 1
        if self.problem:
            raise Unavailable(self.problem)
        (artifact.folder / "engines" / "a.engine").write_bytes(b"engine")
        return self

    def close(self) -> None:
        pass


class Bench:
    """Engines of one store; child processes are function calls."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.model = folder, model
        self.store = ArtifactStore(folder / "store")
        self.provider = Provider()
        self.machine, self.goal, self.shapes = MACHINE, GOAL, dict(SHAPES)
        self.told: list[str] = []

    def engines(self) -> Engines:
        source = SourceModel(self.model, "onnx")
        opener: Any = self.provider
        case = Case(source, self.goal, opener, WorkFolder(self.folder))
        verdict = Verdict(True, "exact", 1.0, 1.0)
        original = Original(
            SIGNATURE, None, verdict, 0, 8, True, False, "rows", row_shapes=self.shapes
        )
        runner: Any = SimpleNamespace(run=lambda function, *given, cap_s: function(*given))
        kept = CandidateStore(self.store, ExitStack(), self.machine, self.goal, ("a", "b"))
        return Engines(case, runner, kept, original)

    def build(self, candidate: Candidate = FP16) -> Artifact:
        engines = self.engines()
        ways = engines.ways(candidate, self.model)
        work = self.folder / "work"
        return engines.build(ways, candidate, self.model, work, self.told.append)

    def find(self, candidate: Candidate = FP16) -> Artifact | None:
        engines = self.engines()
        return engines.find(engines.ways(candidate, self.model))


@pytest.fixture
def bench(tmp_path: Path, model: Path) -> Bench:
    return Bench(tmp_path, model)


def test_an_engine_is_for_the_shapes_that_were_seen(bench: Bench) -> None:
    engine = bench.build()
    profile = profile_of_engine(engine)
    assert profile.inputs == {"x": ShapeRange((1, 5), (1, 5), (8, 5))}
    assert engine.options["workspace_bytes"] == 1 << 29
    assert (engine.signature, engine.techniques) == (SIGNATURE, ("tensorrt", "fp16"))
    assert bench.store.get(engine.artifact_id) == engine
    assert (engine.folder / engine.options["baseline"]).read_bytes() == b"model"


@pytest.mark.parametrize(
    ("goal", "best"),
    [
        (GOAL, 1),
        (replace(GOAL, objective="throughput"), 8),
        (replace(GOAL, objective="mix", batch_mix={2: 0.1, 4: 0.9}), 4),
        (replace(GOAL, objective="mix", batch_mix={64: 1.0}), 8),
        (replace(GOAL, objective="mix"), 1),
    ],
)
def test_an_engine_is_fastest_at_the_batch_that_counts(bench: Bench, goal: Goal, best: int) -> None:
    bench.goal = goal
    assert profile_of_engine(bench.build()).inputs["x"].opt == (best, 5)


def test_an_engine_is_found_again(bench: Bench) -> None:
    assert bench.find() is None
    engine = bench.build()
    assert bench.find() == engine
    assert bench.find(replace(FP16, options={"precision": "fp32"})) is None
    assert bench.told == ["an engine is built: nothing of this kind was stored before"]


def test_what_changed_is_told(bench: Bench) -> None:
    bench.build()
    bench.machine = replace(MACHINE, gpus=(replace(GPU, name="NVIDIA L4"),))
    bench.build()
    bench.shapes["x"] = (7,)
    bench.build()
    assert bench.told[1:] == [
        "an engine is built: GPU was 'NVIDIA H200' and is 'NVIDIA L4'",
        "an engine is built: shapes was 'x 1x5..1x5..8x5' and is 'x 1x7..1x7..8x7'",
    ]


def test_tensorrt_itself_builds_where_the_provider_does_not_start(bench: Bench) -> None:
    bench.provider.problem = "libnvinfer.so.10: no such file"
    engine = bench.build()
    assert engine.file == "model.plan"
    assert engine.options["built_for"]["ONNX Runtime"] == ""
    assert bench.find() == engine
    assert bench.provider.builds == 1


def test_tensorrt_itself_is_enough(bench: Bench) -> None:
    bench.machine = replace(MACHINE, versions={"tensorrt-cu13": "11.4.0"})
    assert bench.build(replace(FP16, options={"precision": "fp32"})).file == "model.plan"
    assert bench.provider.builds == 0


def test_all_reasons_are_given_where_no_way_leads_to_an_engine(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.provider.problem = "libnvinfer.so.10: no such file"
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(Unavailable, match="no such file; TensorRT does not start"):
        bench.build()


def test_lengths_that_no_row_has_shown_are_a_reason_to_skip(bench: Bench) -> None:
    bench.shapes.clear()
    with pytest.raises(Unavailable, match="how long 'length' can get"):
        bench.find()


# Whole jobs, with child processes

TIMED = {State.MEASURED, State.DROPPED}


class Job:
    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, ArtifactStore(folder / "store")
        self.lines: list[str] = []
        (folder / "mlp.onnx").write_bytes(mlp())

    def run(self, opener: Opener, **goal: Any) -> Report:
        work = self.folder / f"work{len(list(self.folder.iterdir()))}"
        work.mkdir()
        rows = np.random.default_rng(0).standard_normal((100, 16)).astype(np.float32)
        wanted = Goal(
            backend="tensorrt", is_quick=True, benchmark_s=0.3, iterations=20, max_batch=4, **goal
        )
        return optimize(
            SourceModel(self.folder / "mlp.onnx", "onnx"), Samples({"x": rows}), wanted,
            opener=opener, store=self.store, work=work, databases={},
            listener=self._listen, cancelled=threading.Event(),
        )  # fmt: skip

    def _listen(self, progress: Progress) -> None:
        self.lines.append(progress.line)


@pytest.fixture
def on_machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[Device], None]:
    return lambda machine: monkeypatch.setattr("optimizer.device.read", lambda: machine)


def test_engines_of_a_job_are_there_for_the_next_one_and_reports_say_why_they_are_built(
    tmp_path: Path, on_machine: Callable[[Device], None]
) -> None:
    on_machine(MACHINE)
    job = Job(tmp_path)
    first = job.run(engine_openers.provider)
    full, half = first.candidates[1:3]
    assert (full.name, half.name) == ("TensorRT", "fp16, TensorRT")
    assert {full.state, half.state} <= TIMED
    assert full.notes == ("an engine is built: nothing of this kind was stored before",)
    assert half.notes == ("an engine is built: precision was 'fp32' and is 'fp16'",)
    assert f"TensorRT: {full.notes[0]}" in job.lines
    if first.artifact_id is not None:  # no second copy of it
        assert first.artifact_id in (full.artifact_id, half.artifact_id)
    again = job.run(engine_openers.builds_nothing, accuracy_threshold=0.98)
    assert again.candidates[1].notes == ("found in the store",)
    assert "build" not in again.candidates[1].seconds
    assert again.candidates[1].artifact_id == full.artifact_id


def test_engines_that_cannot_be_had_are_skipped_with_their_reason(
    tmp_path: Path, on_machine: Callable[[Device], None]
) -> None:
    on_machine(MACHINE)
    report = Job(tmp_path).run(engine_openers.without_provider, precision="fp32")
    (skipped,) = report.candidates[1:]
    assert skipped.state is State.SKIPPED
    assert "libnvinfer.so.10: cannot open shared object file; TensorRT" in skipped.reason


@pytest.mark.slow
def test_a_child_process_builds_with_tensorrt_itself(
    tmp_path: Path, on_machine: Callable[[Device], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_machine(MACHINE)
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "tensorrt.py").write_text(
        "import sys\n"
        "from tests.unit.optimizer.fake_tensorrt import FakeTensorRt\n"
        "sys.modules[__name__] = FakeTensorRt('tensorrt')\n"
    )
    monkeypatch.syspath_prepend(packages)
    report = Job(tmp_path).run(engine_openers.without_provider, precision="fp32")
    (built,) = report.candidates[1:]
    assert built.state in TIMED
    assert built.notes == (
        "an engine is built: nothing of this kind was stored before",
        "an engine is built: in another way: libnvinfer.so.10: cannot open shared object file",
    )
