"""Inputs that a model is likely to accept, made from its signature: for probes and warm-up.

Nobody tells what a model's inputs mean, so these are guesses, tried in the order of `RECIPES`
until the model answers. Whole numbers are 0 and 1 at first: valid as token ids, masks, types and
labels alike.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from optimizer.runner import Run
from protos.signature import Signature, TensorSpec
from protos.tensors import DTYPES, Array

_IMAGE_SYMBOLS = ("height", "width")
_CHANNELS = (1, 3, 4)


@dataclass(frozen=True, slots=True)
class Recipe:
    """One guess: lengths of the variable dimensions, and what the values are like."""

    sequence: int = 16  # dimensions that do not look like an image's
    image: int = 224  # height and width
    leading: int = 1  # dimension 0 where it is not known to be the batch
    positive: bool = False  # floats in [0.5, 1.5), whole numbers 1 and 2, numerals for words
    sizes: Mapping[tuple[str, int], int] = field(default_factory=dict)  # (input, axis) -> length
    given: Mapping[str, Array] = field(default_factory=dict)  # whole inputs, their rows repeated


RECIPES = (
    Recipe(),
    Recipe(sequence=32, image=64),
    Recipe(positive=True),
    Recipe(sequence=128, image=320),
    Recipe(sequence=1, image=32),
    Recipe(sequence=4, image=128, leading=4, positive=True),
    Recipe(sequence=2, image=32, leading=2),
    Recipe(sequence=1, image=1, positive=True),
)


def make(signature: Signature, recipe: Recipe, rows: int | None, seed: int = 0) -> dict[str, Array]:
    """One request of so many rows, all different; None: dimension 0 is no batch.

    Optional inputs are left out. The same arguments give the same values.
    """
    lengths = _lengths(signature, recipe)
    generator = np.random.default_rng(seed)
    inputs: dict[str, Array] = {}
    for spec in signature.inputs:
        if spec.optional:
            continue
        shape = [size if isinstance(size, int) else lengths[size] for size in spec.shape]
        for axis in range(len(shape)):
            shape[axis] = recipe.sizes.get((spec.name, axis), shape[axis])
        if rows is not None:
            shape[0] = rows
        given = recipe.given.get(spec.name)
        if given is None:
            inputs[spec.name] = values(spec.datatype, shape, generator, recipe.positive)
        else:
            inputs[spec.name] = given if rows is None else given[np.arange(rows) % len(given)]
    return inputs


def find(
    run: Run, signature: Signature, recipes: Sequence[Recipe], rows: int | None
) -> tuple[Recipe | None, str]:
    """The first recipe the model answers with numbers; or None and why the first one failed.

    A recipe whose answer is NaN throughout is taken only if no other does better.
    """
    second_best: Recipe | None = None
    first_error = ""
    for recipe in recipes:
        try:
            outputs = run(make(signature, recipe, rows))
        except Exception as error:
            first_error = first_error or str(error)
            continue
        if not _is_all_nan(outputs):
            return recipe, ""
        second_best = second_best or recipe
    return second_best, first_error


def values(
    datatype: str, shape: Sequence[int], generator: np.random.Generator, positive: bool = False
) -> Array:
    """Random values of a datatype; a row of whole numbers begins with 1, so no mask is empty."""
    dtype = DTYPES[datatype]
    if datatype in ("FP16", "BF16", "FP32", "FP64"):
        if positive:
            return (generator.random(shape) + 0.5).astype(dtype)
        return generator.standard_normal(shape).astype(dtype)
    if datatype == "BYTES":
        return _texts(shape, generator, positive)
    bits = generator.integers(0, 2, shape)
    if positive and datatype != "BOOL":
        return np.asarray(bits + 1).astype(dtype)
    if bits.ndim > 1 and bits.shape[-1] > 1:
        bits[..., 0] = 1
    return np.asarray(bits).astype(dtype)


def _texts(shape: Sequence[int], generator: np.random.Generator, numerals: bool) -> Array:
    numbers = np.asarray(generator.integers(0, 10_000, shape))
    texts = np.empty(numbers.size, dtype=object)
    form = "%d" if numerals else "word %d"
    texts[:] = [(form % number).encode() for number in numbers.ravel()]
    return texts.reshape(numbers.shape)


def _lengths(signature: Signature, recipe: Recipe) -> dict[str, int]:
    """A length for every symbolic dimension; "past + 1" follows from the length of "past"."""
    lengths: dict[str, int] = {}
    sums: list[str] = []
    for spec in signature.inputs:
        for axis, size in enumerate(spec.shape):
            if isinstance(size, str) and "+" in size:
                sums.append(size)
            elif isinstance(size, str):
                lengths.setdefault(size, recipe.sizes.get((spec.name, axis), 0))
                lengths[size] = lengths[size] or _length(spec, axis, size, recipe)
    for size in sums:
        terms = [term.strip() for term in size.split("+")]
        lengths[size] = sum(
            int(t) if t.isdecimal() else lengths.get(t, recipe.sequence) for t in terms
        )
    return lengths


def _length(spec: TensorSpec, axis: int, symbol: str, recipe: Recipe) -> int:
    if axis == 0:
        return recipe.leading
    if symbol.lower() in ("h", "w") or any(word in symbol.lower() for word in _IMAGE_SYMBOLS):
        return recipe.image
    if len(spec.shape) == 4 and spec.datatype in ("FP32", "FP16", "BF16", "FP64", "UINT8"):
        channels_last = spec.shape[3] in _CHANNELS and not isinstance(spec.shape[1], int)
        if axis == (3 if channels_last else 1):
            return 3
        return recipe.image
    return recipe.sequence


def _is_all_nan(outputs: Mapping[str, Array]) -> bool:
    floats = [array for array in outputs.values() if _is_float(array) and array.size]
    if not floats or len(floats) < len(outputs):
        return False
    return all(bool(np.isnan(array.astype(np.float64)).all()) for array in floats)


def _is_float(array: Array) -> bool:
    return array.dtype.kind == "f" or array.dtype == DTYPES["BF16"]
