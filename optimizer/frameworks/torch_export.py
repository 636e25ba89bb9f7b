"""Turns a PyTorch module into an exported program with as many variable dimensions as it allows.

A module does not say what its inputs are: an example does. Which of its dimensions may vary is
tried, most freedom first, and checked against the module itself at other sizes.
"""

import copy
import functools
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from optimizer.errors import SourceError
from optimizer.frameworks.torch_signature import signature_of
from optimizer.quiet import quiet
from protos.signature import TensorSpec

Arguments = tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]  # positional and named
_ALL_AXES = (0, 1, 2)  # the batch, and a length, which is axis 2 after channels
_BATCH_AXIS = (0,)
_TOLERANCE = 1e-3  # relative, and absolute: kernels round differently at another size


def exported(
    module: torch.nn.Module, example: Arguments
) -> tuple[ExportedProgram, tuple[str, ...]]:
    """The program, and which of its dimensions stay fixed and why.

    The module itself is left as it is, in its mode and on its device.

    Raises:
        SourceError: torch.export cannot follow the forward.
    """
    copied = _plain(copy.deepcopy(module).cpu().eval())
    reason = ""
    with quiet():
        for freedom in (_ALL_AXES, _BATCH_AXIS, ()):
            try:
                # torch takes a dimension of size 1 for a constant.
                given = _with_rows(example, 2) if freedom else example
                program = _export(copied, given, freedom)
                _check(copied, program, given)
                return program, tuple(_notes(program, given, reason))
            except Exception as error:
                reason = " ".join(str(error).split())[:200]
    raise SourceError(f"{type(module).__name__} cannot be exported: {reason}")


def _plain(module: torch.nn.Module) -> torch.nn.Module:
    """The module with an answer of dictionaries and lists only.

    Other containers are classes that whoever loads the file would have to import.
    """
    forward = module.forward

    @functools.wraps(forward)
    def plain_forward(*positional: Any, **named: Any) -> Any:
        return _as_plain(forward(*positional, **named))

    module.forward = plain_forward
    return module


def _as_plain(answer: Any) -> Any:
    if hasattr(answer, "_asdict"):
        answer = answer._asdict()
    if isinstance(answer, Mapping):
        return {str(k): _as_plain(value) for k, value in answer.items() if value is not None}
    if isinstance(answer, list | tuple):
        return [_as_plain(value) for value in answer]
    return answer


def _export(
    module: torch.nn.Module, example: Arguments, freedom: tuple[int, ...]
) -> ExportedProgram:
    rows = _rows(example)
    batch = Dim("batch")  # one for all: an error where the forward fixes it

    def axes(tensor: torch.Tensor) -> dict[int, Any]:
        free: dict[int, Any] = {0: batch} if 0 in freedom and _has_rows(tensor, rows) else {}
        if _is_sequence(tensor):  # fixed where the forward fixes it
            free |= dict.fromkeys(freedom[1 : tensor.ndim], Dim.AUTO)
        return free

    positional, named = example
    bound = inspect.signature(module.forward).bind(*positional, **named).arguments
    shapes = pytree.tree_map(axes, dict(bound))
    return torch.export.export(module, positional, named, dynamic_shapes=shapes)


def _check(module: torch.nn.Module, program: ExportedProgram, example: Arguments) -> None:
    """Raises ValueError where the program answers otherwise than the module at other sizes."""
    run = program.module()
    specs = signature_of(program).inputs
    for rows in (1, 3):
        positional, named = _resized(example, specs, rows)
        with torch.inference_mode():
            wanted = pytree.tree_leaves(module(*positional, **named))
            found = pytree.tree_leaves(run(*positional, **named))
        if not all(map(_is_close, wanted, found)):
            raise ValueError(f"at a batch of {rows} the program answers otherwise than the module")


def _is_close(wanted: Any, found: Any) -> bool:
    if not isinstance(wanted, torch.Tensor):
        return bool(wanted == found)
    if wanted.shape != found.shape or wanted.dtype != found.dtype:
        return False
    return torch.allclose(wanted.double(), found.double(), _TOLERANCE, _TOLERANCE, equal_nan=True)


def _resized(example: Arguments, specs: tuple[TensorSpec, ...], rows: int) -> Arguments:
    """The example with other sizes of the dimensions that vary."""
    leaves, structure = pytree.tree_flatten(example)
    for index, spec in enumerate(specs):
        for axis in (axis for axis, size in enumerate(spec.shape) if isinstance(size, str)):
            length = leaves[index].shape[axis]
            other = rows if axis == 0 else length - 1 if length > 2 else length + 1
            leaves[index] = leaves[index].index_select(axis, torch.arange(other) % length)
    positional, named = pytree.tree_unflatten(leaves, structure)
    return positional, named


def _notes(program: ExportedProgram, example: Arguments, reason: str) -> Iterator[str]:
    """What stays fixed although it looked as if it could vary."""
    because = f": {reason}" if reason else ", the forward fixes it"
    leaves = pytree.tree_leaves(example)
    for tensor, spec in zip(leaves, signature_of(program).inputs, strict=True):
        if _has_rows(tensor, _rows(example)) and isinstance(spec.shape[0], int):
            yield f"input '{spec.name}': the batch stays at {spec.shape[0]}{because}"
        elif _is_sequence(tensor) and all(isinstance(size, int) for size in spec.shape[1:]):
            yield f"input '{spec.name}': the length stays at {spec.shape[1]}{because}"


def _rows(example: Arguments) -> int:
    """The batch of the example: dimension 0 of its first tensor that has one."""
    tensors = pytree.tree_leaves(example)
    return next((len(tensor) for tensor in tensors if tensor.ndim), 0)


def _with_rows(example: Arguments, least: int) -> Arguments:
    rows = _rows(example)
    if not 0 < rows < least:
        return example
    indices = torch.arange(least) % rows
    widened: Arguments = pytree.tree_map(
        lambda tensor: tensor[indices] if _has_rows(tensor, rows) else tensor, example
    )
    return widened


def _has_rows(tensor: torch.Tensor, rows: int) -> bool:
    return tensor.ndim > 0 and len(tensor) == rows


def _is_sequence(tensor: torch.Tensor) -> bool:
    """Token ids or masks [batch, length], or vectors [batch, length, features]."""
    rank = 3 if tensor.is_floating_point() else 2
    return tensor.ndim == rank and tensor.shape[1] > 1
