"""Conversions to ONNX; one file per framework, `contract.py` says what a converter is."""
