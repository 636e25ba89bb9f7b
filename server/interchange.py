"""May one form of a model take the place of another without its clients noticing? Pure."""

from collections.abc import Callable, Iterable

from protos.signature import TensorSpec
from server.served import ServedVersion


def difference(before: ServedVersion, after: ServedVersion) -> str:
    """What clients would notice if `after` answered in place of `before`; "" where nothing.

    Names, datatypes and ranks are the same, what could be sent can still be sent, and requests
    share batches as before.
    """
    old, new = before.signature, after.signature
    problem = _tensors("input", old.inputs, new.inputs, _takes)
    problem = problem or _tensors("output", old.outputs, new.outputs, _gives)
    if problem:
        return problem
    if before.profile.batchable and not after.profile.batchable:
        return f"its requests would run one by one: {after.profile.reason}"
    return ""


def _tensors(
    kind: str,
    before: Iterable[TensorSpec],
    after: Iterable[TensorSpec],
    fits: Callable[[TensorSpec, TensorSpec], bool],
) -> str:
    old, new = ({spec.name: spec for spec in specs} for specs in (before, after))
    if old.keys() != new.keys():
        return f"expected the {kind}s {_names(old)}, got {_names(new)}"
    for name, spec in old.items():
        if not _is_alike(spec, new[name]) or not fits(spec, new[name]):
            return f'{kind} "{name}": expected {_shown(spec)}, got {_shown(new[name])}'
    return ""


def _is_alike(before: TensorSpec, after: TensorSpec) -> bool:
    return before.datatype == after.datatype and len(before.shape) == len(after.shape)


def _takes(before: TensorSpec, after: TensorSpec) -> bool:
    """Whether an input takes whatever it took before."""
    sizes = zip(before.wire_shape, after.wire_shape, strict=True)
    return after.optional >= before.optional and all(new in (old, -1) for old, new in sizes)


def _gives(before: TensorSpec, after: TensorSpec) -> bool:
    """Whether an output may be what it was before; formats differ in how much they say of it."""
    sizes = zip(before.wire_shape, after.wire_shape, strict=True)
    return all(-1 in (old, new) or old == new for old, new in sizes)


def _names(specs: Iterable[str]) -> str:
    return ", ".join(sorted(specs))


def _shown(spec: TensorSpec) -> str:
    return f"{spec.datatype}{spec.wire_shape}{' (optional)' if spec.optional else ''}"
