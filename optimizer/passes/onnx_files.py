"""Reads, writes and walks ONNX files: with their weights, or without what is not needed of them.

Imports onnx, so it is imported where a model is worked on, in child processes.
"""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from optimizer.errors import PassError

_SMALL = 1024  # elements; shapes and axes, which shape inference reads, are smaller
PROTOBUF_LIMIT = 1_900_000_000  # bytes; a message of 2 GiB or more cannot be written
_DOMAIN_PREFIXES = {"": "", "ai.onnx": "", "com.microsoft": ""}


def load(path: Path) -> onnx.ModelProto:
    """The whole model, external data included.

    Raises:
        PassError: it is no ONNX model, or its external data are missing.
    """
    return _load(path, with_data=True)


def load_graph(path: Path) -> onnx.ModelProto:
    """The graph without the values of its large tensors: cheap, whatever the model's size."""
    model = _load(path, with_data=False)
    for tensor in large_tensors(model):
        for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data"):
            tensor.ClearField(field)
    return model


def save(model: onnx.ModelProto, path: Path) -> None:
    """Writes a model; what one file cannot hold goes to `<name>.data` beside it."""
    if _weight_bytes(model) < PROTOBUF_LIMIT:
        onnx.save(model, str(path))
        return
    onnx.save(
        model,
        str(path),
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=f"{path.name}.data",
    )


def copy(source: Path, target: Path) -> None:
    """Copies a model, with external data where it has any."""
    external = external_files(source)
    shutil.copyfile(source, target)
    for file in external:
        place = target.parent / file.relative_to(source.parent)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)


def external_files(path: Path) -> list[Path]:
    """The files beside a model that hold weights of it.

    Raises:
        PassError: one is missing, or is not in the model's folder.
    """
    names = {
        entry.value
        for tensor in all_tensors(_load(path, with_data=False))
        for entry in tensor.external_data
        if entry.key == "location"
    }
    for name in names:
        if not (path.parent / name).resolve().is_relative_to(path.parent.resolve()):
            raise PassError(f"'{path}' has weights in '{name}', outside of its folder")
        if not (path.parent / name).is_file():
            raise PassError(f"'{path}' has weights in '{name}', which does not exist")
    return sorted(path.parent / name for name in names)


def is_large(model: Path) -> bool:
    """Whether one protobuf message may be too small for what is made of a model."""
    data = model.with_name(f"{model.name}.data")
    return data.is_file() or model.stat().st_size > PROTOBUF_LIMIT


def _weight_bytes(model: onnx.ModelProto) -> int:
    # Not ByteSize(), which fails on the models in question.
    sizes = {kind: onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize for kind in _kinds(model)}
    return sum(n_elements(tensor) * sizes[tensor.data_type] for tensor in all_tensors(model))


def _kinds(model: onnx.ModelProto) -> set[int]:
    return {tensor.data_type for tensor in all_tensors(model)}


def work_folder(folder: Path) -> tempfile.TemporaryDirectory[str]:
    """A folder for files on the way, on the same disk as the result."""
    return tempfile.TemporaryDirectory(prefix=".work-", dir=folder)


def opset(model: onnx.ModelProto) -> int:
    """Version of the standard operator set."""
    versions = [item.version for item in model.opset_import if item.domain in ("", "ai.onnx")]
    return max(versions, default=0)


def operator(node: onnx.NodeProto) -> str:
    """The operator's name: bare for the standard's and ONNX Runtime's, else with its domain."""
    return _DOMAIN_PREFIXES.get(node.domain, f"{node.domain}.") + node.op_type


def all_graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """The graph and the bodies of its branches and loops."""
    pending = [model.graph]
    while pending:
        graph = pending.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    pending.append(attribute.g)
                pending.extend(attribute.graphs)


def all_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Nodes of the graph, of the bodies of branches and loops, and of functions."""
    for graph in all_graphs(model):
        yield from graph.node
    for function in model.functions:
        yield from function.node


def all_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Initializers and the values of Constant nodes, in subgraphs too."""
    for graph in all_graphs(model):
        yield from graph.initializer
    for node in all_nodes(model):
        yield from (item.t for item in node.attribute if item.HasField("t"))


def large_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    return (tensor for tensor in all_tensors(model) if n_elements(tensor) > _SMALL)


def n_elements(tensor: onnx.TensorProto) -> int:
    return prod(tensor.dims)


def input_types(model: onnx.ModelProto) -> Mapping[str, int]:
    """Element type by name, in the model's order; without initializers listed as inputs."""
    initialized = {tensor.name for tensor in model.graph.initializer}
    values = [value for value in model.graph.input if value.name not in initialized]
    return {value.name: value.type.tensor_type.elem_type for value in values}


def output_types(model: onnx.ModelProto) -> Mapping[str, int]:
    """Element type by name, in the model's order."""
    return {value.name: value.type.tensor_type.elem_type for value in model.graph.output}


def forget_shapes(model: onnx.ModelProto) -> None:
    """Drops the shapes of inner tensors: exporters leave stale ones that inference trips over."""
    for graph in all_graphs(model):
        graph.ClearField("value_info")


def name_nodes(model: onnx.ModelProto) -> bool:
    """Gives a name to every node that has none or shares it; whether there was such a node.

    Quantizers leave out nodes by name, and take nodes without one for the same node.
    """
    seen: set[str] = set()
    renamed = False
    for graph in all_graphs(model):
        for index, node in enumerate(graph.node):
            if not node.name or node.name in seen:
                node.name = _free_name(f"{node.op_type}_{node.output[0] or index}", seen)
                renamed = True
            seen.add(node.name)
    return renamed


def _free_name(wanted: str, taken: set[str]) -> str:
    name, number = wanted, 1
    while name in taken:
        name, number = f"{wanted}_{number}", number + 1
    return name


def _load(path: Path, *, with_data: bool) -> onnx.ModelProto:
    try:
        return onnx.load(str(path), load_external_data=with_data)
    except (OSError, DecodeError, ValueError, onnx.checker.ValidationError) as error:
        raise PassError(f"'{path}' cannot be read as an ONNX model: {error}") from None
