"""Reads ONNX into OpenVINO and writes OpenVINO's files; NNCF without its telemetry."""

import sys
from collections.abc import Mapping
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any

# Both libraries report every use to a service on the internet unless this package is missing.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

import openvino  # noqa: E402

from optimizer.errors import PassError  # noqa: E402
from optimizer.passes.graph_facts import facts  # noqa: E402
from optimizer.passes.promises import first_line  # noqa: E402

_TYPES = {
    "FLOAT": "f32",
    "FLOAT16": "f16",
    "BFLOAT16": "bf16",
    "DOUBLE": "f64",
    "BOOL": "boolean",
    "INT8": "i8",
    "INT16": "i16",
    "INT32": "i32",
    "INT64": "i64",
    "UINT8": "u8",
    "UINT16": "u16",
    "UINT32": "u32",
    "UINT64": "u64",
}


def refusal(model: Path) -> str:
    """Why OpenVINO cannot take an ONNX model; empty where it probably can."""
    found = facts(model)
    if found.is_classical:
        return "its operators of ai.onnx.ml are not in OpenVINO"
    texts = [name for name, kind in {**found.inputs, **found.outputs}.items() if kind == "STRING"]
    return f"'{texts[0]}' holds strings, which OpenVINO does not take" if texts else ""


def quantization_refusal(model: Path) -> str:
    """Why an ONNX model cannot be quantized with OpenVINO; empty where it probably can."""
    found = facts(model)
    if found.is_quantized:
        return "it is quantized already"
    if not found.quantizable:
        return "it has no float weights to quantize"
    return refusal(model)


def read(model: Path) -> Any:
    """An ONNX model as openvino.Model.

    Raises:
        PassError: it has operators that OpenVINO lacks.
    """
    try:
        return openvino.Core().read_model(model)
    except RuntimeError as error:
        raise PassError(f"OpenVINO cannot read '{model.name}': {first_line(error)}") from None


def write(model: Any, folder: Path, *, compress: bool) -> Path:
    """Writes model.xml and its weights beside it; `compress`: weights in half precision."""
    file = folder / "model.xml"
    openvino.save_model(model, file, compress_to_fp16=compress)
    return file


def broken(before: Path, after: Path) -> str:
    """What of an ONNX model its OpenVINO form lacks; empty where it is whole."""
    try:
        model = openvino.Core().read_model(after)
    except RuntimeError as error:
        return f"the result does not load: {first_line(error)}"
    wanted = facts(before)
    lacking = _misfit("input", wanted.inputs, model.inputs)
    return lacking or _misfit("output", wanted.outputs, model.outputs)


def constants(file: Path) -> dict[str, int]:
    """Numbers in constants of a saved model, by element type: "i8", "f16"."""
    counts: dict[str, int] = {}
    for node in openvino.Core().read_model(file).get_ops():
        if node.get_type_name() == "Constant":
            kind = node.get_element_type().get_type_name()
            counts[kind] = counts.get(kind, 0) + prod(node.get_output_shape(0))
    return counts


def count_operators(file: Path, kind: str) -> int:
    """Nodes of one type in a saved model."""
    nodes = openvino.Core().read_model(file).get_ops()
    return sum(node.get_type_name() == kind for node in nodes)


def nncf() -> ModuleType:
    """The library; takes more than a second to import."""
    import nncf  # noqa: PLC0415

    return nncf  # type: ignore[no-any-return]


def _misfit(kind: str, wanted: Mapping[str, str], ports: Any) -> str:
    if len(ports) != len(wanted):
        return f"expected {len(wanted)} {kind}s, got {len(ports)}"
    for name, element_type in wanted.items():
        port = next((port for port in ports if name in port.get_names()), None)
        if port is None:
            return f"{kind} '{name}' is missing"
        got = port.get_element_type().get_type_name()
        if got != _TYPES.get(element_type):
            return f"{kind} '{name}': expected {_TYPES.get(element_type)}, got {got}"
    return ""
