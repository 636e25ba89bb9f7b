"""A backend whose clients see other shapes than its model: `reshape` of config.pbtxt."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod

from protos.signature import Signature, TensorSpec
from protos.tensors import Array
from server.backends.base import Backend
from server.errors import InvalidRequest
from server.model_config import ModelConfig, TensorConfig


class ReshapedBackend:
    """Brings inputs to the model's shape and outputs to the declared one. Copies nothing."""

    def __init__(self, backend: Backend, config: ModelConfig) -> None:
        self.inner = backend
        self._has_batch = bool(config.max_batch_size)
        self._tensors = {
            tensor.name: tensor
            for tensor in (*config.inputs, *config.outputs)
            if tensor.reshape is not None
        }
        signature = backend.signature
        self.signature = Signature(self._specs(signature.inputs), self._specs(signature.outputs))
        self.platform: str = backend.platform
        self.artifact_id: str = backend.artifact_id
        self.devices: tuple[str, ...] = backend.devices
        self.fallback: str = backend.fallback
        self.threads: int = backend.threads
        self.is_in_process: bool = backend.is_in_process
        self.instances: int | None = backend.instances

    @property
    def memory_bytes(self) -> int:
        return self.inner.memory_bytes

    def run(self, inputs: Mapping[str, Array], output_names: Sequence[str]) -> list[Array]:
        """As the backend's; the same failures, and InvalidRequest where elements do not fit."""
        feeds = {name: self._to_model(name, array) for name, array in inputs.items()}
        outputs = self.inner.run(feeds, output_names)
        pairs = zip(output_names, outputs, strict=True)
        return [self._to_client(name, array) for name, array in pairs]

    def interrupt(self, thread: int) -> None:
        self.inner.interrupt(thread)

    def close(self) -> None:
        self.inner.close()

    def _specs(self, specs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
        return tuple(self._spec(spec) for spec in specs)

    def _spec(self, spec: TensorSpec) -> TensorSpec:
        tensor = self._tensors.get(spec.name)
        if tensor is None:
            return spec
        batch = spec.shape[:1] if self._has_batch else ()
        names = [f"{spec.name}[{axis + len(batch)}]" for axis in range(len(tensor.dims))]
        sizes = (size if size >= 0 else name for size, name in zip(tensor.dims, names, strict=True))
        return replace(spec, shape=(*batch, *sizes))

    def _to_model(self, name: str, array: Array) -> Array:
        tensor = self._tensors.get(name)
        if tensor is None or tensor.reshape is None:
            return array
        return self._reshape(name, array, tensor.dims, tensor.reshape)

    def _to_client(self, name: str, array: Array) -> Array:
        tensor = self._tensors.get(name)
        if tensor is None or tensor.reshape is None:
            return array
        return self._reshape(name, array, tensor.reshape, tensor.dims)

    def _reshape(
        self, name: str, array: Array, old: tuple[int, ...], new: tuple[int, ...]
    ) -> Array:
        """Variable sizes keep their order; one that has no counterpart takes what is left."""
        batch = array.shape[:1] if self._has_batch else ()
        inner = array.shape[len(batch) :]
        variable = [size for size, declared in zip(inner, old, strict=True) if declared < 0]
        if new.count(-1) == len(variable):
            following = iter(variable)
            new = tuple(next(following) if size < 0 else size for size in new)
        shape = (*batch, *new)
        if -1 not in shape and prod(shape) != array.size:
            raise InvalidRequest(
                f"'{name}': {list(array.shape)} cannot be reshaped to {list(shape)}"
            )
        return array.reshape(shape)


def reshaped(backend: Backend, config: ModelConfig) -> Backend:
    """The backend as its clients see it: itself, where nothing is reshaped."""
    tensors: tuple[TensorConfig, ...] = (*config.inputs, *config.outputs)
    if all(tensor.reshape is None for tensor in tensors):
        return backend
    return ReshapedBackend(backend, config)
