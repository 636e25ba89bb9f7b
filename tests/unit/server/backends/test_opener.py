"""Artifacts opened by their manifests, on every runtime that is here."""

import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from optimizer.artifact import Artifact, Runtime
from optimizer.errors import Unavailable
from protos.signature import Signature, TensorSpec
from protos.tensors import DTYPES, Array
from server.backends import format_of
from server.backends.by_batch import ByBatchBackend, Regime
from server.backends.native import NativeBackend
from server.backends.opener import open_artifact
from server.errors import BackendError, LoadFailed
from server.model_config import ExecutionConfig
from tests import models
from tests.fakes import FakeBackend, row_signature

SIGNATURE = Signature(
    (TensorSpec("x", "FP32", ("rows", 3)),), (TensorSpec("y", "FP32", ("rows", 3)),)
)


def scaled(folder: Path, by: float) -> Path:
    """y = by x, as ONNX."""
    path = folder / "model.onnx"
    folder.mkdir(parents=True, exist_ok=True)
    x, y = (models.tensor(name, "FP32", ["n", 3]) for name in "xy")
    factor = numpy_helper.from_array(np.array(by, np.float32), "by")
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "by"], ["y"])], "g", [x], [y], [factor]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def artifact(folder: Path, runtime: Runtime, by: float = 2, **options: Any) -> Artifact:
    scaled(folder, by)
    made = Artifact(folder, "model.onnx", runtime, f"{runtime}-{by}", options=options)
    made.write()
    return made


def x(rows: int = 2) -> Mapping[str, Array]:
    return {"x": np.ones((rows, 3), np.float32)}


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_an_artifact_answers_under_its_own_name(tmp_path: Path, runtime: Runtime) -> None:
    opened = open_artifact(artifact(tmp_path, runtime), threads=1)
    assert opened.run(x(), ["y"])[0].tolist() == [[2, 2, 2]] * 2
    assert opened.artifact_id == f"{runtime}-2"
    assert (opened.devices, opened.threads, opened.fallback) == (("cpu",), 1, "")
    assert opened.signature.inputs[0].shape[1] == 3
    opened.close()


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_the_manifest_says_what_tensors_are_called(tmp_path: Path, runtime: Runtime) -> None:
    scaled(tmp_path, 2)
    made = Artifact(tmp_path, "model.onnx", runtime, "a-1", signature=SIGNATURE)
    opened = open_artifact(made, threads=1)
    assert opened.signature == SIGNATURE
    opened.close()


OTHER = {
    "another name": TensorSpec("z", "FP32", ("rows", 3)),
    "another datatype": TensorSpec("y", "FP64", ("rows", 3)),
}


@pytest.mark.parametrize("output", OTHER.values(), ids=OTHER)
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_manifest_that_lies_is_refused(
    tmp_path: Path, runtime: Runtime, output: TensorSpec
) -> None:
    scaled(tmp_path, 2)
    signature = Signature(SIGNATURE.inputs, (output,))
    made = Artifact(tmp_path, "model.onnx", runtime, "a-1", signature=signature)
    with pytest.raises(LoadFailed, match=f"output '{output.name}'"):
        open_artifact(made, threads=1)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, runtime: Runtime) -> None:
    (tmp_path / "model.onnx").write_bytes(b"none")
    with pytest.raises(LoadFailed, match=r"model\.onnx"):
        open_artifact(Artifact(tmp_path, "model.onnx", runtime, "a-1"), threads=1)


@pytest.mark.parametrize("providers", [["cuda", "cpu"], ["cuda"]])
def test_a_provider_that_does_not_start_is_unavailable(
    tmp_path: Path, providers: list[str]
) -> None:
    made = artifact(tmp_path, "onnxruntime", providers=providers)
    with pytest.raises(Unavailable, match=r"built without CUDAExecutionProvider|cuda: "):
        open_artifact(made, threads=1)


def test_tensorrt_that_is_not_here_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"TensorrtExecutionProvider|tensorrt: "):
        open_artifact(artifact(tmp_path, "tensorrt"), threads=1)


def test_openvino_that_is_not_installed_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(Unavailable, match=r"install inflight\[openvino\]"):
        open_artifact(artifact(tmp_path, "openvino"), threads=1)


# -- OpenVINO ----------------------------------------------------------------------------------

CARRIED = [name for name in DTYPES if name != "BYTES"]


@pytest.mark.parametrize("datatype", CARRIED)
def test_openvino_carries_every_datatype(tmp_path: Path, datatype: str) -> None:
    dtype = DTYPES[datatype]
    tensors = [models.tensor(name, datatype, ["n", 2]) for name in "xy"]
    node = helper.make_node("Concat", ["x", "x"], ["y"], axis=0)
    graph = helper.make_graph([node], "g", tensors[:1], tensors[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "model.onnx")
    opened = open_artifact(Artifact(tmp_path, "model.onnx", "openvino", "a-1"), threads=1)
    assert [spec.datatype for spec in (*opened.signature.inputs, *opened.signature.outputs)] == [
        datatype
    ] * 2
    values = np.array([[0, 1], [1, 0]]).astype(dtype)
    values.flags.writeable = False  # as a request's are
    answer = opened.run({"x": values}, ["y"])[0]
    assert answer.dtype == dtype
    assert answer.tolist() == [*values.tolist(), *values.tolist()]
    opened.close()


def test_openvino_takes_no_texts(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(models.identity("BYTES"))
    with pytest.raises((Unavailable, LoadFailed)):
        open_artifact(Artifact(tmp_path, "model.onnx", "openvino", "a-1"), threads=1)


def test_openvino_computes_in_float32_unless_told_otherwise(tmp_path: Path) -> None:
    value = np.float32(1.001)
    exact = open_artifact(artifact(tmp_path / "f32", "openvino", by=3), threads=1)
    inputs = {"x": np.full((2, 3), value)}
    assert exact.run(inputs, ["y"])[0][0, 0] == value * np.float32(3)
    exact.close()


@pytest.mark.parametrize("threads", [1, 2])
def test_openvino_runs_from_several_threads(tmp_path: Path, threads: int) -> None:
    opened = open_artifact(artifact(tmp_path, "openvino"), threads=threads)
    together = threading.Barrier(4)

    def work(start: int) -> list[Array]:
        together.wait()
        return [
            opened.run({"x": np.full((1 + n % 3, 3), start + n, np.float32)}, ["y"])[0]
            for n in range(50)
        ]

    with ThreadPoolExecutor(4) as pool:
        for start, answers in enumerate(pool.map(work, range(0, 400, 100))):
            for n, answer in enumerate(answers):
                assert answer.shape == (1 + n % 3, 3)
                assert (answer == 2 * (100 * start + n)).all()
    opened.close()


def test_a_failure_of_openvino_is_short(tmp_path: Path) -> None:
    opened = open_artifact(artifact(tmp_path, "openvino"), threads=1)
    with pytest.raises(BackendError, match=r"^openvino: (?!Exception from)"):
        opened.run({"x": np.ones((2, 3), np.int64)}, ["y"])
    opened.close()


# -- by batch ----------------------------------------------------------------------------------


def by_batch(folder: Path) -> Artifact:
    artifact(folder / "small", "onnxruntime", by=2)
    artifact(folder / "large", "openvino", by=3)
    regimes = [{"max_rows": 4, "folder": "small"}, {"max_rows": None, "folder": "large"}]
    made = Artifact(folder, "small", "by_batch", "both-1", options={"regimes": regimes})
    made.write()
    return made


def test_small_and_large_batches_go_different_ways(tmp_path: Path) -> None:
    opened = open_artifact(by_batch(tmp_path), threads=1)
    answers = [opened.run(x(rows), ["y"])[0] for rows in (1, 4, 5, 64)]
    assert [answer[0, 0] for answer in answers] == [2, 2, 3, 3]
    assert opened.artifact_id == "both-1"
    assert opened.platform == "onnxruntime_onnx+openvino_onnx"
    assert opened.is_in_process
    assert opened.instances is None
    opened.close()


WRONG: Mapping[str, list[int | None]] = {
    "no limitless one": [4, 8],
    "not ascending": [8, 4, None],
    "limitless in the middle": [None, 4],
    "none": [],
}


@pytest.mark.parametrize("limits", WRONG.values(), ids=WRONG)
def test_regimes_that_leave_questions_are_refused(limits: list[int | None]) -> None:
    with pytest.raises(LoadFailed, match="expected max_rows ascending with null at the end"):
        ByBatchBackend([Regime(limit, FakeBackend()) for limit in limits], "a-1")


def test_forms_with_different_tensors_are_refused() -> None:
    other = FakeBackend(signature=Signature(row_signature().inputs, row_signature().inputs))
    with pytest.raises(LoadFailed, match="one form has tensors"):
        ByBatchBackend([Regime(4, FakeBackend()), Regime(None, other)], "a-1")


def test_what_was_opened_is_closed_when_another_form_is_missing(tmp_path: Path) -> None:
    made = by_batch(tmp_path)
    (tmp_path / "large" / "model.onnx").write_bytes(b"none")
    with pytest.raises(LoadFailed):
        open_artifact(made, threads=1)


def test_a_by_batch_artifact_without_regimes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match="no regimes in its manifest"):
        open_artifact(Artifact(tmp_path, ".", "by_batch", "a-1"), threads=1)


# -- native ------------------------------------------------------------------------------------


def test_what_is_in_another_process_limits_the_whole() -> None:
    near, far = FakeBackend(), FakeBackend()
    far.is_in_process, far.instances = False, 1
    both = ByBatchBackend([Regime(4, near), Regime(None, far)], "a-1")
    assert not both.is_in_process, "so it never runs on the event loop"
    assert both.instances is None
    assert ByBatchBackend([Regime(4, far), Regime(None, far)], "a-1").instances == 1
    both.interrupt(7)
    assert (near.interrupted, far.interrupted) == ([7], [7])
    both.close()
    assert near.is_closed
    assert far.is_closed


# -- as a format ---------------------------------------------------------------------------------


def test_an_artifact_folder_is_opened_by_its_manifest(tmp_path: Path) -> None:
    artifact(tmp_path, "onnxruntime", threads=2)
    form = format_of(tmp_path)
    file = form.inspect(tmp_path)
    assert (file.artifact_id, file.threads, file.is_low_precision) == ("onnxruntime-2", 2, False)
    assert form.is_run_by_caller
    opened = form.open(file, ExecutionConfig(), 1)
    assert opened.artifact_id == "onnxruntime-2"
    opened.close()


def test_a_narrow_form_within_is_known(tmp_path: Path) -> None:
    made = by_batch(tmp_path)
    artifact(tmp_path / "large", "openvino", precision="bf16")
    assert format_of(made.folder).inspect(made.folder).is_low_precision
    Artifact(tmp_path, "x", "native", "a-1", techniques=("onnx_conversion", "int8_static")).write()
    assert format_of(tmp_path).inspect(tmp_path).is_low_precision


def test_an_artifact_that_cannot_run_here_is_a_failed_load(tmp_path: Path) -> None:
    artifact(tmp_path, "tensorrt")
    form = format_of(tmp_path)
    with pytest.raises(LoadFailed, match=r"artifact 'tensorrt-2': .*tensorrt: "):
        form.open(form.inspect(tmp_path), ExecutionConfig(), 1)


def test_a_damaged_manifest_is_a_failed_load(tmp_path: Path) -> None:
    (tmp_path / "artifact.json").write_text("{")
    with pytest.raises(LoadFailed, match="no artifact's manifest"):
        format_of(tmp_path)


def test_a_form_without_a_manifest_is_a_failed_load(tmp_path: Path) -> None:
    made = by_batch(tmp_path)
    (tmp_path / "large" / "artifact.json").unlink()
    with pytest.raises(LoadFailed, match=r"large/artifact\.json: cannot be read"):
        format_of(made.folder).inspect(made.folder)


def test_a_native_artifact_is_opened_in_a_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    def open_(*arguments: Any, **keywords: Any) -> FakeBackend:
        given.append((*arguments, keywords))
        return FakeBackend()

    monkeypatch.setattr("server.backends.native.open_native", open_)
    (tmp_path / "model.skops").write_bytes(b"1")
    options = {"framework": "sklearn", "samples": "samples.npz"}
    made = Artifact(tmp_path, "model.skops", "native", "a-1", options=options)
    said = ExecutionConfig(instances=2)
    open_artifact(made, 3, said=said)
    file, execution, threads, keywords = given[0]
    assert (file.artifact_id, execution, threads) == ("a-1", said, 3)
    assert keywords["source"].framework == "sklearn"
    assert keywords["samples"] == tmp_path / "samples.npz"
    assert keywords["spins"]
    assert NativeBackend.is_in_process is False


def test_a_native_artifact_cannot_pass_a_pickle_off_as_another_file(tmp_path: Path) -> None:
    (tmp_path / "model.ubj").touch()
    artifact = Artifact(tmp_path, "model.ubj", "native", "a-1", (), {"framework": "sklearn"})
    with pytest.raises(LoadFailed, match="is a file of xgboost, not of sklearn"):
        open_artifact(artifact, 1)
