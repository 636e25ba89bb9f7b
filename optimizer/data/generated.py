"""Rows made up from a signature: for crashes and wrong arithmetic, never for accuracy."""

from optimizer.errors import DataError
from optimizer.example_inputs import RECIPES, find, make
from optimizer.runner import Run
from optimizer.samples import Samples
from protos.signature import Signature


def generate(signature: Signature, run: Run, rows: int, seed: int) -> Samples:
    """So many rows of a kind that the model answers with numbers.

    `run` is tried with one row (or as many as dimension 0 is fixed to), a few times at most. The
    same arguments give the same rows.

    Raises:
        DataError: the model refused everything; with its first reason.
    """
    first = signature.inputs[0].shape[:1] if signature.inputs else ()
    at_once = first[0] if first and isinstance(first[0], int) else 1
    recipe, reason = find(run, signature, RECIPES, at_once)
    if recipe is None:
        raise DataError(f"the model answers no made-up input, so give real rows: {reason}")
    inputs = make(signature, recipe, rows, seed)
    return Samples(inputs, None, False, f"{rows:,} rows made up from the signature")
