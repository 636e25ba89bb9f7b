"""Checks of what ONNX passes promise: a model that loads, with the inputs and outputs it had."""

from collections.abc import Sequence
from pathlib import Path

import onnxruntime

from optimizer.passes.graph_facts import facts
from optimizer.passes.onnx_files import input_types, load_graph, output_types

_EMPTY_WORDS = ("Exception from", "Check '", "FrontEnd API failed", "Model wasn't", "Summary:")
"""How lines of OpenVINO's messages begin that do not say what was wrong."""


def broken(before: Path, after: Path) -> str:
    """What of a model a pass broke; empty where it is whole."""
    return _changed_signature(before, after) or _does_not_load(after)


def not_quantized(after: Path) -> str:
    """Says so where a graph holds no 8-bit or 4-bit operator."""
    return "" if facts(after).is_quantized else "the result has no quantized operator"


def first_line(error: BaseException) -> str:
    """What a library's message of many lines says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith(_EMPTY_WORDS)]
    return (said or lines or [type(error).__name__])[0][:300]


def listed(names: Sequence[str], most: int = 5) -> str:
    """Names for a note, the first few."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _changed_signature(before: Path, after: Path) -> str:
    old, new = load_graph(before), load_graph(after)
    for kind, wanted, got in (
        ("inputs", input_types(old), input_types(new)),
        ("outputs", output_types(old), output_types(new)),
    ):
        if wanted != got:
            return f"{kind} changed: expected {dict(wanted)}, got {dict(got)} (ONNX type numbers)"
    return ""


def _does_not_load(after: Path) -> str:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        onnxruntime.InferenceSession(str(after), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no common root
        return f"the result does not load: {first_line(error)}"
    return ""
