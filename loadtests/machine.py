"""What a report was measured on: processors, GPUs, and the versions of what ran there."""

import os
import platform
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnxruntime

_LIBRARIES = ("grpcio", "protobuf", "numpy", "uvloop")


def describe() -> dict[str, Any]:
    """This machine and this environment, for a report."""
    cpu = re.search(r"model name\s*: (.*)", _text(Path("/proc/cpuinfo")))
    return {
        "cpu": cpu[1] if cpu else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "gpus": gpus(),
        "python": platform.python_version(),
        onnxruntime.package_name: onnxruntime.__version__,
        **{name: version(name) for name in _LIBRARIES},
    }


def gpus(driver: Path = Path("/proc/driver/nvidia")) -> list[str]:
    """What NVIDIA's driver calls the GPUs of this machine, with the driver's own version."""
    number = re.search(r"\b\d+\.\d+(\.\d+)?\b", _text(driver / "version"))
    models = (
        re.search(r"^Model:\s*(.+)$", _text(file), re.MULTILINE)
        for file in sorted(driver.glob("gpus/*/information"))
    )
    return [f"{m[1]}, driver {number[0] if number else 'unknown'}" for m in models if m]


def _text(file: Path) -> str:
    return file.read_text() if file.is_file() else ""
