"""Which of ONNX Runtime's graph optimization levels make a difference to a model.

Imports onnx and onnxruntime; runs in a child process.
"""

import hashlib
import tempfile
from pathlib import Path

import onnx
import onnxruntime

from optimizer.plan import LEVELS

_ORT_LEVELS = {
    "disable": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
_MAX_BYTES = 500 * 2**20  # of a model that is written once per level
_FATAL = 4


def distinct_levels(model: Path) -> tuple[str, ...]:
    """The levels whose graphs differ from each other, in the order of `LEVELS`, "all" among them.

    Of two that make the same graph, the higher one stays. All of them for a very large model.
    """
    if model.stat().st_size > _MAX_BYTES:
        return LEVELS
    seen: set[str] = set()
    found: list[str] = []
    with tempfile.TemporaryDirectory(prefix="inflight-levels-") as folder:
        for level in reversed(LEVELS):
            graph = _print(model, level, Path(folder) / "optimized.onnx")
            if graph not in seen:
                seen.add(graph)
                found.insert(0, level)
    return tuple(found)


def _print(model: Path, level: str, target: Path) -> str:
    """A hash of the operators that run, and of how they are set; not of their weights."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(
        onnxruntime.GraphOptimizationLevel, _ORT_LEVELS[level]
    )
    options.log_severity_level = _FATAL
    options.intra_op_num_threads = 1
    options.optimized_model_filepath = str(target)
    onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    graph = onnx.load(str(target), load_external_data=False).graph
    texts = sorted(_node_print(node) for node in graph.node)
    return hashlib.sha256(b"\n".join(texts)).hexdigest()


def _node_print(node: onnx.NodeProto) -> bytes:
    attributes = b"".join(sorted(attribute.SerializeToString() for attribute in node.attribute))
    return f"{node.domain}:{node.op_type}:{len(node.input)}:".encode() + attributes
