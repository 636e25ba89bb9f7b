"""What an exported PyTorch program takes and returns, read from the file alone."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind, TensorArgument
from torch.utils import _pytree as pytree

from optimizer.errors import SourceError
from optimizer.frameworks.network import dimension_name, unique_names
from protos.signature import Signature, TensorSpec
from protos.tensors import DTYPES

_DATATYPES = {
    torch.bool: "BOOL",
    torch.uint8: "UINT8",
    torch.uint16: "UINT16",
    torch.uint32: "UINT32",
    torch.uint64: "UINT64",
    torch.int8: "INT8",
    torch.int16: "INT16",
    torch.int32: "INT32",
    torch.int64: "INT64",
    torch.float16: "FP16",
    torch.bfloat16: "BF16",
    torch.float32: "FP32",
    torch.float64: "FP64",
}


def signature_of(program: ExportedProgram) -> Signature:
    """Names, datatypes and shapes; symbolic dimensions are named by what they most likely are.

    Raises:
        SourceError: an argument is no tensor.
    """
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    taken = [value.name for value in arguments_of(program) if isinstance(value, TensorArgument)]
    symbols = _symbol_names([(name, values[name]) for name in taken])
    inputs = tuple(_spec(name, values[name], symbols) for name in taken)
    kept = list(outputs_of(program))
    paths = _paths(program)
    names = unique_names([paths[place] for place, _ in kept], taken)
    found = zip(names, (values[node] for _, node in kept), strict=True)
    return Signature(inputs, tuple(_spec(name, value, symbols) for name, value in found))


def arguments_of(program: ExportedProgram) -> Iterator[TensorArgument | ConstantArgument]:
    """What a caller passes, in order."""
    for spec in program.graph_signature.input_specs:
        if spec.kind != InputKind.USER_INPUT:
            continue
        if not isinstance(spec.arg, TensorArgument | ConstantArgument):
            kind = type(spec.arg).__name__
            raise SourceError(f"argument '{spec.arg.name}' is a {kind}, expected a tensor")
        yield spec.arg


def outputs_of(program: ExportedProgram) -> Iterator[tuple[int, str]]:
    """Place among what the program returns, and node, of every tensor."""
    specs = program.graph_signature.output_specs
    returned = [spec.arg for spec in specs if spec.kind == OutputKind.USER_OUTPUT]
    for place, value in enumerate(returned):
        if isinstance(value, TensorArgument):
            yield place, value.name


def _paths(program: ExportedProgram) -> list[tuple[object, ...]]:
    """Where each of the returned values stands: dictionary keys and positions."""
    structure = program.call_spec.out_spec
    assert structure is not None
    answer = pytree.tree_unflatten(list(range(structure.num_leaves)), structure)
    return [
        tuple(getattr(key, "key", getattr(key, "idx", getattr(key, "name", ""))) for key in path)
        for path, _ in pytree.tree_flatten_with_path(answer)[0]
    ]


def _spec(name: str, value: Any, symbols: Mapping[str, str]) -> TensorSpec:
    if not isinstance(value, torch.Tensor) or value.dtype not in _DATATYPES:
        kind = getattr(value, "dtype", type(value).__name__)
        raise SourceError(f"tensor '{name}' is of {kind}, expected one of {', '.join(DTYPES)}")
    return TensorSpec(
        name, _DATATYPES[value.dtype], tuple(_dimension(str(size), symbols) for size in value.shape)
    )


def _dimension(size: str, symbols: Mapping[str, str]) -> int | str:
    """A number; or a symbol or a term of several, "s3 + 1", in readable names."""
    if size.isdecimal():
        return int(size)
    return re.sub(r"\w+", lambda word: symbols.get(word[0], word[0]), size)


def _symbol_names(tensors: list[tuple[str, Any]]) -> dict[str, str]:
    names: dict[str, str] = {}
    for tensor, value in tensors:
        for axis, size in enumerate(value.shape):
            symbol = str(size)
            if not symbol.isidentifier() or symbol in names:
                continue
            names[symbol] = dimension_name(tensor, axis, value.ndim, set(names.values()))
    return names
