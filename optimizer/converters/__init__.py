"""Conversions to ONNX; one file per framework, `contract.py` says what a converter is."""

import importlib
from typing import Any, cast

from optimizer.converters.contract import ConverterInput, ConverterResult
from optimizer.extras import needed_by

_MODULES = {
    "onnx": "onnx_upgrade",
    "sklearn": "sklearn_to_onnx",
    "xgboost": "xgboost_to_onnx",
    "lightgbm": "lightgbm_to_onnx",
    "torch": "torch_to_onnx",
    "tensorflow": "keras_to_onnx",
}


def convert(given: ConverterInput) -> ConverterResult:
    """Converts a model to ONNX; an ONNX model is its own result, where it lies.

    Imports the model's framework: for child processes.

    Raises:
        ConversionError: it cannot be converted.
        SourceError: it cannot be read.
        Unavailable: a library is not installed.
    """
    framework = given.source.framework
    with needed_by(f"'{given.source.path}'", framework):
        module: Any = importlib.import_module(f"optimizer.converters.{_MODULES[framework]}")
        return cast(ConverterResult, module.convert(given))
