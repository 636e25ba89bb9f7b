"""ONNX Runtime's error texts, made fit for people: what, where, what to do.

Its texts carry source lines, C++ signatures and node dumps; clients get one short sentence, and
operators a reason they can act on. The full text goes to the log where it is caught.
"""

import re
from collections.abc import Callable
from pathlib import Path

_MAX_LENGTH = 300
_READ_LENGTH = 1000  # what follows is dumps; the patterns below are slow on long texts
_STATUS = re.compile(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ")
_SOURCE_LINE = re.compile(r"(?:/\S*/)?\w+\.(?:cc|h|cpp|cu|cuh):\d+ ")
_CPP_SIGNATURE = re.compile(
    r"(?:[\w:*&<>{}, ]+ )?[\w:~<>{}]+::(?:operator\(\)|[\w~]+)\((?:[^()]|\([^()]*\))*\)"
    r"(?: const)?(?: \[with [^\]]*\])? "
)
_NODE = re.compile(r"Non-zero status code returned while running (\w+) node\.[^']*'[^']*' *")
_STATUS_MESSAGE = re.compile(r"^Status Message: ")
# What CUDA reports goes on with the machine's name, a source file and an expression.
_CUDA_DETAILS = re.compile(r" *; GPU=.*$")
_CUDA_FAILURE = re.compile(r"(?:CUDA|CUBLAS|CUDNN) failure \d+: .*", re.IGNORECASE)
_OPTION = re.compile(r"(?:Unknown|Failed to parse) provider option.*")
_DRIVER_TOO_OLD = "driver version is insufficient"


def plain_text(error: Exception) -> str:
    """The error in one line, without codes, source lines and C++ signatures."""
    text = _STATUS.sub("", " ".join(str(error).split())[:_READ_LENGTH] + " ")
    text = _CUDA_DETAILS.sub("", text)
    node = _NODE.search(text)
    if node is not None:
        text = text[node.end() :]
    text = _CPP_SIGNATURE.sub("", _SOURCE_LINE.sub("", _STATUS_MESSAGE.sub("", text))).strip()
    if node is not None:
        text = f"operator {node.group(1)}: {text}"
    return text if len(text) <= _MAX_LENGTH else text[: _MAX_LENGTH - 1] + "…"


def start_reason(error: Exception) -> str:
    """Why a provider did not start: what CUDA says, or which option of its own is wrong."""
    text = plain_text(error)
    found = _CUDA_FAILURE.search(text) or _OPTION.search(text)
    reason = text if found is None else found[0]
    if _DRIVER_TOO_OLD in reason:
        reason += " (CUDA 13 needs NVIDIA's driver 580 or later)"
    return reason


def load_reason(path: Path, error: Exception, runtime: str) -> str:
    """Why a model did not open and what to do; `runtime` is "ONNX Runtime 1.31.1"."""
    text = " ".join(str(error).split())
    for pattern, explain in _LOAD_REASONS:
        match = re.search(pattern, text)
        if match is not None:
            return f"'{path.name}': {explain(match, runtime)}"
    return (
        f"'{path.name}': {runtime} cannot open it: {plain_text(error)}; check it with"
        " onnx.checker.check_model(path, full_check=True) and export it again"
    )


Explain = Callable[[re.Match[str], str], str]

_LOAD_REASONS: tuple[tuple[str, Explain], ...] = (
    (
        r"INVALID_PROTOBUF|No graph was found",
        lambda match, runtime: "not an ONNX model, or cut off; copy or export it again",
    ),
    (
        r"No Op registered for (\S+) with domain_version of (\d+)",
        lambda match, runtime: (
            f"operator '{match[1]}' does not exist in opset {match[2]} as {runtime} knows it;"
            " export the model with another opset, or without this operator"
        ),
    ),
    (
        r"([\w.]*):(\w+)\(-?\d+\) is not a registered function",
        lambda match, runtime: (
            f"custom operator '{match[2]}' of domain '{match[1]}' is unknown; libraries of custom"
            " operators are not loaded, so export the model with standard operators"
        ),
    ),
    (
        r"No opset import for domain '([^']*)'",
        lambda match, runtime: (
            f"it uses operators of domain '{match[1]}' without importing an operator set for it;"
            " export it again"
        ),
    ),
    (
        r"Opset (\d+) is under development.*support for domain (\S+) is till opset (\d+)",
        lambda match, runtime: (
            f"it needs opset {match[1]} of {match[2]}, {runtime} knows up to {match[3]}; export it"
            f" with opset {match[3]} or lower, or install a newer onnxruntime"
        ),
    ),
    (
        r"Unsupported model IR version: (\d+), max supported IR version: (\d+)",
        lambda match, runtime: (
            f"it has ONNX IR version {match[1]}, {runtime} reads up to {match[2]}; save it with an"
            " older onnx package, or install a newer onnxruntime"
        ),
    ),
    (
        r'External data path does not exist: "?([^"]+)',
        lambda match, runtime: (
            f"its weights are in '{Path(match[1].strip()).name}', which is missing; put it beside"
            " the model"
        ),
    ),
    (
        r"External initializer: (\S+) .*out of bounds",
        lambda match, runtime: (
            f"its external data is too short to hold weight '{match[1]}'; copy that file again"
        ),
    ),
    (
        r"Could not find an implementation for (\w+)\((\d+)\)",
        lambda match, runtime: (
            f"{runtime} has no kernel for operator '{match[1]}' (opset {match[2]}) with these"
            " datatypes on this device; cast its inputs to float32 or export with another opset"
        ),
    ),
)


def unsupported_type(kind: str, name: str, type_text: str) -> str:
    """Why a model with this input or output cannot be served, and how to export it again."""
    what = f"{kind} '{name}' is {type_text}"
    if "map(" in type_text:
        return (
            f"{what}, and requests carry tensors only; convert the classifier with ZipMap off"
            ' (skl2onnx: options={"zipmap": False}; onnxmltools: zipmap=False)'
        )
    if not type_text.startswith("tensor("):
        return f"{what}, and requests carry tensors only; export the model so that it is a tensor"
    return (
        f"{what}, which has no datatype in the Open Inference Protocol; cast it in the model, to"
        " float32 for example"
    )
