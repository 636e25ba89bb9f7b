"""PyTorch: exported programs (.pt2), and modules that become one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import TensorArgument
from torch.utils import _pytree as pytree

from optimizer.errors import SourceError
from optimizer.frameworks.contract import Task
from optimizer.frameworks.network import task_of, typical_rows
from optimizer.frameworks.torch_export import exported
from optimizer.frameworks.torch_signature import arguments_of, outputs_of, signature_of
from optimizer.quiet import quiet
from optimizer.samples import Samples
from optimizer.source import SourceModel
from protos.tensors import DTYPES, Array

_NOTES = "inflight_notes.txt"  # beside the program, in its archive


class TorchModel:
    """An exported program, run by PyTorch on the CPU."""

    def __init__(self, program: ExportedProgram) -> None:
        self.signature = signature_of(program)
        self.task: Task = task_of(self.signature, _ends_in_softmax(program))
        self._module = program.module()
        self._arguments = list(arguments_of(program))
        self._structure = program.call_spec.in_spec
        self._places = [place for place, _ in outputs_of(program)]

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        leaves = [
            _tensor(inputs[value.name]) if isinstance(value, TensorArgument) else value.value
            for value in self._arguments
        ]
        positional, named = pytree.tree_unflatten(leaves, self._structure)
        with torch.inference_mode():
            answer = pytree.tree_leaves(self._module(*positional, **named))
        tensors = [answer[place] for place in self._places]
        names = [spec.name for spec in self.signature.outputs]
        return {name: _array(tensor) for name, tensor in zip(names, tensors, strict=True)}

    def typical_rows(self, rows: int, seed: int) -> Samples:
        return typical_rows(self.signature, self.predict, rows, seed)


def load(path: Path, samples: Samples | None = None) -> TorchModel:
    """A .pt2 file as `torch.export.save` writes it.

    It can run code of whoever wrote it: torch evaluates shapes, unpickles parts of it and calls
    any function of its own that the graph names.

    Raises:
        SourceError: it is none, or has arguments that are no tensors.
    """
    return TorchModel(load_program(path)[0])


def load_program(path: Path) -> tuple[ExportedProgram, tuple[str, ...]]:
    """As `load`, for what converts it; with the notes that `save` left in the file."""
    notes = {_NOTES: ""}
    try:
        with quiet():
            program = torch.export.load(path, extra_files=notes)
        return program, tuple(str(notes[_NOTES] or "").splitlines())
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise SourceError(f"'{path}' is no exported program of torch.export: {reason}") from None


def save(model: object, example: Any, folder: Path) -> SourceModel:
    """Writes model.pt2 from a module and an example of its inputs.

    Dimension 0 of the inputs becomes the batch, dimension 1 of what looks like a sequence its
    length, where the forward allows it; what it does not is noted in the file for reports.

    Args:
        model: A torch.nn.Module, or a program that is exported already.
        example: An array or tensor, several of them in order, or by the forward's parameters.
        folder: Exists.

    Raises:
        SourceError: torch.export cannot follow the forward.
    """
    path = folder / "model.pt2"
    notes: tuple[str, ...] = ()
    if isinstance(model, ExportedProgram):
        program = model
    elif isinstance(model, torch.nn.Module):
        program, notes = exported(model, _arranged(example))
    else:
        raise SourceError(f"{type(model).__name__} is no torch.nn.Module")
    with quiet():
        torch.export.save(program, path, extra_files={_NOTES: "\n".join(notes)})
    return SourceModel(path, "torch")


def _arranged(example: Any) -> tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
    """An example as positional and named arguments."""
    if example is None:
        raise SourceError("a torch.nn.Module needs an example of its inputs: an array, or arrays")
    if isinstance(example, Mapping):
        return (), {name: _as_tensor(array) for name, array in example.items()}
    if isinstance(example, list | tuple):
        return tuple(_as_tensor(array) for array in example), {}
    return (_as_tensor(example),), {}


def _as_tensor(array: Any) -> torch.Tensor:
    return array.detach().cpu() if isinstance(array, torch.Tensor) else _tensor(np.asarray(array))


def _ends_in_softmax(program: ExportedProgram) -> bool:
    nodes = {node.name: node for node in program.graph.nodes}
    return any("softmax" in str(nodes[name].target) for _, name in outputs_of(program))


def _tensor(array: Array) -> torch.Tensor:
    """Shares memory where torch can: it takes no read-only and no strided arrays."""
    owned = np.require(array, requirements=["C", "W"])
    if owned.dtype == DTYPES["BF16"]:
        return torch.from_numpy(owned.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(owned)


def _array(tensor: torch.Tensor) -> Array:
    whole = tensor.detach().cpu().contiguous()
    if whole.dtype == torch.bfloat16:
        return whole.view(torch.int16).numpy().view(DTYPES["BF16"])
    array: Array = whole.numpy()
    return array
