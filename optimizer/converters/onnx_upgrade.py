"""ONNX to ONNX: models that are ONNX already, and models of an older opset than a pass needs."""

from pathlib import Path

import onnx
from onnx import version_converter

from optimizer.converters.contract import ConverterInput, ConverterResult
from optimizer.errors import ConversionError, SourceError

_FIRST_FREE_IR_VERSION = 4  # since then a weight need not be an input too


def convert(given: ConverterInput) -> ConverterResult:
    """The model itself, where it lies: it is upgraded only when a pass needs that."""
    return ConverterResult(given.source.path, opset_of(_read(given.source.path, weights=False)))


def upgraded(model: Path, target: Path, opset: int) -> bool:
    """Writes the model at a newer opset; False, and nothing written, where it has that already.

    Stale shapes of inner values are dropped, and inferred anew where that works. Weights that were
    also inputs (as before IR version 4) become weights only, so that they can be folded.

    Raises:
        SourceError: the file is no ONNX model.
        ConversionError: an operator has no form at that opset.
    """
    if opset_of(_read(model, weights=False)) >= opset:
        return False
    old = _read(model, weights=True)
    inputs, was_valid = _fed_inputs(old), _is_valid(old)
    try:
        _forget_shapes(old.graph)
        new = version_converter.convert_version(old, opset)
        _keep_inputs(new, inputs)
        new = _with_shapes(new)
        if was_valid:  # files that runtimes accept without an output's shape stay as they are
            onnx.checker.check_model(new)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ConversionError(f"'{model}' cannot be brought to opset {opset}: {reason}") from None
    onnx.save_model(new, target)
    return True


def opset_of(model: onnx.ModelProto) -> int:
    """Of the default domain; 1 where the model names none."""
    return max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=1)


def _read(path: Path, *, weights: bool) -> onnx.ModelProto:
    try:
        return onnx.load_model(path, load_external_data=weights)
    except Exception as error:
        raise SourceError(f"'{path}' is no ONNX model: {error}") from None


def _fed_inputs(model: onnx.ModelProto) -> list[str]:
    weights = {weight.name for weight in model.graph.initializer}
    return [value.name for value in model.graph.input if value.name not in weights]


def _forget_shapes(graph: onnx.GraphProto) -> None:
    del graph.value_info[:]
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                _forget_shapes(inner)


def _keep_inputs(model: onnx.ModelProto, names: list[str]) -> None:
    """The inputs that are fed, in their order; the converter makes every weight an input."""
    inputs = {value.name: value for value in model.graph.input}
    kept = [inputs[name] for name in names]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    model.ir_version = max(model.ir_version, _FIRST_FREE_IR_VERSION)


def _is_valid(model: onnx.ModelProto) -> bool:
    try:
        onnx.checker.check_model(model)
    except Exception:
        return False
    return True


def _with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except onnx.shape_inference.InferenceError:
        return model
