"""Is a request what the model expects? Checked before it is queued, so that a bad one hurts nobody.

The texts contain what Triton says in the same case, since users' checks match on it.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from protos.signature import Signature, TensorSpec
from protos.tensors import DTYPES, Array, datatype_of
from server.errors import InvalidRequest, ServeError
from server.probe import Profile
from server.request import InferRequest


class Validator:
    """Checks requests against one version's signature. Cheap enough for every request."""

    def __init__(self, model: str, signature: Signature, profile: Profile) -> None:
        self._model = model
        self._specs = {spec.name: spec for spec in signature.inputs}
        self._required = frozenset(s.name for s in signature.inputs if not s.optional)
        self._outputs = frozenset(spec.name for spec in signature.outputs)
        self._inputs = tuple(_Expected.of(spec) for spec in signature.inputs)
        self._symbols = tuple(
            (spec.name, axis, size)
            for spec in signature.inputs
            for axis, size in enumerate(spec.shape)
            if isinstance(size, str)
        )
        self._row_inputs = tuple(self._specs) if _has_rows(profile) else ()
        self._max_rows = None if profile.batchable else profile.request_rows
        self._pad = profile.pad

    def check(self, request: InferRequest) -> None:
        """Adds the mask that a padded model may do without; leaves all else as it is.

        Raises:
            InvalidRequest: naming the input or output, what was expected and what came.
        """
        inputs = request.inputs
        if self._pad is not None:
            self._add_mask(inputs)
        if inputs.keys() != self._specs.keys():
            self._check_names(inputs)
        for expected in self._inputs:
            array = inputs.get(expected.name)
            if array is not None and not expected.fits(array):
                self._explain(array, self._specs[expected.name])
        if request.output_names and not self._outputs.issuperset(request.output_names):
            self._unknown_output(request.output_names)
        if self._row_inputs and (len(inputs) > 1 or self._max_rows is not None):
            self._check_rows(inputs)

    def blame(self, request: InferRequest, error: ServeError) -> ServeError:
        """The likely cause of a run's failure if it is the request, else the failure as it is.

        Asked afterwards only: a dimension's name promises equal lengths, but exporters give one
        name to different lengths at times, and such a model answers all the same.
        """
        seen: dict[str, tuple[str, int]] = {}
        for name, axis, symbol in self._symbols:
            if name not in request.inputs:
                continue
            length = request.inputs[name].shape[axis]
            first, expected = seen.setdefault(symbol, (name, length))
            if length != expected:
                return InvalidRequest(
                    f"input '{name}' for model '{self._model}' has {length} in dimension {axis}"
                    f" ('{symbol}'), but input '{first}' has {expected}: {error}"
                )
        return error

    def _check_names(self, inputs: Mapping[str, Array]) -> None:
        for name in inputs:
            if name not in self._specs:
                raise InvalidRequest(
                    f"unexpected inference input '{name}' for model '{self._model}', expected"
                    f" {_quoted(self._specs)}"
                )
        missing = self._required.difference(inputs)
        if missing:
            raise InvalidRequest(
                f"expected {len(self._required)} inputs but got {len(inputs)} inputs for model"
                f" '{self._model}'. Got input(s) [{_quoted(inputs)}], but missing required input(s)"
                f" [{_quoted(sorted(missing))}]. Please provide all required input(s)."
            )

    def _explain(self, array: Array, spec: TensorSpec) -> None:
        if array.dtype != DTYPES[spec.datatype]:
            raise InvalidRequest(
                f"inference input '{spec.name}' data-type is '{datatype_of(array)}', but model"
                f" '{self._model}' expects '{spec.datatype}'"
            )
        raise InvalidRequest(
            f"unexpected shape for input '{spec.name}' for model '{self._model}'. Expected"
            f" {_shape(spec.wire_shape)}, got {_shape(array.shape)}"
        )

    def _unknown_output(self, names: tuple[str, ...]) -> None:
        unknown = next(name for name in names if name not in self._outputs)
        raise InvalidRequest(
            f"unexpected inference output '{unknown}' for model '{self._model}', expected"
            f" {_quoted(sorted(self._outputs))}"
        )

    def _check_rows(self, inputs: Mapping[str, Array]) -> None:
        rows = -1
        for name, array in inputs.items():
            if rows < 0:
                first, rows = name, len(array)
            elif len(array) != rows:
                raise InvalidRequest(
                    f"input '{name}' batch size does not match other inputs for '{self._model}':"
                    f" it has {len(array)} rows, '{first}' has {rows}"
                )
        if self._max_rows is not None and rows > self._max_rows:
            raise InvalidRequest(
                f"inference request batch-size must be <= {self._max_rows} for '{self._model}',"
                f" got {rows}"
            )

    def _add_mask(self, inputs: dict[str, Array]) -> None:
        assert self._pad is not None
        mask = self._pad.mask
        name, axis = self._pad.inputs[0]
        array = inputs.get(name)
        if mask in inputs or mask not in self._specs or array is None or array.ndim <= axis:
            return
        inputs[mask] = np.ones((len(array), array.shape[axis]), DTYPES[self._specs[mask].datatype])


class _Expected:
    """One input's dtype and sizes, in the form that is quickest to compare."""

    __slots__ = ("dtype", "fixed", "name", "ndim")

    def __init__(
        self, name: str, dtype: np.dtype[Any], ndim: int, fixed: tuple[tuple[int, int], ...]
    ) -> None:
        self.name, self.dtype, self.ndim, self.fixed = name, dtype, ndim, fixed

    @classmethod
    def of(cls, spec: TensorSpec) -> "_Expected":
        fixed = tuple((axis, size) for axis, size in enumerate(spec.shape) if isinstance(size, int))
        return cls(spec.name, DTYPES[spec.datatype], len(spec.shape), fixed)

    def fits(self, array: Array) -> bool:
        shape = array.shape
        if array.dtype != self.dtype or len(shape) != self.ndim:
            return False
        for axis, size in self.fixed:  # noqa: SIM110 (a generator costs more than the check)
            if shape[axis] != size:
                return False
        return True


def _has_rows(profile: Profile) -> bool:
    return profile.batchable or profile.request_rows is not None


def _quoted(names: Any) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _shape(sizes: Any) -> str:
    return "[" + ",".join(str(size) for size in sizes) + "]"
