"""Which shapes a TensorRT engine is for. Others have to go elsewhere, or it would be rebuilt."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optimizer.errors import PassError
from protos.signature import Signature, TensorSpec

Shapes = Mapping[str, Sequence[int]]
"""Of the inputs of one run, by name."""


@dataclass(frozen=True, slots=True)
class ShapeRange:
    """Shapes of one input: the smallest, the one to be fastest at, the largest."""

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]

    def __post_init__(self) -> None:
        same_rank = len(self.min) == len(self.opt) == len(self.max)
        sizes = zip(self.min, self.opt, self.max, strict=False)
        if not same_rank or not all(0 < low <= best <= high for low, best, high in sizes):
            raise PassError(f"no range of shapes: {self}, expected 0 < min <= opt <= max")

    @property
    def is_fixed(self) -> bool:
        return self.min == self.max

    def why_not(self, shape: Sequence[int]) -> str:
        """Why a shape is not in the range; empty when it is."""
        if len(shape) != len(self.min):
            return f"{len(shape)} dimensions, the engine has {len(self.min)}"
        for axis, (low, size, high) in enumerate(zip(self.min, shape, self.max, strict=True)):
            if not low <= size <= high:
                return f"{size} in dimension {axis}, the engine is for {low} to {high}"
        return ""

    def __str__(self) -> str:
        return "..".join(_text(shape) for shape in (self.min, self.opt, self.max))


@dataclass(frozen=True, slots=True)
class ShapeProfile:
    """A range of shapes for every input of a model."""

    inputs: Mapping[str, ShapeRange]

    def covers(self, shapes: Shapes) -> bool:
        return not self.why_not(shapes)

    def why_not(self, shapes: Shapes) -> str:
        """Which input is out of the profile, and how; empty when all are in it."""
        for name, range_ in self.inputs.items():
            reason = range_.why_not(shapes[name]) if name in shapes else "it is missing"
            if reason:
                return f"input '{name}': {reason}"
        return ""

    @property
    def dynamic(self) -> dict[str, ShapeRange]:
        return {name: one for name, one in self.inputs.items() if not one.is_fixed}

    def __str__(self) -> str:
        return ", ".join(f"{name} {range_}" for name, range_ in sorted(self.inputs.items()))

    def to_json(self) -> dict[str, Any]:
        return {name: [list(s) for s in (r.min, r.opt, r.max)] for name, r in self.inputs.items()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "ShapeProfile":
        """Raises TypeError, ValueError or PassError for what `to_json` did not make."""
        return cls({name: ShapeRange(*map(tuple, shapes)) for name, shapes in value.items()})


def profile_of(
    signature: Signature, max_batch: int, observed: Iterable[Shapes] = (), opt_batch: int = 0
) -> ShapeProfile:
    """The profile of a model that gets batches of up to `max_batch` rows.

    Optional inputs are constants of an engine, and have no place in it. Dimension 0 of the others,
    where it is symbolic, is the batch. Other symbolic dimensions go from
    the smallest to the largest that was observed; fastest are the most frequent ones, and batches
    of `opt_batch` rows (0: the largest).

    Raises:
        PassError: nothing was observed of a symbolic dimension.
    """
    inputs = [spec for spec in signature.inputs if not spec.optional]
    batches = {spec.shape[0] for spec in inputs if spec.shape}
    lengths = _lengths(signature, observed)
    for name in batches:
        if isinstance(name, str):
            lengths[name] = (1, opt_batch or max_batch, max_batch)
    return ShapeProfile({spec.name: _range(spec, lengths) for spec in inputs})


def _lengths(signature: Signature, observed: Iterable[Shapes]) -> dict[str, tuple[int, int, int]]:
    """Smallest, most frequent and largest length of each symbolic dimension."""
    seen: dict[str, Counter[int]] = {}
    for shapes in observed:
        for spec in signature.inputs:
            for name, size in zip(spec.shape, shapes.get(spec.name, ()), strict=False):
                if isinstance(name, str) and size > 0:
                    seen.setdefault(name, Counter())[size] += 1
    return {
        name: (min(sizes), sizes.most_common(1)[0][0], max(sizes)) for name, sizes in seen.items()
    }


def _range(spec: TensorSpec, lengths: Mapping[str, tuple[int, int, int]]) -> ShapeRange:
    unknown = [name for name in spec.shape if isinstance(name, str) and name not in lengths]
    if unknown:
        raise PassError(
            f"input '{spec.name}': TensorRT has to know how long '{unknown[0]}' can get, and no "
            "request or row of data has shown it"
        )
    sizes = [(size,) * 3 if isinstance(size, int) else lengths[size] for size in spec.shape]
    low, best, high = (tuple(size[i] for size in sizes) for i in range(3))
    return ShapeRange(low, best, high)


def _text(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"
