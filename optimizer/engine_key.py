"""What a TensorRT engine depends on: it runs where all of it is the same, and nowhere else."""

import contextlib
import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from optimizer.device import Device
from optimizer.errors import Unavailable
from optimizer.shape_profile import ShapeProfile

Precision = Literal["fp32", "fp16", "bf16", "int8"]

_TENSORRT = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")  # distributions
_ONNXRUNTIME = ("onnxruntime-gpu", "onnxruntime")

HERE = ("GPU", "compute capability", "driver", "TensorRT", "ONNX Runtime")
"""Parts that a machine decides; the others are what was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineKey:
    model: str  # SHA-256 of the ONNX file and its external data
    profile: ShapeProfile
    precision: Precision
    gpu: str  # "NVIDIA H200"
    compute_capability: str  # "9.0"
    driver: str  # "580.65.06"
    tensorrt: str  # "10.13.3"
    onnxruntime: str = ""  # empty: ONNX Runtime has no part in it
    workspace_bytes: int = 0  # memory that kernels may use; 0: no limit
    level: int | None = None  # of the builder, 0 to 5; None: TensorRT's own choice

    def parts(self) -> dict[str, str]:
        """By names that people know; what the store's key is made of."""
        return {
            "model": self.model,
            "shapes": str(self.profile),
            "precision": self.precision,
            "GPU": self.gpu,
            "compute capability": self.compute_capability,
            "driver": self.driver,
            "TensorRT": self.tensorrt,
            "ONNX Runtime": self.onnxruntime,
            "workspace": str(self.workspace_bytes),
            "builder level": "" if self.level is None else str(self.level),
        }


def key_here(
    device: Device,
    model: str,
    profile: ShapeProfile,
    precision: Precision,
    *,
    workspace_bytes: int = 0,
    level: int | None = None,
    gpu: int = 0,
    uses_onnxruntime: bool = True,
) -> EngineKey:
    """The key of an engine for this machine.

    Raises:
        Unavailable: there is no such GPU, or no TensorRT.
    """
    if gpu >= len(device.gpus):
        raise Unavailable(f"TensorRT needs GPU {gpu}, this machine has {len(device.gpus)}")
    version = _version(device, _TENSORRT) or library_version()
    if not version:
        raise Unavailable("TensorRT is not installed: install inflight[gpu]")
    found = device.gpus[gpu]
    return EngineKey(
        model=model,
        profile=profile,
        precision=precision,
        gpu=found.name,
        compute_capability=found.compute_capability,
        driver=found.driver,
        tensorrt=version,
        onnxruntime=_version(device, _ONNXRUNTIME) if uses_onnxruntime else "",
        workspace_bytes=workspace_bytes,
        level=level,
    )


def differences(built_for: Mapping[str, str], wanted: Mapping[str, str]) -> str:
    """Which parts are not the same; empty when all are."""
    return "; ".join(
        f"{name} was '{built_for.get(name, '')}' and is '{value}'"
        for name, value in wanted.items()
        if built_for.get(name) != value
    )


def library_version() -> str:
    """TensorRT's version where it was not installed as a Python package; empty: it is not here."""
    for name in ("libnvinfer.so.10", "libnvinfer.so.11"):
        with contextlib.suppress(OSError, AttributeError):
            number = int(ctypes.CDLL(name).getInferLibVersion())
            return f"{number // 10_000}.{number // 100 % 100}.{number % 100}"
    return ""


def _version(device: Device, distributions: tuple[str, ...]) -> str:
    return next((device.versions[name] for name in distributions if name in device.versions), "")
