"""What is known of a neural network's tensors: names, its likely task, and rows to try it with."""

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from optimizer.data.generated import generate
from optimizer.frameworks.contract import Task
from optimizer.runner import Run
from optimizer.samples import Samples
from protos.signature import Signature, TensorSpec

_SCORES = ("logits", "logit", "probabilities", "probability", "probs", "softmax", "class_scores")
_TYPICAL_ROWS = 32  # a network has no thresholds to hit, and a row may be an image
_VOCABULARIES = (20_000, 1_000, 100)
_CHANNELS_FIRST = ("batch", "channels", "height", "width")
_CHANNELS_LAST = ("batch", "height", "width", "channels")


def task_of(signature: Signature, is_softmax: bool = False) -> Task:
    """Classification where the one output [batch, classes] says so, else "other".

    The shape alone does not tell class scores from embeddings or several targets.
    """
    if len(signature.outputs) != 1:
        return "other"
    (output,) = signature.outputs
    is_row = len(output.shape) == 2 and isinstance(output.shape[1], int) and output.shape[1] > 1
    named = output.name.lower() in _SCORES
    return "classification" if is_row and (named or is_softmax) else "other"


def dimension_name(
    tensor: str, axis: int, rank: int, taken: Collection[str], *, channels_last: bool = False
) -> str:
    """What a variable dimension most likely is; distinct from those `taken`."""
    if axis == 0:
        usual = "batch"
    elif rank == 4:
        usual = (_CHANNELS_LAST if channels_last else _CHANNELS_FIRST)[axis]
    else:
        usual = "sequence" if axis == 1 else f"length_{axis}"
    return usual if usual not in taken else f"{tensor}_{axis}"


def unique_names(paths: Sequence[Sequence[object]], taken: Sequence[str]) -> list[str]:
    """A name for every output from its place in what a model returns.

    Args:
        paths: Keys and positions that lead to it: () is a lone tensor, ("b", 0) -> "b_0".
        taken: Names of inputs, which an output may not have.
    """
    names: list[str] = []
    for path in paths:
        parts = [str(part) for part in path]
        if not parts or parts[0].isdecimal():
            parts.insert(0, "output")
        name = "_".join(parts)
        while name in names or name in taken:
            name += "_out"
        names.append(name)
    return names


def typical_rows(signature: Signature, run: Run, rows: int, seed: int) -> Samples:
    """Made-up rows that the network answers; token ids from as much of a vocabulary as it has."""
    samples = generate(signature, run, min(rows, _TYPICAL_ROWS), seed)
    names = [spec.name for spec in signature.inputs if _is_token_ids(spec)]
    generator = np.random.default_rng(seed)
    for size in _VOCABULARIES if names else ():
        inputs = dict(samples.inputs)
        for name in names:
            shape = inputs[name].shape
            inputs[name] = generator.integers(0, size, shape).astype(inputs[name].dtype)
        wider = replace(samples, inputs=inputs)
        try:
            run(wider.batch(_first_size(signature)))
        except Exception:  # whatever the framework raises for an id that it does not have
            continue
        return wider
    return samples


def _is_token_ids(spec: TensorSpec) -> bool:
    is_whole = spec.datatype in ("INT64", "INT32") and len(spec.shape) == 2
    return is_whole and "ids" in spec.name.lower() and "type" not in spec.name.lower()


def _first_size(signature: Signature) -> int:
    size = signature.inputs[0].shape[0]
    return size if isinstance(size, int) else _TYPICAL_ROWS
