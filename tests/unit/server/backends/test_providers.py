"""Which providers are tried, with which options, and what is said of one that does not start."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from onnxruntime.capi import onnxruntime_pybind11_state

from server.backends import providers
from server.errors import LoadFailed
from server.model_config import ExecutionConfig

CPU_BUILD = ("AzureExecutionProvider", "CPUExecutionProvider")
GPU_BUILD = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")


def runtime(built_in: tuple[str, ...] = GPU_BUILD, folder: Path = Path("/nowhere")) -> Any:
    """Looks like the onnxruntime module, installed in `folder`."""
    return SimpleNamespace(
        get_available_providers=lambda: [*built_in],
        __file__=str(folder / "onnxruntime" / "__init__.py"),
        cuda_version="13.0",
    )


def machine(folder: Path, *files: str) -> Path:
    """The root of a file system with these files."""
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("said", "built_in", "files", "wanted"),
    [
        pytest.param(None, GPU_BUILD, ["dev/nvidia0"], ("cuda", "cpu"), id="auto"),
        pytest.param(None, GPU_BUILD, ["dev/nvidia3"], ("cuda", "cpu"), id="auto, another GPU"),
        pytest.param(None, GPU_BUILD, [], ("cpu",), id="auto without a device"),
        pytest.param(None, GPU_BUILD, ["dev/nvidiactl"], ("cpu",), id="auto, a driver only"),
        pytest.param(None, CPU_BUILD, ["dev/nvidia0"], ("cpu",), id="auto without CUDA"),
        pytest.param(
            None, GPU_BUILD, ["usr/lib/wsl/lib/libcuda.so.1"], ("cuda", "cpu"), id="auto on WSL"
        ),
        pytest.param(("cpu",), GPU_BUILD, ["dev/nvidia0"], ("cpu",), id="cpu"),
        pytest.param(("cuda",), CPU_BUILD, [], ("cuda",), id="cuda, come what may"),
        pytest.param(("cpu", "cuda"), GPU_BUILD, [], ("cpu",), id="nothing runs after the cpu"),
    ],
)
def test_wanted(
    tmp_path: Path,
    said: tuple[str, ...] | None,
    built_in: tuple[str, ...],
    files: list[str],
    wanted: tuple[str, ...],
) -> None:
    execution = ExecutionConfig(providers=said)
    root = machine(tmp_path, *files)
    assert providers.wanted(execution, runtime(built_in), root) == wanted


def test_unknown_provider_is_refused() -> None:
    with pytest.raises(LoadFailed, match="'gpu' is unknown, expected some of cpu, cuda, tensor"):
        providers.wanted(ExecutionConfig(providers=("gpu", "cpu")), runtime())


def test_the_cpu_is_always_the_last_choice() -> None:
    names = ("tensorrt", "openvino", "cuda")
    chosen, missing = providers.choices(names, ExecutionConfig(), runtime())
    assert [name for name, _ in chosen] == ["tensorrt", "cuda", "cpu"]
    assert missing == {"openvino": "this onnxruntime is built without OpenVINOExecutionProvider"}


def test_cuda_is_set_up_for_many_models_and_batches_of_any_size() -> None:
    said = ExecutionConfig(gpus=(2, 3), provider_options={"cuda": {"gpu_mem_limit": "1000"}})
    chosen, _ = providers.choices(("cuda", "cpu"), said, runtime())
    assert chosen == [
        (
            "cuda",
            {
                "cudnn_conv_algo_search": "HEURISTIC",
                "arena_extend_strategy": "kSameAsRequested",
                "device_id": "2",
                "gpu_mem_limit": "1000",
            },
        ),
        ("cpu", {}),
    ]


def test_libraries_come_from_nvidias_packages(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    machine(
        tmp_path,
        "nvidia/cu13/lib/libcublas.so.13",
        "nvidia/cu13/lib/libcublasLt.so.13",
        "nvidia/cublas/lib/libcublas.so.12",
        "nvidia/cudnn/lib/libcudnn.so.9",
        "tensorrt_libs/libnvinfer.so.10",
        "tensorrt_libs/libnvinfer.so.11",
        "tensorrt_libs/libnvonnxparser.so.10",
        "tensorrt_libs/libnvinfer_plugin.so.10",
        "tensorrt_libs/libnvinfer_builder_resource_sm90.so.10.16.1",
    )

    def tried() -> list[str]:
        paths = [record.args[0] for record in caplog.records if isinstance(record.args, tuple)]
        caplog.clear()
        return [Path(str(path)).name for path in paths]

    cuda = ["libcublasLt.so.13", "libcublas.so.13", "libcudnn.so.9"]
    providers.load_libraries(runtime(folder=tmp_path), ["cuda"])
    assert tried() == cuda, "in the order of their needs, and none of another CUDA"
    providers.load_libraries(runtime(folder=tmp_path), ["tensorrt", "cuda"])
    assert tried() == [
        *cuda,
        "libnvinfer.so.10",
        "libnvinfer_plugin.so.10",
        "libnvonnxparser.so.10",
        "libnvinfer_builder_resource_sm90.so.10.16.1",
    ]


def test_no_packages_are_no_problem(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    providers.load_libraries(runtime(folder=tmp_path), ["cuda", "tensorrt"])
    assert not caplog.records


def test_a_library_that_cannot_be_loaded_is_the_reason(tmp_path: Path) -> None:
    library = tmp_path / "onnxruntime/capi/libonnxruntime_providers_cuda.so"
    assert providers.missing_library("cuda", runtime(folder=tmp_path)) == ""
    library.parent.mkdir(parents=True)
    library.write_bytes(b"no library")
    assert providers.missing_library("cuda", runtime(folder=tmp_path)).startswith(str(library))
    library.unlink()
    library.symlink_to(onnxruntime_pybind11_state.__file__)
    assert providers.missing_library("cuda", runtime(folder=tmp_path)) == "", "this one loads"


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        ("libcuda.so.1: cannot open", "NVIDIA's driver is not here; a container gets it with"),
        ("libcublasLt.so.13: cannot open", "install CUDA and cuDNN, for example with pip"),
        ("libcudart.so.13: cannot open", "install CUDA and cuDNN"),
        ("libnvinfer.so.10: cannot open", "install TensorRT 10"),
        ("libz.so.1: cannot open", "libz.so.1: cannot open"),
    ],
)
def test_the_reason_says_what_to_do(message: str, remedy: str) -> None:
    assert remedy in providers.with_remedy(f"{message}: No such file or directory")
