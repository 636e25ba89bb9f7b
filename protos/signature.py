"""What a model's tensors are called and look like: the same words for server and optimizer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a model, as its clients see it.

    A dimension is an int where it is fixed and the name of a symbolic dimension (never empty)
    where it is not; equal names are equal lengths within one request. Dimension 0 is the batch
    where the model batches.
    """

    name: str
    datatype: str  # Open Inference name, "FP32"
    shape: tuple[int | str, ...]
    optional: bool = False

    @property
    def wire_shape(self) -> list[int]:
        """The shape in the protocols' form: -1 for a variable dimension."""
        return [size if isinstance(size, int) else -1 for size in self.shape]


@dataclass(frozen=True, slots=True)
class Signature:
    """A model's inputs and outputs, in the model's order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def to_json(self) -> dict[str, Any]:
        """As a JSON value that `from_json` reads back."""
        return {
            "inputs": [_to_json(s) for s in self.inputs],
            "outputs": [_to_json(s) for s in self.outputs],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Signature":
        """Raises KeyError or TypeError where `value` is not what `to_json` makes."""
        inputs = tuple(_from_json(tensor) for tensor in value["inputs"])
        return cls(inputs, tuple(_from_json(tensor) for tensor in value["outputs"]))


def _to_json(spec: TensorSpec) -> dict[str, Any]:
    value: dict[str, Any] = {
        "name": spec.name,
        "datatype": spec.datatype,
        "shape": list(spec.shape),
    }
    return value | {"optional": True} if spec.optional else value


def _from_json(value: Mapping[str, Any]) -> TensorSpec:
    shape = tuple(value["shape"])
    return TensorSpec(value["name"], value["datatype"], shape, value.get("optional", False))
