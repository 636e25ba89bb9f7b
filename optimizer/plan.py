"""Decides what to try on a model: pure, from facts about model, machine and goal.

Every rule here stands for a measurement; whatever is listed is still validated and benchmarked, so
a rule only has to be right about what is not worth the time.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from optimizer.artifact import Runtime
from optimizer.candidate import Candidate, Outcome, State, Step
from optimizer.device import Device
from optimizer.goal import Goal
from optimizer.source import Framework

LEVELS = ("disable", "basic", "extended", "all")
"""ONNX Runtime's graph optimization levels; "all" is its default."""

PROVIDER = ("onnxruntime-gpu",)
TENSORRT = ("tensorrt", "tensorrt-cu13")
"""What engines are built and run by, as distributions: ONNX Runtime's provider, TensorRT itself."""

_WORTH_QUANTIZING = 10_000  # weights; below, a run is call overhead and not arithmetic
_ORT = {"graph_level": "all"}
_F32 = {"precision": "f32"}
_BF16 = {"precision": "bf16"}
_CUDA = {"graph_level": "all", "providers": ["cuda"]}
_OPENVINO = "pip install 'inflight[openvino]'"
_NO_DATA = "needs real rows, to calibrate with or to be compared on: give data"


@dataclass(frozen=True, slots=True)
class Graph:
    """An ONNX graph, as far as it decides what pays; `passes/graph_facts.py` looks at it."""

    opset: int
    parameters: int
    quantizable: int  # weights of convolutions, matrix products and recurrent cells
    convolution_share: float  # of the arithmetic, 0 to 1
    product_share: float
    has_attention: bool
    is_quantized: bool
    is_classical: bool  # trees and the like, whose operators only ONNX Runtime has


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What of a model decides which candidates make sense."""

    framework: Framework
    graph: Graph | None  # of its ONNX form; None: it has none, or one that is not the same
    levels: tuple[str, ...] = LEVELS  # those whose graphs differ from each other


def baseline(facts: ModelFacts) -> Candidate:
    """What every candidate has to beat: the model as it serves when nothing is done."""
    if facts.framework == "onnx":
        return Candidate("original, ONNX Runtime", (), "onnxruntime", _ORT, ("graph",))
    native = {"framework": facts.framework}
    return Candidate("original framework", (), "native", native, ("native",))


def candidates(facts: ModelFacts, device: Device, goal: Goal, has_data: bool) -> list[Outcome]:
    """What is worth trying, cheapest first; WAITING, or SKIPPED with what this machine lacks.

    What the goal excludes is not listed at all. The baseline is not among them.
    """
    graph = facts.graph
    if graph is None:
        return []
    found = [
        *_plain(facts),
        *_levels(facts, graph, goal),
        *_openvino(graph, goal),
        *_quantized(graph, goal),
        *_half(graph, goal),
        *_on_gpu(graph),
    ]
    wanted = [candidate for candidate in found if _is_wanted(candidate, goal)]
    outcomes = [_outcome(candidate, device, has_data) for candidate in wanted]
    outcomes = _most_promising(outcomes) if goal.is_quick else outcomes
    return sorted(outcomes, key=lambda outcome: outcome.candidate.rank)


def retry(refused: Candidate, goal: Goal) -> Candidate | None:
    """What to try where the gate refused an 8-bit candidate: leave out what breaks accuracy."""
    if not goal.allows("mixed_precision") or (goal.is_quick and not goal.techniques):
        return None
    if refused.runtime != "onnxruntime" or not refused.steps:
        return None
    base = refused.steps[-1]
    if base.name not in ("int8_static", "int8_dynamic"):
        return None
    settings = {**base.settings, "base": base.name, "threshold": goal.accuracy_threshold}
    name = f"mixed precision from {refused.name}"
    step = Step("mixed_precision", settings)
    return replace(
        refused,
        name=name,
        steps=(*refused.steps[:-1], step),
        techniques=("mixed_precision",),
        needs_data=True,
        rank=30,
    )


def with_threads(candidate: Candidate, threads: int) -> Candidate:
    """The same with a thread layout of its own."""
    label = "1 thread" if threads == 1 else f"{threads} threads"
    return replace(
        candidate,
        name=f"{candidate.name}, {label} a run",
        options={**candidate.options, "threads": threads},
        techniques=(*candidate.techniques, "threads"),
    )


def _most_promising(outcomes: list[Outcome]) -> list[Outcome]:
    """Where fewer bits may win, they do: nothing else gains more than a few percent."""
    waiting = [outcome for outcome in outcomes if outcome.state is State.WAITING]
    if all(outcome.candidate.is_lossless for outcome in waiting):
        return outcomes
    return [
        outcome
        for outcome in outcomes
        if outcome not in waiting
        or not outcome.candidate.is_lossless
        or outcome.candidate.techniques == ("onnx_conversion",)
    ]


def _plain(facts: ModelFacts) -> Iterator[Candidate]:
    if facts.framework != "onnx":
        yield Candidate("converted, ONNX Runtime", (), "onnxruntime", _ORT, ("onnx_conversion",))


def _levels(facts: ModelFacts, graph: Graph, goal: Goal) -> Iterator[Candidate]:
    levels = [level for level in facts.levels if level != "all"]
    # Fused kernels are slower for some models, a change of layout pays for others: the two ends
    # tell most.
    for level in levels[:1] if goal.is_quick else levels:
        options = {"graph_level": level}
        name = f"graph level {level}, ONNX Runtime"
        yield Candidate(name, (), "onnxruntime", options, ("graph",), rank=1)
    if not goal.is_quick and not graph.is_classical:
        steps = (Step("cleanup"),)
        name = "cleaned graph, ONNX Runtime"
        yield Candidate(name, steps, "onnxruntime", _ORT, ("graph",), rank=3)


def _openvino(graph: Graph, goal: Goal) -> Iterator[Candidate]:
    if graph.is_classical or graph.is_quantized:
        return
    steps = (Step("openvino_ir", {"compress": "none"}),)
    yield Candidate("OpenVINO", steps, "openvino", _F32, ("graph",), rank=4)
    steps = (Step("openvino_ir", {"compress": "fp16"}),)
    yield _lossy("bf16, OpenVINO", steps, "bf16", "openvino", _BF16, rank=5)


def _quantized(graph: Graph, goal: Goal) -> Iterator[Candidate]:
    if graph.quantizable < _WORTH_QUANTIZING or graph.is_quantized:
        return
    eight_bits = [*_dynamic(graph), *_static(graph, goal)]
    yield from eight_bits
    if "mixed_precision" in goal.techniques:
        yield from filter(None, (retry(candidate, goal) for candidate in eight_bits[:1]))
    if goal.is_quick and not goal.techniques:
        return
    yield from _weights(graph)
    yield from _four_bits(graph, goal)
    if not graph.is_classical:
        steps, technique = (Step("int8_smoothquant"),), "int8_smoothquant"
        name = "int8 with SmoothQuant, OpenVINO"
        yield _lossy(name, steps, technique, "openvino", _F32, calibrates=True, rank=20)


def _dynamic(graph: Graph) -> Iterator[Candidate]:
    # Convolutions become seven times slower by it; the pass leaves them out, so it pays only
    # where matrix products are what the model is made of.
    if graph.product_share > 0.5:
        steps, technique = (Step("int8_dynamic"),), "int8_dynamic"
        yield _lossy("int8 dynamic, ONNX Runtime", steps, technique, "onnxruntime", _ORT, rank=10)


def _static(graph: Graph, goal: Goal) -> Iterator[Candidate]:
    # Attention has outliers that fixed ranges cut off: a cosine of 0.64 where 0.99 is asked.
    is_hopeless = graph.has_attention and graph.convolution_share < 0.5
    if is_hopeless and "int8_static" not in goal.techniques:
        return
    for method in ("minmax",) if goal.is_quick else ("minmax", "entropy", "percentile"):
        kind = "" if method == "minmax" else f" ({method})"
        name, rank = f"int8 static{kind}, ONNX Runtime", 22 if kind else 12
        steps, technique = (Step("int8_static", {"method": method}),), "int8_static"
        yield _lossy(name, steps, technique, "onnxruntime", _ORT, calibrates=True, rank=rank)


def _weights(graph: Graph) -> Iterator[Candidate]:
    if not graph.product_share:
        return
    technique = "weight_only_int8"
    steps = (Step("weight_only", {"bits": 8, "method": "rtn", "accuracy_level": 4}),)
    yield _lossy("8-bit weights, ONNX Runtime", steps, technique, "onnxruntime", _ORT, rank=13)
    if not graph.is_classical:
        steps = (Step("openvino_weights_int8"),)
        name = "8-bit weights and bf16, OpenVINO"
        yield _lossy(name, steps, technique, "openvino", _BF16, rank=14)


def _four_bits(graph: Graph, goal: Goal) -> Iterator[Candidate]:
    # They do not pass a gate on models that a CPU serves, so they are tried for their size only.
    asked = goal.precision == "int4" or "weight_only_int4" in goal.techniques
    for method in ("rtn", "hqq") if asked and graph.product_share else ():
        steps = (Step("weight_only", {"bits": 4, "method": method, "accuracy_level": 4}),)
        name = f"4-bit weights ({method}), ONNX Runtime"
        yield _lossy(name, steps, "weight_only_int4", "onnxruntime", _ORT, rank=16)


def _half(graph: Graph, goal: Goal) -> Iterator[Candidate]:
    # ONNX Runtime casts half-precision weights back on a CPU: half the size at the same speed.
    asked = goal.precision == "fp16" or "fp16" in goal.techniques
    if asked and not graph.is_classical:
        steps = (Step("fp16"),)
        yield _lossy("fp16, ONNX Runtime", steps, "fp16", "onnxruntime", _ORT, rank=6)


def _on_gpu(graph: Graph) -> Iterator[Candidate]:
    if graph.is_classical:
        return
    yield Candidate("CUDA, ONNX Runtime", (), "onnxruntime", _CUDA, ("graph",), rank=7)
    steps = (Step("fp16"),)
    yield _lossy("fp16, CUDA, ONNX Runtime", steps, "fp16", "onnxruntime", _CUDA, rank=8)
    fp32, fp16 = {"precision": "fp32"}, {"precision": "fp16"}
    # Where TensorRT computes in FP32 it may do so in TF32, which keeps 10 of 23 bits.
    full, half = ("tensorrt",), ("tensorrt", "fp16")
    yield Candidate("TensorRT", (), "tensorrt", fp32, full, is_lossless=False, rank=25)
    yield Candidate("fp16, TensorRT", (), "tensorrt", fp16, half, is_lossless=False, rank=26)


def _lossy(
    name: str,
    steps: tuple[Step, ...],
    technique: str,
    runtime: Runtime,
    options: Mapping[str, Any],
    *,
    calibrates: bool = False,
    rank: int,
) -> Candidate:
    techniques = (technique,)
    return Candidate(name, steps, runtime, options, techniques, False, calibrates, rank)


def _is_wanted(candidate: Candidate, goal: Goal) -> bool:
    if goal.lossless_only and not candidate.is_lossless:
        return False
    if not all(goal.allows(technique) for technique in candidate.techniques):
        return False
    return _fits_backend(candidate, goal) and _fits_precision(candidate, goal)


def _fits_backend(candidate: Candidate, goal: Goal) -> bool:
    match goal.backend:
        case "auto":
            return True
        case "cpu":
            return not _needs_gpu(candidate)
        case "cuda":
            return candidate.runtime == "onnxruntime" and _needs_gpu(candidate)
        case backend:
            return candidate.runtime == backend


def _fits_precision(candidate: Candidate, goal: Goal) -> bool:
    """Whoever names a precision wants that one, not whatever is fastest."""
    if goal.precision == "auto":
        return True
    return precision_of(candidate) == goal.precision


def precision_of(candidate: Candidate) -> str:
    """In the words of `Goal.precision`: fp32, fp16 (bf16 too), int8, int4."""
    for technique in candidate.techniques:
        if technique in ("fp16", "bf16"):
            return "fp16"
        if technique == "weight_only_int4":
            return "int4"
        if "int8" in technique or technique == "mixed_precision":
            return "int8"
    return "fp32"


def _needs_gpu(candidate: Candidate) -> bool:
    return candidate.runtime == "tensorrt" or "cuda" in candidate.options.get("providers", ())


def _outcome(candidate: Candidate, device: Device, has_data: bool) -> Outcome:
    lacking = _lacks(candidate, device)
    if not lacking and not has_data and not candidate.is_lossless:
        lacking = _NO_DATA
    return Outcome(candidate, State.SKIPPED if lacking else State.WAITING, lacking)


def _lacks(candidate: Candidate, device: Device) -> str:
    """What this machine lacks for a candidate; empty: nothing that can be told beforehand."""
    if _needs_gpu(candidate):
        return _lacks_gpu(candidate, device)
    if candidate.runtime != "openvino":
        return ""
    if not device.has("openvino"):
        return f"OpenVINO is not installed: {_OPENVINO}"
    names = {step.name for step in candidate.steps}
    if names & {"int8_smoothquant", "openvino_weights_int8"} and not device.has("nncf"):
        return f"NNCF is not installed: {_OPENVINO}"
    if candidate.options.get("precision") == "bf16" and not device.has_bf16:
        return "this CPU has no bf16 arithmetic (avx512_bf16 or amx_bf16)"
    return ""


def _lacks_gpu(candidate: Candidate, device: Device) -> str:
    if not device.gpus:
        return "there is no NVIDIA GPU on this machine"
    if candidate.runtime == "tensorrt" and device.has(*TENSORRT):
        return ""  # which builds and runs engines by itself
    if not device.has(*PROVIDER):
        return "ONNX Runtime is built for the CPU: pip install 'inflight[gpu]' without [cpu]"
    return ""
