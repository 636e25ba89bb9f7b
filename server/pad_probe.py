"""May rows of different lengths share a batch, padded on the right? Tried on the model itself.

The model must hide the padding itself, by a mask input for example; the probe runs two requests
of different lengths alone, then padded to one batch, and compares.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from optimizer.example_inputs import Recipe, make
from optimizer.runner import Run
from protos.signature import Signature
from protos.tensors import Array
from server.batch_probe import Tolerance, compare
from server.probe import PadPlan

Arrays = Mapping[str, Array]
Axes = tuple[tuple[str, int], ...]
_LONG, _SHORT = 16, 9  # the two lengths that are tried


def pad_plan(
    run: Run, signature: Signature, recipe: Recipe, mask: str | None, tolerance: Tolerance
) -> tuple[PadPlan | None, str]:
    """How to pad, or None and why not; `mask` is the mask input's name where somebody said it.

    The model must be batchable.
    """
    if mask is not None and all(spec.name != mask for spec in signature.inputs):
        return None, f"pad_mask: the model has no input '{mask}'"
    found = _mask(signature) if mask is None else mask
    axes = _padded_axes(signature, found)
    if not axes:
        return None, "no input has a variable dimension beside the batch"
    try:
        return _try_padding(
            run, signature, replace(recipe, given={}), PadPlan(axes, (), found), tolerance
        )
    except Exception as error:
        return None, f"the model fails on padded rows: {error}"


def _mask(signature: Signature) -> str:
    """The input named like a mask that has one position per element; empty: there is none."""
    for spec in signature.inputs:
        if "mask" in spec.name.lower() and len(spec.shape) == 2 and isinstance(spec.shape[1], str):
            return spec.name
    return ""


def _padded_axes(signature: Signature, mask: str) -> Axes:
    """All axes of the dimension that varies: the mask's, else the one most inputs have."""
    variable = {
        (spec.name, axis): size
        for spec in signature.inputs
        for axis, size in enumerate(spec.shape)
        if axis and isinstance(size, str) and not spec.optional
    }
    if not variable:
        return ()
    symbol = variable.get((mask, 1)) or Counter(variable.values()).most_common(1)[0][0]
    if "[" in symbol:  # a dimension without a name: dimensions 1 go together
        return tuple(place for place in variable if place[1] == 1)
    return tuple(place for place, size in variable.items() if size == symbol)


def _try_padding(
    run: Run, signature: Signature, recipe: Recipe, plan: PadPlan, tolerance: Tolerance
) -> tuple[PadPlan | None, str]:
    long, short = (_request(signature, recipe, plan, length) for length in (_LONG, _SHORT))
    alone = run(long), run(short)
    plan = replace(plan, outputs=_cropped_axes(*alone))
    together = run({name: _joined(long[name], short[name]) for name in long})
    for row, expected in enumerate(alone):
        actual = {name: array[row : row + 1] for name, array in together.items()}
        if row:
            actual = {name: _crop(array, name, plan) for name, array in actual.items()}
        finding = compare(actual, expected, expected, tolerance)
        if finding is not None:
            return None, f"padding changes the answer: {finding.text}{_hint(plan)}"
    return plan, ""


def _hint(plan: PadPlan) -> str:
    if plan.mask:
        return f"; the model does not hide what input '{plan.mask}' masks with 0"
    return "; the model has no mask input (none is named like one: say which by pad_mask)"


def _request(signature: Signature, recipe: Recipe, plan: PadPlan, length: int) -> dict[str, Array]:
    sizes = {**recipe.sizes, **dict.fromkeys(plan.inputs, length)}
    inputs = make(signature, replace(recipe, sizes=sizes), 1, seed=length)
    if plan.mask:
        inputs[plan.mask] = np.ones_like(inputs[plan.mask])
    return inputs


def _cropped_axes(long: Arrays, short: Arrays) -> Axes:
    """The output axes that follow the input's length."""
    return tuple(
        (name, axis)
        for name, array in long.items()
        for axis, size in enumerate(array.shape)
        if size == _LONG and short[name].shape[axis] == _SHORT
    )


def _joined(long: Array, short: Array) -> Array:
    """Two one-row arrays as one; the shorter is padded with zeros (empty texts)."""
    joined = np.zeros((2, *long.shape[1:]), long.dtype)
    if long.dtype == object:
        joined.fill(b"")
    joined[0] = long[0]
    place: tuple[int | slice, ...] = (1, *(slice(size) for size in short.shape[1:]))
    joined[place] = short[0]
    return joined


def _crop(array: Array, name: str, plan: PadPlan) -> Array:
    for output, axis in plan.outputs:
        if output == name:
            array = array[(slice(None),) * axis + (slice(_SHORT),)]
    return array
