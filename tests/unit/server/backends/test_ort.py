"""ONNX Runtime as a backend: types, texts, failures, and which provider it really runs on."""

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import onnxruntime
import pytest
from onnx import helper

from protos.tensors import DTYPES
from server.backends import format_of
from server.backends.model_file import inspect_onnx
from server.backends.ort import OrtBackend, open_onnx
from server.errors import BackendError, InvalidRequest, LoadFailed
from server.model_config import ExecutionConfig
from tests import models

MLP = models.mlp()
CPU_ONLY = ("CPUExecutionProvider",)
GPU_MACHINE = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")


def opened(folder: Path, content: bytes, **execution: Any) -> OrtBackend:
    path = folder / "model.onnx"
    path.write_bytes(content)
    return open_onnx(inspect_onnx(path), ExecutionConfig(**execution), 1)


@pytest.mark.parametrize("datatype", DTYPES)
def test_every_datatype_passes_through(tmp_path: Path, datatype: str) -> None:
    backend = opened(tmp_path, models.identity(datatype))
    if datatype == "BYTES":
        array = np.array([[b"a", "é".encode(), b"", b"z\0"]], object)
    else:
        array = np.array([[0, 1, 1, 0]]).astype(DTYPES[datatype])
    (answer,) = backend.run({"x": array}, ["y"])
    assert answer.dtype == array.dtype
    assert answer.tolist() == array.tolist()
    assert backend.signature.inputs[0].datatype == datatype


def test_outputs_share_no_memory_with_inputs(tmp_path: Path) -> None:
    for datatype in ("FP32", "BF16"):
        array = np.ones((2, 4), DTYPES[datatype])
        array.flags.writeable = False
        (answer,) = opened(tmp_path, models.identity(datatype)).run({"x": array}, ["y"])
        assert not np.shares_memory(array, answer)


def test_bfloat16_keeps_its_values_and_shape(tmp_path: Path) -> None:
    array = np.array([[1.5, -2.0, 3e38, np.inf], [0, 1, 2, 3]], ml_dtypes.bfloat16)[:, ::-1]
    (answer,) = opened(tmp_path, models.identity("BF16")).run({"x": array}, ["y"])
    assert np.array_equal(answer, array)


def test_text_that_is_not_utf8_is_the_clients_fault(tmp_path: Path) -> None:
    backend = opened(tmp_path, models.identity("BYTES", ("n",)))
    with pytest.raises(InvalidRequest, match="input 'x': element 1 is not UTF-8"):
        backend.run({"x": np.array([b"fine", b"\xff\xfe"], object)}, ["y"])


def test_signature_keeps_names_and_names_the_nameless(tmp_path: Path) -> None:
    backend = opened(tmp_path, models.identity("FP32", ("batch", None, 3, None)))
    assert backend.signature.inputs[0].shape == ("batch", "x[1]", 3, "x[3]")
    assert backend.signature.inputs[0].wire_shape == [-1, -1, 3, -1]


def test_initializer_that_is_an_input_is_optional(tmp_path: Path) -> None:
    backend = opened(tmp_path, models.optional_bias())
    assert [(spec.name, spec.optional) for spec in backend.signature.inputs] == [
        ("x", False),
        ("bias", True),
    ]
    x = np.zeros((1, 4), np.float32)
    assert backend.run({"x": x}, ["y"])[0].tolist() == [[1, 1, 1, 1]]
    assert backend.run({"x": x, "bias": np.full(4, 7, np.float32)}, ["y"])[0][0, 0] == 7


def test_failure_is_short_for_the_client_and_whole_in_its_cause(tmp_path: Path) -> None:
    backend = opened(tmp_path, models.embedding(vocabulary=100))
    with pytest.raises(BackendError) as caught:
        backend.run({"ids": np.array([[1000]])}, ["y"])
    assert str(caught.value) == (
        "onnxruntime: operator Gather: indices element out of data bounds, idx=1000 must be within"
        " the inclusive range [-100,99]"
    )
    assert "ONNXRuntimeError" in str(caught.value.__cause__)


def test_only_the_outputs_asked_for_are_computed(tmp_path: Path) -> None:
    ones = np.ones((1, 16), np.float32)
    backend = opened(tmp_path, models.add_sub())
    outputs = backend.run({"INPUT0": ones, "INPUT1": ones}, ["OUTPUT1"])
    assert [array.tolist() for array in outputs] == [[[0.0] * 16]]


def test_run_is_safe_from_several_threads(tmp_path: Path) -> None:
    backend = opened(tmp_path, models.identity())
    wrong: list[int] = []

    def work(value: int) -> None:
        array = np.full((3, 4), value, np.float32)
        for _ in range(50):
            if not np.array_equal(backend.run({"x": array}, ["y"])[0], array):
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(value,)) for value in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_same_file_has_the_same_artifact_id(tmp_path: Path) -> None:
    first = opened(tmp_path, models.mlp()).artifact_id
    assert opened(tmp_path, models.mlp()).artifact_id == first
    assert opened(tmp_path, models.mlp(classes=5)).artifact_id != first
    assert len(first) == len("onnx-") + 12


def test_sequences_and_maps_are_refused_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match=r"output .probabilities. is seq.*zipmap"):
        opened(tmp_path, models.zipmap())


BROKEN = {
    "garbage": (b"garbage", "not an ONNX model, or cut off"),
    "empty": (b"", "is empty"),
    "cut off": (models.mlp()[:-40], "not an ONNX model, or cut off"),
    "unknown operator": (models.unknown_operator(), "operator 'Frobnicate' does not exist"),
    "custom operator": (
        models.unknown_operator("Fuse", "my.ops"),
        "custom operator 'Fuse' of domain 'my.ops' is unknown",
    ),
    "future opset": (
        models.build(
            [helper.make_node("Identity", ["x"], ["y"])],
            [models.tensor("x", "FP32", ["n"])],
            [models.tensor("y", "FP32", ["n"])],
            opset=99,
        ),
        "needs opset 99 of ai.onnx, ONNX Runtime .* knows up to",
    ),
    "no kernel": (
        models.build(
            [helper.make_node("Relu", ["x"], ["y"])],
            [models.tensor("x", "INT16", ["n"])],
            [models.tensor("y", "INT16", ["n"])],
        ),
        "has no kernel for operator 'Relu'",
    ),
    "wrong type": (
        models.build(
            [helper.make_node("Identity", ["x"], ["y"])],
            [models.tensor("x", "FP32", ["n"])],
            [models.tensor("y", "INT64", ["n"])],
        ),
        "cannot open it: .*does not match expected type.*check it with onnx.checker",
    ),
}


@pytest.mark.parametrize(("content", "reason"), BROKEN.values(), ids=BROKEN)
def test_load_failure_says_what_and_what_to_do(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(LoadFailed, match=reason) as caught:
        opened(tmp_path, content)
    assert "model.onnx" in str(caught.value)
    assert "onnxruntime_src" not in str(caught.value)


def test_missing_and_short_external_data_are_named(tmp_path: Path) -> None:
    path = models.with_external_data(tmp_path)
    artifact = inspect_onnx(path)
    assert artifact.size_bytes == path.stat().st_size + (tmp_path / "weights.bin").stat().st_size
    open_onnx(artifact, ExecutionConfig(), 1).close()
    (tmp_path / "weights.bin").write_bytes(b"short")
    with pytest.raises(LoadFailed, match="external data is too short to hold weight"):
        open_onnx(inspect_onnx(path), ExecutionConfig(), 1)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(LoadFailed, match=r"weights are in 'weights.bin', which is missing"):
        open_onnx(inspect_onnx(path), ExecutionConfig(), 1)


def test_unknown_format_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match=r"no backend opens 'model.xyz', expected a file .onnx"):
        format_of(tmp_path / "model.xyz")


class FakeRuntime:
    """Looks like the onnxruntime module of some machine; notes what sessions were asked for.

    Providers that are neither in `starts` nor in `raises` are left out without an error.
    """

    __version__ = "1.99"
    __file__ = "/nowhere/onnxruntime/__init__.py"
    cuda_version = "13.0"
    SessionOptions = onnxruntime.SessionOptions
    GraphOptimizationLevel = onnxruntime.GraphOptimizationLevel

    def __init__(
        self,
        built_in: Sequence[str],
        starts: Sequence[str],
        raises: Mapping[str, str] | None = None,
    ) -> None:
        self.built_in, self.starts, self.raises = built_in, starts, raises or {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.options: Any = None

    def get_available_providers(self) -> list[str]:
        return [*self.built_in]

    def InferenceSession(self, path: str, **arguments: Any) -> Any:
        self.asked, self.options = arguments["providers"], arguments["sess_options"]
        for name, _ in self.asked:
            if name in self.raises:
                raise RuntimeError(self.raises[name])
        started = [name for name, _ in self.asked if name in self.starts]
        real = onnxruntime.InferenceSession(path)
        return SimpleNamespace(
            get_providers=lambda: started,
            get_inputs=real.get_inputs,
            get_outputs=real.get_outputs,
            get_overridable_initializers=real.get_overridable_initializers,
            run=real.run,
        )


def opened_on(
    runtime: FakeRuntime, folder: Path, content: bytes = MLP, **execution: Any
) -> OrtBackend:
    """Opened on a machine whose devices are those in `folder`."""
    path = folder / "model.onnx"
    path.write_bytes(content)
    return open_onnx(inspect_onnx(path), ExecutionConfig(**execution), 2, runtime, folder)


def with_gpu(folder: Path) -> Path:
    (folder / "dev").mkdir()
    (folder / "dev" / "nvidia0").touch()
    return folder


def test_gpu_is_used_where_it_starts(tmp_path: Path) -> None:
    runtime = FakeRuntime(GPU_MACHINE, GPU_MACHINE)
    backend = opened_on(runtime, tmp_path, providers=("cuda", "cpu"), gpus=(1,))
    assert (backend.devices, backend.fallback) == (("cuda:1",), "")
    assert [name for name, _ in runtime.asked] == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert runtime.asked[0][1]["device_id"] == "1"


def test_gpu_is_found_where_nothing_is_said(tmp_path: Path) -> None:
    runtime = FakeRuntime(GPU_MACHINE, GPU_MACHINE)
    assert opened_on(runtime, tmp_path).devices == ("cpu",)
    assert [name for name, _ in runtime.asked] == ["CPUExecutionProvider"]
    assert opened_on(runtime, with_gpu(tmp_path)).devices == ("cuda:0",)


def test_provider_options_of_the_configuration_win(tmp_path: Path) -> None:
    runtime = FakeRuntime(GPU_MACHINE, GPU_MACHINE)
    options = {"tensorrt": {"trt_fp16_enable": "1"}, "cuda": {"cudnn_conv_algo_search": "DEFAULT"}}
    opened_on(runtime, tmp_path, providers=("tensorrt", "cuda"), provider_options=options)
    asked = dict(runtime.asked)
    assert asked["TensorrtExecutionProvider"] == {"device_id": "0", "trt_fp16_enable": "1"}
    assert asked["CUDAExecutionProvider"]["cudnn_conv_algo_search"] == "DEFAULT"


def test_silent_fall_back_to_the_cpu_is_noticed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = FakeRuntime(GPU_MACHINE, CPU_ONLY)
    with_gpu(tmp_path)
    for said in (("cuda", "cpu"), None):
        backend = opened_on(runtime, tmp_path, providers=said)
        assert backend.devices == ("cpu",)
        why = "runs on cpu, since cuda: CUDAExecutionProvider did not start"
        assert backend.fallback == why
        assert backend.fallback in caplog.text


# As ONNX Runtime 1.31 words it where a driver is there and no device.
NO_DEVICE = (
    "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:157 std::conditional_t<THRW,"
    " void, common::Status> onnxruntime::CudaCall(ERRTYPE, const char*, SUCCTYPE) [with ERRTYPE ="
    " cudaError; bool THRW = true] CUDA failure 100: no CUDA-capable device is detected ; GPU=-1 ;"
    " hostname=vm ; file=/onnxruntime_src/cuda.cc ; line=355 ; expr=cudaSetDevice(info_.device_id);"
)


def test_device_that_fails_to_start_is_left_for_the_cpu(tmp_path: Path) -> None:
    runtime = FakeRuntime(GPU_MACHINE, GPU_MACHINE, {"CUDAExecutionProvider": NO_DEVICE})
    backend = opened_on(runtime, with_gpu(tmp_path))
    assert backend.devices == ("cpu",)
    reason = "CUDA failure 100: no CUDA-capable device is detected"
    assert backend.fallback == f"runs on cpu, since cuda: {reason}"
    with pytest.raises(LoadFailed) as caught:
        opened_on(runtime, tmp_path, providers=("cuda",))
    assert str(caught.value) == (
        f'none of [execution] providers = ["cuda"] starts: cuda: {reason}. Add "cpu" to run there'
        " instead"
    )


def test_tensorrt_that_fails_to_start_is_left_for_cuda(tmp_path: Path) -> None:
    problem = {"TensorrtExecutionProvider": "Please install TensorRT libraries"}
    runtime = FakeRuntime(GPU_MACHINE, GPU_MACHINE, problem)
    backend = opened_on(runtime, tmp_path, providers=("tensorrt", "cuda", "cpu"))
    assert backend.devices == ("cuda:0",)
    assert backend.fallback == "runs on cuda, since tensorrt: Please install TensorRT libraries"


def test_what_is_wrong_with_the_model_is_not_blamed_on_the_device(tmp_path: Path) -> None:
    with pytest.raises(
        LoadFailed, match=r"not an ONNX model, or cut off; copy or export it again$"
    ):
        opened_on(FakeRuntime(GPU_MACHINE, GPU_MACHINE), tmp_path, b"broken", providers=("cuda",))
    runtime = FakeRuntime(GPU_MACHINE, GPU_MACHINE, {"CUDAExecutionProvider": NO_DEVICE})
    with pytest.raises(LoadFailed, match=r"cut off; .* \(cuda: CUDA failure 100: no CUDA-capable"):
        opened_on(runtime, tmp_path, b"broken", providers=("cuda", "cpu"))


def test_no_provider_asked_for_starts(tmp_path: Path) -> None:
    runtime = FakeRuntime(GPU_MACHINE, CPU_ONLY)
    with pytest.raises(LoadFailed, match=r'none of \[execution\] providers = \["cuda"\] starts'):
        opened_on(runtime, tmp_path, providers=("cuda",))


def test_provider_that_is_not_built_in_is_not_asked_for(tmp_path: Path) -> None:
    runtime = FakeRuntime(CPU_ONLY, CPU_ONLY)
    with pytest.raises(LoadFailed, match="this onnxruntime is built without CUDAExecution"):
        opened_on(runtime, tmp_path, providers=("cuda",))
    backend = opened_on(runtime, tmp_path, providers=("tensorrt", "cpu"))
    assert backend.devices == ("cpu",)
    reason = "this onnxruntime is built without TensorrtExecutionProvider"
    assert backend.fallback == f"runs on cpu, since tensorrt: {reason}"


def test_made_up_provider_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match="'cudda' is unknown, expected some of cpu, cuda"):
        opened_on(FakeRuntime(GPU_MACHINE, GPU_MACHINE), tmp_path, providers=("cudda",))


def test_session_options_follow_the_configuration(tmp_path: Path) -> None:
    runtime = FakeRuntime(GPU_MACHINE, GPU_MACHINE)
    opened_on(runtime, tmp_path, graph_level="basic")
    options = runtime.options
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)
    level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    assert options.graph_optimization_level == level
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_a_session_that_spins_does_so_during_its_runs_only(tmp_path: Path) -> None:
    runtime = FakeRuntime(["CPUExecutionProvider"], ["CPUExecutionProvider"])
    path = tmp_path / "model.onnx"
    path.write_bytes(models.mlp())
    open_onnx(inspect_onnx(path), ExecutionConfig(), 2, runtime, spins=True)
    assert runtime.options.get_session_config_entry("session.intra_op.allow_spinning") == "1"
    assert runtime.options.get_session_config_entry("session.force_spinning_stop") == "1"
