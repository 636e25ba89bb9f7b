import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import joblib
import numpy as np
import pytest
from onnx import helper
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from optimizer.candidate import State
from optimizer.data import DataSpec
from optimizer.errors import Cancelled, DataError, OptimizationError, SourceError, StageTimeout
from optimizer.goal import Goal
from optimizer.pipeline import Progress, optimize
from optimizer.report import Entry, Report
from optimizer.runner import Opener
from optimizer.samples import Samples
from optimizer.source import SourceModel, source_of
from optimizer.store import ArtifactStore
from protos.tensors import Array
from server.backends.opener import open_artifact
from tests.models import build, convolution, mlp, tensor
from tests.unit.optimizer import openers

QUICK = Goal(is_quick=True, benchmark_s=0.5, iterations=20, warmup_iterations=2, max_batch=4)
LEVELS = Goal(techniques=("graph",), backend="cpu", benchmark_s=0.5, iterations=20, max_batch=1)


class Job:
    """One optimization in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = ArtifactStore(folder / "store")
        self.seen: list[Progress] = []
        self.cancelled = threading.Event()
        self.on_progress: Callable[[Progress], None] = self.seen.append
        self.runs = 0

    def source(self, content: bytes) -> SourceModel:
        path = self.folder / "model.onnx"
        path.write_bytes(content)
        return source_of(path)

    def run(
        self,
        source: SourceModel,
        data: Samples | DataSpec | None = None,
        goal: Goal = QUICK,
        opener: Opener = open_artifact,
    ) -> Report:
        self.runs += 1
        work = self.folder / f"work{self.runs}"
        work.mkdir()
        return optimize(
            source, data, goal, opener=opener, store=self.store, work=work, databases={},
            listener=self.on_progress, cancelled=self.cancelled,
        )  # fmt: skip


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


def entry(report: Report, begin: str) -> Entry:
    return next(entry for entry in report.candidates if entry.name.startswith(begin))


def images(rows: int = 200, seed: int = 0) -> Samples:
    shape = (rows, 1, 8, 8)
    return Samples({"x": np.random.default_rng(seed).random(shape, np.float32)}, origin="images")


def network(channels: int = 40) -> bytes:
    """x FP32[n, 1, 8, 8] -> y FP32[n, 5]: two convolutions, enough weights to be quantized."""
    random = np.random.default_rng(0)
    weights: dict[str, Array] = {
        "w1": random.standard_normal((channels, 1, 3, 3)).astype(np.float32) / 3,
        "w2": random.standard_normal((channels, channels, 3, 3)).astype(np.float32) / 18,
        "w3": random.standard_normal((channels * 64, 5)).astype(np.float32) / 50,
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("Flatten", ["r2"], ["f"]),
        helper.make_node("MatMul", ["f", "w3"], ["y"]),
    ]
    inputs, outputs = [tensor("x", "FP32", ["n", 1, 8, 8])], [tensor("y", "FP32", ["n", 5])]
    return build(nodes, inputs, outputs, weights)


def test_a_model_without_data_is_compared_with_itself_on_rows_made_up(job: Job) -> None:
    source = job.source(mlp())
    report = job.run(source)
    assert report.status in ("completed", "rejected")
    assert not report.data.is_real
    assert report.candidates[0].name == "original, ONNX Runtime"
    assert report.candidates[0].state is State.MEASURED
    assert [timing.batch for timing in report.candidates[0].timings] == [1]
    assert "real rows" in entry(report, "bf16").reason
    assert report.seconds["total"] > 0
    assert report.machine.versions["numpy"]
    _check_ids(job, report)
    _check_progress(job.seen)
    _check_that_the_same_question_is_answered_at_once(job, source, report)


def _check_ids(job: Job, report: Report) -> None:
    """Those of the store, and no others."""
    named = {e.name: e.artifact_id for e in report.candidates if e.artifact_id is not None}
    assert report.candidates[0].name not in named
    assert all(job.store.get(artifact_id) is not None for artifact_id in named.values())
    if report.artifact_id is not None and len(report.regimes) == 1:
        assert named[report.regimes[0].candidate] == report.artifact_id


def _check_progress(seen: list[Progress]) -> None:
    """Phases in their order, and percents that never go back."""
    phases = list(dict.fromkeys(progress.phase for progress in seen))
    assert phases == ["preparing", "building", "measuring", "selecting", "done"]
    percents = [progress.percent for progress in seen]
    assert percents == sorted(percents)
    assert percents[-1] == 100
    assert any("original" in progress.line for progress in seen)


def _check_that_the_same_question_is_answered_at_once(
    job: Job, source: SourceModel, first: Report
) -> None:
    job.seen.clear()
    again = job.run(source, opener=openers.never_opens)
    assert again == Report.from_json(json.loads(json.dumps(first.to_json())))
    assert [progress.phase for progress in job.seen] == ["done"]
    with pytest.raises(OptimizationError, match="nothing is to be opened"):
        job.run(source, goal=LEVELS, opener=openers.never_opens)
    assert any("goal techniques was" in progress.line for progress in job.seen)


@pytest.mark.slow
def test_a_network_is_quantized_judged_and_kept(job: Job) -> None:
    source, data = job.source(network()), images()
    goal = Goal(techniques=("int8_static",), is_quick=True, benchmark_s=0.5, max_batch=1)
    report = job.run(source, data, goal)
    int8 = entry(report, "int8 static")
    assert int8.verdict is not None
    assert int8.verdict.rows == report.data.validation_rows
    assert report.data.calibration_rows + report.data.validation_rows == 200
    assert int8.size_bytes < report.candidates[0].size_bytes
    if report.artifact_id is not None:  # who is faster is up to the machine
        artifact = job.store.get(report.artifact_id)
        assert artifact is not None
        assert artifact.signature is not None
        assert [spec.name for spec in artifact.signature.inputs] == ["x"]
    again = job.run(source, data, replace(goal, accuracy_threshold=0.98))
    assert "found in the store" in entry(again, "int8 static").notes
    assert "build" not in entry(again, "int8 static").seconds


def test_a_wrong_candidate_is_refused_however_fast_it_is(job: Job) -> None:
    report = job.run(job.source(mlp(64, 64)), goal=LEVELS, opener=openers.answers_wrongly)
    wrong = [e for e in report.candidates if e.state is State.REFUSED]
    assert wrong
    assert all("not the same up to rounding" in e.reason for e in wrong)
    assert report.status == "rejected"
    assert report.artifact_id is None


@pytest.mark.slow
def test_nothing_is_kept_of_a_model_that_changes_meanwhile(job: Job) -> None:
    source = job.source(mlp(64, 64))

    def retrain(progress: Progress) -> None:
        if progress.phase == "selecting":
            job.source(mlp(64, 65))

    job.on_progress = retrain
    with pytest.raises(SourceError, match=r"^'model.onnx' was changed while it was optimized$"):
        job.run(source, goal=LEVELS)
    assert list((job.folder / "store" / "winners").iterdir()) == []


@pytest.mark.slow
def test_a_stage_that_dies_costs_its_candidate_only(job: Job) -> None:
    report = job.run(job.source(convolution()), goal=LEVELS, opener=openers.dies_at_basic)
    assert entry(report, "graph level basic").state is State.FAILED
    assert "exit code 3" in entry(report, "graph level basic").reason
    assert entry(report, "original").state is State.MEASURED


@pytest.mark.slow
def test_a_crash_while_measuring_costs_who_was_in_hand(job: Job) -> None:
    report = job.run(job.source(convolution()), goal=LEVELS, opener=openers.dies_when_measured)
    assert entry(report, "graph level basic").state is State.FAILED
    assert entry(report, "original").state is State.MEASURED


@pytest.mark.slow
def test_a_poisoned_calibration_set_makes_no_winner(job: Job) -> None:
    data = images()
    poisoned = np.array(data.inputs["x"])
    poisoned[::7] *= 1e6  # ranges in which everything else is zero
    goal = Goal(techniques=("int8_static",), is_quick=True, benchmark_s=0.2, max_batch=1)
    report = job.run(job.source(network()), Samples({"x": poisoned}), goal)
    assert entry(report, "int8 static").state is State.REFUSED
    assert report.status == "rejected"


@pytest.mark.slow
def test_half_precision_that_overflows_makes_no_winner(job: Job) -> None:
    weights: dict[str, Array] = {
        "big": np.full((8, 8), 1e6, np.float32),
        "small": np.full((8, 4), 1e-7, np.float32) * np.arange(1, 5, dtype=np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "big"], ["h"]),
        helper.make_node("MatMul", ["h", "small"], ["y"]),
    ]
    inputs, outputs = [tensor("x", "FP32", ["n", 8])], [tensor("y", "FP32", ["n", 4])]
    rows = np.random.default_rng(0).random((100, 8), np.float32) + 1
    goal = Goal(techniques=("fp16",), backend="cpu", benchmark_s=0.2, max_batch=1)
    source = job.source(build(nodes, inputs, outputs, weights))
    report = job.run(source, Samples({"x": rows}), goal)
    assert entry(report, "fp16").state in (State.REFUSED, State.FAILED)
    assert report.status == "rejected"


def test_cancelling_ends_the_job_within_a_stage(job: Job) -> None:
    def cancel(progress: Progress) -> None:
        job.seen.append(progress)
        if progress.phase == "building":
            job.cancelled.set()

    job.on_progress = cancel
    with pytest.raises(Cancelled):
        job.run(job.source(mlp()))
    assert State.CANCELLED in {outcome.state for outcome in job.seen[-1].outcomes}


def test_a_job_without_time_ends_at_once(job: Job) -> None:
    with pytest.raises(StageTimeout, match="time limit"):
        job.run(job.source(mlp()), goal=Goal(time_limit_s=1e-9))


def test_data_that_do_not_fit_end_the_job(job: Job) -> None:
    path = job.folder / "rows.npy"
    np.save(path, np.zeros((4, 3), np.float32))
    with pytest.raises(DataError, match="expected FP32"):
        job.run(job.source(mlp()), DataSpec("file", path=path))


def test_a_damaged_model_ends_the_job_and_says_why(job: Job) -> None:
    with pytest.raises(OptimizationError, match="model"):
        job.run(job.source(b"no model at all"))


@pytest.mark.slow
def test_a_scikit_learn_model_is_converted_and_compared_with_itself(job: Job) -> None:
    x, y = load_iris(return_X_y=True)
    path = job.folder / "iris.joblib"
    joblib.dump(LogisticRegression(max_iter=500).fit(x, y), path)
    data = Samples({"X": x.astype(np.float32)}, y, origin="iris")
    report = job.run(source_of(path), data, QUICK)
    assert report.candidates[0].name == "original framework"
    converted = entry(report, "converted")
    assert converted.state is State.MEASURED
    assert converted.verdict is not None
    assert converted.verdict.is_accepted
    assert report.status == "completed"
    assert report.artifact_id is not None
    _check_ids(job, report)
    artifact = job.store.get(report.artifact_id)
    assert artifact is not None
    assert artifact.techniques[0] == "onnx_conversion"
