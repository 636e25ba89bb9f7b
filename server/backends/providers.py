"""Which execution providers of ONNX Runtime a model is opened with: the choice, and what it needs.

Nothing here opens a model. ONNX Runtime lists the providers it was built with, not those that
work here, and falls back to the CPU without an error; so the device is looked for first, and a
provider that did not start is asked for its reason afterwards.
"""

import ctypes
import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from server.errors import LoadFailed
from server.model_config import ExecutionConfig

logger = logging.getLogger(__name__)

CPU = "cpu"
NAMES = {
    CPU: "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
ON_GPU = ("cuda", "tensorrt")

# Both are the lesser evil for a server: many models, and batches of every size.
# Source: https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html, the options
# of these names. What is not named here has ONNX Runtime's default.
_DEFAULT_OPTIONS: Mapping[str, Mapping[str, str]] = {
    "cuda": {
        # The default, EXHAUSTIVE, benchmarks every convolution for every new input shape: hundreds
        # of milliseconds for each batch size that was not warmed up. HEURISTIC looks it up.
        "cudnn_conv_algo_search": "HEURISTIC",
        # Every session has an arena of its own. The default, kNextPowerOfTwo, extends it by ever
        # doubled amounts, so that each model holds up to as much again as it ever used.
        "arena_extend_strategy": "kSameAsRequested",
    }
}

# An NVIDIA device that this process may open: the driver's device nodes, which a container gets
# only with its GPUs (sysfs, which ONNX Runtime looks at, shows the host's there); and the driver
# that Windows lends to its Linux.
_DEVICE_FILES = ("dev/nvidia[0-9]*", "usr/lib/wsl/lib/libcuda.so.1")

# In the order in which they need each other; {cuda} is the major version.
_CUDA_LIBRARIES = (
    "libcublasLt.so.{cuda}",
    "libcublas.so.{cuda}",
    "libcudart.so.{cuda}",
    "libnvrtc.so.{cuda}",
    "libcurand.so.*",
    "libcufft.so.*",
    "libcudnn.so.*",
)
_TENSORRT_LIBRARIES = (
    "libnvinfer.so.10",
    "libnvinfer_plugin.so.10",
    "libnvonnxparser.so.10",
    "libnvinfer_builder_resource*.so.10*",
)
_REMEDIES = {
    "libcuda.so": "NVIDIA's driver is not here; a container gets it with --gpus all",
    "libnvinfer": "install TensorRT 10",
    "libnvonnxparser": "install TensorRT 10",
    "libcu": "install CUDA and cuDNN, for example with pip install 'onnxruntime-gpu[cuda,cudnn]'",
}


class NotStarted(LoadFailed):
    """None of the providers asked for starts on this machine."""


Choice = tuple[str, dict[str, str]]
"""A provider by its name here, and its options."""


def wanted(execution: ExecutionConfig, runtime: Any, root: Path = Path("/")) -> tuple[str, ...]:
    """The providers to try, in order of preference: those that were named, or what is here.

    Where nothing was said: CUDA where this onnxruntime has it and there is a device, then the CPU.
    What comes after the CPU would never run anything, and is left out.

    Raises:
        LoadFailed: there is no provider of such a name.
    """
    if execution.providers is None:
        has_cuda = NAMES["cuda"] in runtime.get_available_providers() and has_gpu(root)
        return ("cuda", CPU) if has_cuda else (CPU,)
    for name in execution.providers:
        if name not in NAMES:
            known = ", ".join(NAMES)
            raise LoadFailed(
                f"[execution] providers: '{name}' is unknown, expected some of {known}"
            )
    names = execution.providers
    return names[: names.index(CPU) + 1] if CPU in names else names


def has_gpu(root: Path = Path("/")) -> bool:
    """Whether this process may open an NVIDIA device; takes microseconds, loads no driver."""
    return any(True for pattern in _DEVICE_FILES for _ in root.glob(pattern))


def choices(
    names: tuple[str, ...], execution: ExecutionConfig, runtime: Any
) -> tuple[list[Choice], dict[str, str]]:
    """What to ask ONNX Runtime for, the CPU last; and why others are not asked for, by name."""
    built_in = runtime.get_available_providers()
    asked: list[Choice] = []
    missing: dict[str, str] = {}
    for name in names:
        if NAMES[name] in built_in:
            asked.append((name, _options(name, execution)))
        else:
            missing[name] = f"this onnxruntime is built without {NAMES[name]}"
    if not asked or asked[-1][0] != CPU:
        asked.append((CPU, {}))  # runs what the others have no kernel for
    return asked, missing


def _options(name: str, execution: ExecutionConfig) -> dict[str, str]:
    options = dict(_DEFAULT_OPTIONS.get(name, {}))
    if name in ON_GPU:
        options["device_id"] = str(gpu(execution))
    options.update(execution.provider_options.get(name, {}))
    return options


def gpu(execution: ExecutionConfig) -> int:
    """The number of the GPU that a model on a GPU runs on."""
    return execution.gpus[0] if execution.gpus else 0


def load_libraries(runtime: Any, names: Collection[str]) -> None:
    """Loads what these providers need from NVIDIA's Python packages, where those are installed.

    A provider finds them by their names once they are loaded, and not otherwise. Call it before
    a session is opened on a GPU; from the second time on it costs microseconds. ONNX Runtime's own
    `preload_dlls` does the same, but prints what it misses to stdout, which has a meaning here.

    Source: https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html#preload-dlls
    """
    packages = Path(runtime.__file__).parent.parent
    major = runtime.cuda_version.partition(".")[0]
    patterns = [f"nvidia/*/lib/{pattern.format(cuda=major)}" for pattern in _CUDA_LIBRARIES]
    if "tensorrt" in names:
        patterns += [f"tensorrt_libs/{pattern}" for pattern in _TENSORRT_LIBRARIES]
    for pattern in patterns:
        for path in sorted(packages.glob(pattern)):
            try:
                ctypes.CDLL(str(path))
            except OSError as error:
                logger.warning("'%s' cannot be loaded: %s", path, error)


def missing_library(name: str, runtime: Any) -> str:
    """Which library a provider needs and does not find, and what to do; "" if that is not it.

    ONNX Runtime's CUDA provider is left out for this reason without an error.
    """
    library = Path(runtime.__file__).parent / "capi" / f"libonnxruntime_providers_{name}.so"
    if not library.is_file():
        return ""
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        return with_remedy(str(error))
    return ""


def with_remedy(linker_error: str) -> str:
    """What the dynamic linker says of a library that is missing, and how to get it."""
    reason = linker_error.partition(": No such file")[0]
    for begin, remedy in _REMEDIES.items():
        if reason.startswith(begin):
            return f"{reason}; {remedy}"
    return reason
