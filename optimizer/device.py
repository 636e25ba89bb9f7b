"""What this machine is: cores, instructions, memory, GPUs, and the libraries that run models.

Read from the system's own files; no GPU library is opened and no framework imported.
"""

import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
_LIBRARIES = (
    "inflight",
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "nncf",
    "onnxslim",
    "onnxscript",
    "torch",
    "scikit-learn",
    "skl2onnx",
    "xgboost",
    "xgboost-cpu",
    "lightgbm",
    "tensorflow",
    "tensorflow-cpu",
    "tf2onnx",
    "tensorrt",
    "tensorrt-cu13",
)
_GPU_FIELDS = "name,memory.total,compute_cap,driver_version"
_GPU_TIMEOUT_S = 20.0  # the first call after a boot starts the driver


@dataclass(frozen=True, slots=True)
class Gpu:
    """One NVIDIA GPU."""

    name: str
    memory_mb: int
    compute_capability: str  # "9.0"
    driver: str


@dataclass(frozen=True, slots=True)
class Device:
    """One machine, as far as it decides what runs fast on it."""

    cpu: str
    cores: int  # that this process may use
    memory_mb: int
    features: tuple[str, ...] = ()  # of the CPU, of those that matter here
    gpus: tuple[Gpu, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)  # of the libraries installed

    @property
    def has_bf16(self) -> bool:
        """Whether the CPU multiplies bfloat16."""
        return bool({"avx512_bf16", "amx_bf16"} & set(self.features))

    def has(self, *libraries: str) -> bool:
        """Whether any of these distributions is installed."""
        return any(library in self.versions for library in libraries)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def read() -> Device:
    """This machine; takes milliseconds, or as long as `nvidia-smi` where there is one."""
    cpuinfo = _text("/proc/cpuinfo")
    return Device(
        cpu=_field(cpuinfo, "model name") or platform.processor() or platform.machine(),
        cores=_cores(),
        memory_mb=_kilobytes(_text("/proc/meminfo"), "MemTotal") // 1024,
        features=features_of(cpuinfo),
        gpus=_gpus(),
        versions=versions(),
    )


def available_memory_mb() -> int:
    """What processes started now can have without swapping; 0 where nobody says."""
    return _kilobytes(_text("/proc/meminfo"), "MemAvailable") // 1024


def versions() -> dict[str, str]:
    """The libraries that make and run models, by distribution; those that are installed."""
    found = {name: _version(name) for name in _LIBRARIES}
    return {name: number for name, number in found.items() if number}


def features_of(cpuinfo: str) -> tuple[str, ...]:
    """The instruction sets that matter here, from the text of /proc/cpuinfo."""
    flags = set(_field(cpuinfo, "flags").split())
    return tuple(name for name in _FEATURES if name in flags)


def gpus_of(listing: str) -> tuple[Gpu, ...]:
    """The GPUs in what `nvidia-smi --query-gpu` prints as CSV."""
    rows = [[cell.strip() for cell in line.split(",")] for line in listing.splitlines()]
    return tuple(
        Gpu(name, int(memory) if memory.isdecimal() else 0, capability, driver)
        for name, memory, capability, driver in (row for row in rows if len(row) == 4)
    )


def _gpus() -> tuple[Gpu, ...]:
    if not Path("/proc/driver/nvidia/version").exists():
        return ()
    command = ["nvidia-smi", f"--query-gpu={_GPU_FIELDS}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=_GPU_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    return gpus_of(answer.stdout)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _field(text: str, name: str) -> str:
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _kilobytes(text: str, name: str) -> int:
    number = _field(text, name).partition(" ")[0]
    return int(number) if number.isdecimal() else 0
