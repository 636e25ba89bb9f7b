"""The common end of the conversions of fitted models: try forms until one is the same model."""

from collections.abc import Callable, Sequence

import onnx

from optimizer.converters.contract import ConverterInput, ConverterResult
from optimizer.converters.graph_ends import adopt, opset_of, raise_opset
from optimizer.converters.parity import ensure_same
from optimizer.errors import ConversionError
from optimizer.frameworks.contract import NativeModel

Attempt = Callable[[], onnx.ModelProto]


def finish(
    given: ConverterInput, native: NativeModel, attempts: Sequence[Attempt]
) -> ConverterResult:
    """Writes the first form that answers as the original does; likely ones come first.

    Without an opener none can be run: then it is the first one that can be made.

    Raises:
        ConversionError: none does; says why of the first.
    """
    first: ConversionError | None = None
    for attempt in attempts:
        try:
            return _write(given, native, attempt)
        except ConversionError as error:
            first = first or error
    assert first is not None, "at least one attempt"
    raise first


def _write(given: ConverterInput, native: NativeModel, attempt: Attempt) -> ConverterResult:
    model = raise_opset(adopt(attempt(), native.signature), given.opset)
    onnx.save_model(model, given.target)
    if given.opener is not None:
        ensure_same(native, given.target, given.opener, given.samples)
    reached = opset_of(model)
    note = f"opset {given.opset} asked, {reached} made: the converter has no other form"
    return ConverterResult(given.target, reached, (note,) if reached != given.opset else ())
