"""What is asked of an optimization: frozen, checked, the same for every way of asking."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from optimizer.errors import GoalError

TECHNIQUES: Mapping[str, str] = {
    "onnx_conversion": "conversion to ONNX",
    "graph": "graph optimization level and clean-up",
    "threads": "thread layout",
    "fp16": "half precision",
    "bf16": "bfloat16 arithmetic (OpenVINO)",
    "int8_dynamic": "8-bit integers, activations scaled as they come",
    "int8_static": "8-bit integers, scales from calibration data",
    "int8_smoothquant": "8-bit integers with SmoothQuant and bias correction (NNCF)",
    "weight_only_int8": "8-bit weights, float arithmetic",
    "weight_only_int4": "4-bit weights, float arithmetic",
    "mixed_precision": "int8 without the layers that break accuracy",
    "tensorrt": "TensorRT engines",
    "native": "the original framework itself",
}
"""The names of `techniques` and what they stand for. `quantization` stands for all int8 and int4
ones, narrowed by `method` and `precision`."""

NOT_YET = ("pruning", "distillation", "qat")
"""Techniques that are recognised and refused by name."""

Objective = Literal["latency", "throughput", "mix"]
Metric = Literal["auto", "top1", "f1", "rmse", "r2", "cosine", "relative_error"]
Method = Literal["", "dynamic", "static"]
Precision = Literal["auto", "fp32", "fp16", "int8", "int4"]
Backend = Literal["auto", "cpu", "cuda", "tensorrt", "openvino"]

_CHOICES = {
    "method": Method,
    "precision": Precision,
    "backend": Backend,
    "metric": Metric,
    "objective": Objective,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What is wanted, and what it may cost.

    Raises:
        GoalError: a field's value makes no sense; names field, value and what was expected.
    """

    techniques: tuple[str, ...] = ()  # empty: all
    method: Method = ""  # of quantization; empty: both
    precision: Precision = "auto"
    backend: Backend = "auto"
    accuracy_threshold: float = 0.99  # ratio to the original, or agreement with it
    metric: Metric = "auto"
    lossless_only: bool = False
    objective: Objective = "latency"
    batch_mix: Mapping[int, float] = field(default_factory=dict)  # objective "mix": share by rows
    max_batch: int = 64  # rows; larger batches are not measured
    batch_sizes: tuple[int, ...] = (1, 16, 32, 64)
    iterations: int = 1000
    warmup_iterations: int = 100
    benchmark_s: float = 10.0  # all timing together
    time_limit_s: float = 1800.0  # the whole job; then the best so far
    is_quick: bool = False  # fewer candidates and rounds
    opset: int = 17
    threads: int = 1  # compute threads of the machine that may be used
    memory_limit_mb: int = 0  # of one child process; 0: no limit
    workspace_gb: float = 4.0  # TensorRT's
    seed: int = 0

    def __post_init__(self) -> None:
        check_techniques(self.techniques)
        for name, choices in _CHOICES.items():
            if (value := getattr(self, name)) not in get_args(choices):
                known = ", ".join(f"'{choice}'" for choice in get_args(choices))
                raise GoalError(f"{name}: expected one of {known}, got '{value}'")
        if not 0 <= self.accuracy_threshold <= 1:
            raise GoalError(
                f"accuracy_threshold: expected a ratio from 0 to 1, got {self.accuracy_threshold}"
            )
        for name in ("max_batch", "iterations", "threads", "benchmark_s", "time_limit_s"):
            if getattr(self, name) <= 0:
                raise GoalError(f"{name}: expected more than 0, got {getattr(self, name)}")
        if not self.batch_sizes or min(self.batch_sizes) < 1:
            raise GoalError(f"batch_sizes: expected sizes from 1 up, got {self.batch_sizes}")

    def allows(self, technique: str) -> bool:
        """Whether candidates may use a technique of `TECHNIQUES`."""
        if technique.startswith("int8") or technique == "mixed_precision":
            return self.precision in ("auto", "int8") and self._quantizes(technique)
        if technique.startswith("weight_only"):
            return self.precision in ("auto", technique[-4:]) and self._quantizes(technique)
        if technique in ("fp16", "bf16"):
            return self.precision in ("auto", "fp16") and self._names(technique)
        return self._names(technique)

    def _names(self, technique: str) -> bool:
        return not self.techniques or technique in self.techniques

    def _quantizes(self, technique: str) -> bool:
        if technique in self.techniques:
            return True
        if self.techniques and "quantization" not in self.techniques:
            return False
        is_dynamic = technique in ("int8_dynamic", "weight_only_int8", "weight_only_int4")
        return self.method in ("", "dynamic" if is_dynamic else "static")


def check_techniques(names: Iterable[str]) -> None:
    """Raises GoalError for a name that is no technique; names the nearest."""
    known = [*TECHNIQUES, "quantization"]
    for name in names:
        if name in NOT_YET:
            raise GoalError(f"technique '{name}' is not available in this version")
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise GoalError(f"unknown technique '{name}', the nearest is '{nearest}'")
