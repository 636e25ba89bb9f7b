"""Transformations of a model, one file each; `contract.py` says what a pass is."""
