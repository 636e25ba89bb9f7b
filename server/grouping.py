"""Which requests may share a batch, and how a large one is cut: fixed by signature and profile."""

from collections.abc import Iterator, Mapping

from protos.signature import Signature, TensorSpec
from protos.tensors import Array
from server.batch_queue import Group
from server.execution import Part
from server.probe import Profile
from server.request import InferRequest


class Grouping:
    """Groups and slices the requests of one version.

    `is_steady`: one run costs as much as any other of as many rows.
    """

    def __init__(self, signature: Signature, profile: Profile) -> None:
        self._batchable = profile.batchable
        self._has_rows = profile.batchable or profile.request_rows is not None
        padded = set(profile.pad.inputs) if profile.pad is not None else set()
        self._axes = tuple(
            (spec.name, axis)
            for spec in signature.inputs
            for axis, size in enumerate(spec.shape)
            if axis and isinstance(size, str) and (spec.name, axis) not in padded
        )
        self._optional = tuple(spec.name for spec in signature.inputs if spec.optional)
        self._has_one_group = not self._axes and not self._optional
        self.is_steady = not self._optional and all(
            _has_one_size(spec, but_for_rows=self._has_rows) for spec in signature.inputs
        )
        self._rows_of = signature.inputs[0].name if signature.inputs else ""

    def rows(self, inputs: Mapping[str, Array]) -> int:
        """The request's rows; 1 where dimension 0 is not the batch."""
        if not self._has_rows:
            return 1
        array = inputs.get(self._rows_of)
        if array is None:  # an optional input that was left out
            array = next(iter(inputs.values()))
        return len(array)

    def group_of(self, inputs: Mapping[str, Array], rows: int) -> Group:
        """Equal for requests that may share a batch."""
        if rows == 0:
            return object()  # runs alone: some operators refuse to join with nothing
        if self._has_one_group:
            return None
        present = tuple(name for name in self._optional if name in inputs)
        sizes = tuple(
            inputs[name].shape[axis] if name in inputs else 0 for name, axis in self._axes
        )
        return present, sizes

    def parts_of(self, request: InferRequest, rows: int, max_batch: int) -> Iterator[Part]:
        """The request as it is, or in slices of `max_batch` rows where it may be cut."""
        inputs, names = request.inputs, request.output_names
        if not self._batchable or rows <= max_batch:
            yield Part(inputs, rows, names)
            return
        for start in range(0, rows, max_batch):
            piece = {name: array[start : start + max_batch] for name, array in inputs.items()}
            yield Part(piece, min(max_batch, rows - start), names)


def _has_one_size(spec: TensorSpec, *, but_for_rows: bool) -> bool:
    sizes = spec.shape[1:] if but_for_rows else spec.shape
    return spec.datatype != "BYTES" and all(isinstance(size, int) for size in sizes)
