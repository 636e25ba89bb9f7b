"""TensorRT's own engines, with stand-ins for TensorRT and for CUDA."""

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from optimizer.artifact import Artifact
from optimizer.errors import Unavailable
from optimizer.shape_profile import ShapeProfile, ShapeRange
from protos.signature import Signature, TensorSpec
from protos.tensors import Array
from server.backends.opener import open_artifact
from server.backends.profiled import ProfiledBackend
from server.backends.tensorrt import TensorRtBackend, open_engine
from server.errors import BackendError, LoadFailed
from server.model_config import ExecutionConfig
from tests.unit.server.backends.fake_cuda import FakeCuda
from tests.unit.server.backends.fake_engine import DataType, FakeTensorRt, Plan, TensorLocation
from tests.unit.server.backends.test_opener import scaled


@pytest.fixture
def plan() -> Plan:
    return Plan()


@pytest.fixture
def cuda(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda()
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", fake)
    monkeypatch.setitem(sys.modules, "tensorrt", FakeTensorRt(plan, fake))
    return fake


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    (tmp_path / "model.plan").write_bytes(b"plan")
    return Artifact(tmp_path, "model.plan", "tensorrt", "tensorrt-1")


Open = Callable[[], TensorRtBackend]


@pytest.fixture
def opened(artifact: Artifact, cuda: FakeCuda) -> Open:
    return lambda: open_engine(artifact)


def x(rows: int = 2, width: int = 3) -> Array:
    return np.arange(rows * width, dtype=np.float32).reshape(rows, width)


def test_an_engine_says_what_it_is(opened: Open) -> None:
    backend = opened()
    assert backend.signature == Signature(
        (TensorSpec("x", "FP32", ("x[0]", 3)),), (TensorSpec("y", "FP32", ("y[0]", 3)),)
    )
    assert (backend.devices, backend.artifact_id) == (("cuda:0",), "tensorrt-1")
    backend.close()


def test_runs_of_different_shapes_answer_in_their_own(opened: Open) -> None:
    backend = opened()
    for rows in (2, 8, 1, 0, 8):
        (y,) = backend.run({"x": x(rows)}, ["y"])
        assert y.tolist() == (2 * x(rows)).tolist()
    backend.close()


def test_arrays_that_lie_in_memory_otherwise_are_read_right(opened: Open) -> None:
    backend = opened()
    array = np.asfortranarray(x(4))[::2]
    assert backend.run({"x": array}, ["y"])[0].tolist() == (2 * array).tolist()
    backend.close()


def test_no_output_has_to_be_wanted(opened: Open) -> None:
    backend = opened()
    assert backend.run({"x": x()}, []) == []
    backend.close()


def test_closing_gives_all_back(opened: Open, cuda: FakeCuda) -> None:
    backend = opened()
    backend.run({"x": x(1)}, ["y"])
    backend.run({"x": x(8)}, ["y"])
    assert len(cuda.memory) == 2
    backend.close()
    assert (cuda.memory, cuda.streams) == ({}, set())


def test_runs_at_the_same_time_have_a_context_each(opened: Open, plan: Plan) -> None:
    backend = opened()
    plan.gate = threading.Barrier(3)
    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(backend.run, {"x": x(rows)}, ["y"]) for rows in (1, 2, 3)]
        answers = [run.result(30)[0] for run in runs]
    assert [len(y) for y in answers] == [1, 2, 3]
    assert plan.contexts == 3
    plan.gate = None
    backend.run({"x": x()}, ["y"])
    assert plan.contexts == 3
    backend.close()


def test_the_gpu_that_was_said_is_used(artifact: Artifact, cuda: FakeCuda) -> None:
    backend = open_artifact(artifact, 1, said=ExecutionConfig(gpus=(3,)))
    backend.run({"x": x()}, ["y"])
    assert (backend.devices, cuda.gpus) == (("cuda:3",), {3})
    backend.close()


@pytest.mark.parametrize(
    ("plan", "rows", "reason"),
    [
        (Plan(), 9, r"'x' cannot have shape \[9, 3\]: static dimension mismatch of x"),
        (Plan(fails="CUDA failure 700"), 2, "the run fails: CUDA failure 700"),
        (Plan(unknown=("z",)), 2, "nothing is known of z: no reason"),
        (Plan(y_rows=-1), 2, "the size of output 'y' depends on values"),
    ],
)
def test_a_run_that_fails_says_why_and_the_next_one_is_free(
    opened: Open, plan: Plan, rows: int, reason: str
) -> None:
    backend = opened()
    with pytest.raises(BackendError, match=f"TensorRT: .*{reason}"):
        backend.run({"x": x(rows)}, ["y"])
    plan.fails, plan.unknown, plan.y_rows = "", (), None
    assert backend.run({"x": x()}, ["y"])[0].tolist() == (2 * x()).tolist()
    backend.close()


def test_memory_that_does_not_suffice_fails_the_run_only(opened: Open, cuda: FakeCuda) -> None:
    backend = opened()
    cuda.size = 100
    with pytest.raises(BackendError, match="CUDA: out of memory"):
        backend.run({"x": x(8)}, ["y"])
    assert len(backend.run({"x": x(1)}, ["y"])[0]) == 1
    backend.close()
    assert cuda.memory == {}


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        (Plan(refuses="version tag does not match"), "the engine: version tag does not match"),
        (Plan(makes_contexts=False), "no execution context: requested memory of 1 TB"),
        (Plan(y_type=DataType.FP8), "'y' of the engine is of type FP8, expected one of FLOAT"),
        (Plan(x_location=TensorLocation.HOST), "'x' of the engine is a shape"),
    ],
)
def test_an_engine_that_cannot_be_served_is_refused(opened: Open, reason: str) -> None:
    with pytest.raises(LoadFailed, match=reason):
        opened()


@pytest.mark.parametrize("module", ["tensorrt", "cuda.bindings.runtime"])
def test_what_is_not_installed_is_unavailable(
    artifact: Artifact, cuda: FakeCuda, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(Unavailable, match=r"install inflight\[gpu\]"):
        open_artifact(artifact, 1)


def test_other_shapes_go_to_the_model_beside_the_engine(
    artifact: Artifact, cuda: FakeCuda, plan: Plan
) -> None:
    scaled(artifact.folder, 3)  # not 2, so that it is seen who answered
    profile = ShapeProfile({"x": ShapeRange((1, 3), (8, 3), (8, 3))})
    options = {"baseline": "model.onnx", "profile": profile.to_json()}
    backend = open_artifact(replace(artifact, options=options), 1)
    assert isinstance(backend, ProfiledBackend)
    assert backend.platform == "tensorrt_plan"
    assert backend.devices == ("cuda:0", "cpu")
    assert backend.run({"x": x(8)}, ["y"])[0].tolist() == (2 * x(8)).tolist()
    assert backend.run({"x": x(9)}, ["y"])[0].tolist() == (3 * x(9)).tolist()
    assert backend.runs_elsewhere == 1
    backend.close()
    assert cuda.memory == {}


def test_an_engine_is_closed_when_its_model_is_damaged(artifact: Artifact, cuda: FakeCuda) -> None:
    (artifact.folder / "model.onnx").write_bytes(b"none")
    profile = ShapeProfile({"x": ShapeRange((1, 3), (8, 3), (8, 3))})
    options = {"baseline": "model.onnx", "profile": profile.to_json()}
    with pytest.raises(LoadFailed, match=r"model\.onnx"):
        open_artifact(replace(artifact, options=options), 1)
    assert cuda.streams == set()
