"""Runs many rows through a model a batch at a time, and puts the answers together again."""

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, repeat

import numpy as np

from optimizer.errors import DataError
from optimizer.runner import Run
from optimizer.samples import Samples
from protos.tensors import Array

ROWS = 32
"""Of one batch, where a model takes any number."""


def run_in_batches(
    run: Run,
    samples: Samples,
    rows: int = ROWS,
    *,
    limit_s: float = float("inf"),
    least: int = 0,
    first: Sequence[int] = (),
) -> dict[str, Array]:
    """All outputs by name, for all rows; for as many as `limit_s` allows, but at least `least`.

    A last batch that is not full is filled up with rows from the begin, whose answers are dropped:
    the model may take no other number of rows. `first`: the sizes of the first batches, where they
    are others.

    Raises:
        DataError: an output's dimension 0 does not follow the rows.
    """
    sizes = chain(first, repeat(rows))
    parts = [*_answers(run, samples, sizes, limit_s, least)]
    return {name: _joined(name, [part[name] for part in parts]) for name in parts[0]}


def _answers(
    run: Run, samples: Samples, sizes: Iterator[int], limit_s: float, least: int
) -> Iterator[Mapping[str, Array]]:
    begin, start = time.monotonic(), 0
    while start < samples.rows:
        if start >= least and start and time.monotonic() - begin > limit_s:
            return
        rows = next(sizes)
        outputs = run(samples.batch(rows, start))
        n_rows = min(rows, samples.rows - start)
        for name, array in outputs.items():
            if array.ndim == 0 or len(array) != rows:
                raise DataError(
                    f"output '{name}': expected {rows} rows for as many of input, got shape"
                    f" {list(array.shape)}"
                )
        yield {name: array[:n_rows] for name, array in outputs.items()}
        start += rows


def _joined(name: str, parts: list[Array]) -> Array:
    shapes = {part.shape[1:] for part in parts}
    if len(shapes) > 1:
        raise DataError(
            f"output '{name}': its shape depends on the values of the rows: {sorted(shapes)}"
        )
    return np.concatenate(parts)
