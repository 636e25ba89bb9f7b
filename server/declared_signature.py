"""A model's own signature against what its configuration declares: one of both, or a conflict."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from protos.signature import Signature, TensorSpec
from server.errors import LoadFailed
from server.model_config import ModelConfig, TensorConfig

Shape = tuple[int | str, ...]


def model_signature(config: ModelConfig, signature: Signature) -> Signature:
    """The tensors that the configuration offers, with the model's shapes made as narrow as it says.

    Without declared inputs or outputs, the model's own. Shapes are those the model itself takes;
    `reshape` is not applied.

    Raises:
        LoadFailed: one line per conflict, with both shapes and the key to change.
    """
    problems: list[str] = []
    inputs = _inputs(config, signature.inputs, problems)
    outputs = _outputs(config, signature.outputs, problems)
    if config.max_batch_size:
        problems += _fixed_batches(config, (*inputs, *outputs))
    if problems:
        raise LoadFailed("; ".join(problems))
    return Signature(inputs, outputs)


def _inputs(
    config: ModelConfig, specs: tuple[TensorSpec, ...], problems: list[str]
) -> tuple[TensorSpec, ...]:
    if not config.inputs:
        return specs
    declared = {tensor.name: tensor for tensor in config.inputs}
    problems += _unknown(config, "input", declared, specs)
    kept = tuple(spec for spec in specs if not spec.optional or spec.name in declared)
    for spec in kept:
        if spec.name not in declared:
            problems.append(
                f"{config.origin}: input: the model needs '{spec.name}' {_text(spec, spec.shape)},"
                " which is not declared; add it"
            )
    return tuple(
        _narrow(config, "input", spec, declared[spec.name], problems)
        for spec in kept
        if spec.name in declared
    )


def _outputs(
    config: ModelConfig, specs: tuple[TensorSpec, ...], problems: list[str]
) -> tuple[TensorSpec, ...]:
    if not config.outputs:
        return specs
    declared = {tensor.name: tensor for tensor in config.outputs}
    problems += _unknown(config, "output", declared, specs)
    return tuple(
        _narrow(config, "output", spec, declared[spec.name], problems)
        for spec in specs
        if spec.name in declared
    )


def _unknown(
    config: ModelConfig, kind: str, declared: Iterable[str], specs: tuple[TensorSpec, ...]
) -> list[str]:
    known = [spec.name for spec in specs]
    names = ", ".join(f"'{name}'" for name in known) or "none"
    return [
        f"{config.origin}: {kind} '{name}' is not in the model, which has {names}"
        for name in declared
        if name not in known
    ]


def _narrow(
    config: ModelConfig, kind: str, spec: TensorSpec, tensor: TensorConfig, problems: list[str]
) -> TensorSpec:
    """The spec with the declared sizes in place of variable ones; appends what conflicts."""
    if tensor.datatype and tensor.datatype != spec.datatype:
        problems.append(
            f"{config.origin}: {kind} '{spec.name}': data_type is {tensor.datatype}, the model has"
            f" {spec.datatype}; change data_type to TYPE_{_triton_type(spec.datatype)}"
        )
        return spec
    wanted = config.model_shape(tensor)
    if not spec.shape:  # a scalar, or a tensor whose rank the model does not say
        return replace(spec, shape=_named(wanted, spec.name))
    if _agree(wanted, spec.shape):
        return replace(spec, shape=_merge(wanted, spec.shape))
    key = "dims" if tensor.reshape is None else "reshape"
    problems.append(
        f"{config.origin}: {kind} '{spec.name}': {key} {_dims(wanted, config)} declares"
        f" {_text(spec, wanted)}, the model has {_text(spec, spec.shape)};"
        f" {_remedy(key, spec.shape, config)}"
    )
    return spec


def _remedy(key: str, shape: Shape, config: ModelConfig) -> str:
    sizes = [size if isinstance(size, int) else -1 for size in shape]
    if config.max_batch_size and sizes and sizes[0] != -1:
        return f"change it to max_batch_size: 0 and {key}: {sizes} (the batch dimension is fixed)"
    if config.max_batch_size:
        return f"change it to {key}: {sizes[1:]} (max_batch_size > 0 adds the batch dimension)"
    return f"change it to {key}: {sizes}"


def _fixed_batches(config: ModelConfig, specs: Sequence[TensorSpec]) -> list[str]:
    """Tensors whose first dimension cannot be the batch that `max_batch_size` promises."""
    return [
        f"{config.origin}: max_batch_size is {config.max_batch_size}, but '{spec.name}' is"
        f" {_text(spec, spec.shape)} with a fixed dimension 0; change it to max_batch_size: 0 and"
        " write whole shapes in dims, or export the model with a variable batch dimension"
        for spec in specs
        if spec.shape and isinstance(spec.shape[0], int)
    ]


def _agree(wanted: tuple[int, ...], shape: Shape) -> bool:
    """Whether the model takes the declared shape: of two numbers both must be equal."""
    if len(wanted) != len(shape):
        return False
    pairs = zip(wanted, shape, strict=True)
    return all(w == -1 or isinstance(size, str) or w == size for w, size in pairs)


def _merge(wanted: tuple[int, ...], shape: Shape) -> Shape:
    pairs = zip(wanted, shape, strict=True)
    return tuple(size if isinstance(size, int) or w == -1 else w for w, size in pairs)


def _named(wanted: tuple[int, ...], name: str) -> Shape:
    return tuple(f"{name}[{axis}]" if size < 0 else size for axis, size in enumerate(wanted))


def _dims(wanted: tuple[int, ...], config: ModelConfig) -> str:
    return str(list(wanted[1:] if config.max_batch_size else wanted))


def _text(spec: TensorSpec, shape: Shape) -> str:
    sizes = ", ".join("?" if isinstance(s, str) or s == -1 else str(s) for s in shape)
    return f"{spec.datatype}[{sizes}]"


def _triton_type(datatype: str) -> str:
    return "STRING" if datatype == "BYTES" else datatype
