"""Brings what a file holds into the form a model wants: names, types, the batch dimension."""

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from optimizer.data.found import LABEL_NAMES
from protos import models_pb2 as pb
from protos.tensors import DTYPES, Array
from server.commands.connection import CommandError
from server.commands.data_files import Data, Table, is_number


def fit(data: Data, wanted: Sequence[pb.TensorInfo]) -> dict[str, Array]:
    """The model's inputs.

    Raises:
        CommandError: the data lack an input, or cannot be converted without loss; one line that
            names the input, what is wanted and what there is.
    """
    named = _named(data, wanted)
    tensors = {tensor.name: tensor for tensor in wanted}
    unknown = [name for name in named if name not in tensors]
    missing = [t.name for t in wanted if not t.optional and t.name not in named]
    if unknown or missing:
        raise CommandError(
            f"--data: the model wants {_described(wanted)}; the file has"
            f" {', '.join(named) or 'nothing'}"
        )
    return {
        name: _shaped(_typed(array, tensors[name]), tensors[name]) for name, array in named.items()
    }


def _named(data: Data, wanted: Sequence[pb.TensorInfo]) -> Mapping[str, Array]:
    if isinstance(data, Table):
        by_column = dict(
            zip(data.columns, np.hsplit(data.cells, data.cells.shape[1]), strict=False)
        )
        if by_column and all(t.name in by_column for t in wanted if not t.optional):
            names = [tensor.name for tensor in wanted]
            return {name: cells for name, cells in by_column.items() if name in names}
        is_input = [_may_be_input(name, wanted) for name in data.columns]
        data = data.cells[:, is_input] if any(is_input) else data.cells
    if isinstance(data, Mapping):
        if len(data) > 1:
            data = {name: array for name, array in data.items() if _may_be_input(name, wanted)}
        if len(data) != 1 or any(tensor.name in data for tensor in wanted):
            return data
        (data,) = data.values()
    required = [tensor for tensor in wanted if not tensor.optional] or wanted
    if len(required) != 1:
        raise CommandError(
            f"--data: the model wants {_described(wanted)}; the file has one array without a name"
        )
    return {required[0].name: data}


def _may_be_input(name: str, wanted: Sequence[pb.TensorInfo]) -> bool:
    """Files that models are optimized with hold the right answers beside the inputs."""
    return name not in LABEL_NAMES or any(tensor.name == name for tensor in wanted)


def _typed(array: Array, tensor: pb.TensorInfo) -> Array:
    dtype = DTYPES[tensor.datatype]
    if array.dtype == dtype:
        return array
    if tensor.datatype == "BYTES":
        return array.astype(str).astype(object)
    numbers = _numbers(array, tensor) if array.dtype.kind in "SUT" else array
    converted = numbers.astype(dtype)
    if dtype.kind in "iub" and not np.array_equal(numbers, converted):
        raise CommandError(
            f'--data: input "{tensor.name}" wants {tensor.datatype}, the file has numbers that'
            " are not"
        )
    return converted


def _numbers(texts: Array, tensor: pb.TensorInfo) -> Array:
    """Whole numbers where all are (large ones lose nothing), else floats."""
    for kind in (np.int64, np.float64):
        try:
            return texts.astype(kind)
        except (ValueError, OverflowError):
            pass
    where, text = next((at, text) for at, text in np.ndenumerate(texts) if not is_number(text))
    raise CommandError(
        f'--data: input "{tensor.name}" wants {tensor.datatype}, the file has {str(text)!r} in'
        f" row {where[0] + 1}, column {where[-1] + 1}"
    )


def _shaped(array: Array, tensor: pb.TensorInfo) -> Array:
    """Adds the batch dimension to a single row, and folds flat rows where the sizes agree."""
    wanted = [*tensor.shape]
    if array.ndim == len(wanted) - 1 and _agrees(array.shape, wanted[1:]):
        array = array[np.newaxis]
    row = wanted[1:]
    flat = array.ndim == 2 and len(wanted) != 2 and row and min(row) > 0
    if flat and array.shape[1] == prod(row):
        array = array.reshape(-1, *row)
    return array


def _agrees(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    return all(size == want or want < 0 for size, want in zip(shape, wanted, strict=True))


def _described(wanted: Sequence[pb.TensorInfo]) -> str:
    return ", ".join(f"{t.name} {t.datatype}{[*t.shape]}" for t in wanted)
