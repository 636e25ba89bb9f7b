"""What a TensorFlow model takes and returns, and the model as a function of just that."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from optimizer.errors import SourceError
from optimizer.frameworks.network import dimension_name, unique_names
from optimizer.frameworks.tensorflow_import import keras, tf
from protos.signature import Signature, TensorSpec
from protos.tensors import DTYPES, datatype_of_dtype

_SERVING = "serving_default"  # the signature that TensorFlow Serving takes, too

Call = Callable[..., Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Function:
    """A model as a function of tensors, in and out in the signature's order."""

    signature: Signature
    call: Call
    is_softmax: bool = False

    def specs(self) -> list[Any]:
        """The inputs in TensorFlow's words."""
        return [
            tf.TensorSpec([n if isinstance(n, int) else None for n in s.shape], dtype_of(s), s.name)
            for s in self.signature.inputs
        ]

    def compiled(self) -> Any:
        """Traced once for all sizes."""
        return tf.function(self.call, input_signature=self.specs())


def dtype_of(spec: TensorSpec) -> Any:
    return tf.string if spec.datatype == "BYTES" else tf.as_dtype(DTYPES[spec.datatype])


def of_keras(model: Any) -> Function:
    """Raises SourceError where the model was never given an input, so that it has no shapes."""
    if not getattr(model, "inputs", None):
        name = type(model).__name__
        raise SourceError(f"{name} does not say what its inputs are: export it as a SavedModel")
    # A Sequential remembers the batch of its first call, which means nothing without a state.
    has_state = any(getattr(layer, "stateful", False) for layer in model.layers)
    is_any_batch = isinstance(model, keras.Sequential) and not has_state
    shapes = [[None, *t.shape[1:]] if is_any_batch else list(t.shape) for t in model.inputs]
    inputs = _specs([(t.name, t.dtype, s) for t, s in zip(model.inputs, shapes, strict=True)])

    structure = getattr(model, "_inputs_struct", None)

    def call(*tensors: Any) -> list[Any]:
        given = tensors[0]
        if structure is not None:  # a Sequential has one input and no structure
            given = keras.tree.pack_sequence_as(structure, tensors)
        return list(keras.tree.flatten(model(given, training=False)))

    last = model.layers[-1]
    activation = getattr(last, "activation", None)
    is_softmax = isinstance(last, keras.layers.Softmax) or activation is keras.activations.softmax
    return _traced(inputs, call, _keras_paths(model), is_softmax)


def _keras_paths(model: Any) -> list[tuple[object, ...]]:
    """Keys of a dictionary; else the names that the user gave the last layers, or positions."""
    structure = getattr(model, "_outputs_struct", None)
    if isinstance(structure, dict):
        return [(key,) for key in sorted(structure)]
    names = getattr(model, "output_names", None) or [model.layers[-1].name]
    layers = {layer.name: layer for layer in model.layers}
    given = [name if _is_given(name, layers.get(name)) else "" for name in names]
    if len(given) == 1:
        return [(given[0],) if given[0] else ()]
    return [(name,) if name else (index,) for index, name in enumerate(given)]


def _is_given(name: str, layer: Any) -> bool:
    """Whether the user chose the name: Keras makes "dense_3" of Dense."""
    kind = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(layer).__name__).lower()
    return re.fullmatch(rf"{kind}(_\d+)?", name) is None


def of_saved_model(loaded: Any) -> Function:
    """Raises SourceError where it has no signature to serve."""
    signatures = dict(loaded.signatures)
    if not signatures:
        raise SourceError("a SavedModel without signatures, expected 'serving_default'")
    serve = signatures.get(_SERVING) or next(iter(signatures.values()))
    given = serve.structured_input_signature[1]
    inputs = _specs([(name, spec.dtype, spec.shape) for name, spec in given.items()])
    keys = sorted(serve.structured_outputs, key=_natural)

    def call(*tensors: Any) -> list[Any]:
        # The model must not be collected while its functions are used.
        assert loaded is not None
        answer = serve(**dict(zip(given, tensors, strict=True)))
        return [answer[key] for key in keys]

    return _traced(inputs, call, [(key,) for key in keys], False)


def _natural(name: str) -> tuple[str, int]:
    """output_2 before output_10."""
    stem, digits = re.fullmatch(r"(.*?)(\d*)", name, re.DOTALL).groups()  # type: ignore[union-attr]
    return stem, int(digits or -1)


def _traced(
    inputs: tuple[TensorSpec, ...], call: Call, paths: list[tuple[object, ...]], is_softmax: bool
) -> Function:
    """The function with the outputs that tracing it shows."""
    bare = Function(Signature(inputs, ()), call, is_softmax)
    answers = bare.compiled().get_concrete_function().structured_outputs
    names = unique_names(paths, [spec.name for spec in inputs])
    found = zip(names, answers, strict=True)
    outputs = _specs([(name, answer.dtype, answer.shape) for name, answer in found])
    return Function(Signature(inputs, outputs), call, is_softmax)


def _specs(tensors: list[tuple[str, Any, Any]]) -> tuple[TensorSpec, ...]:
    specs: list[TensorSpec] = []
    taken: set[str] = set()
    for name, dtype, shape in tensors:
        if getattr(shape, "rank", 0) is None:
            raise SourceError(f"tensor '{name}' has no known rank")
        numpy_dtype = np.dtype(tf.as_dtype(dtype).as_numpy_dtype)
        names = [_dimension(name, axis, len(shape), size, taken) for axis, size in enumerate(shape)]
        taken.update(size for size in names if isinstance(size, str) and size != "batch")
        specs.append(TensorSpec(name, datatype_of_dtype(numpy_dtype), tuple(names)))
    return tuple(specs)


def _dimension(tensor: str, axis: int, rank: int, size: int | None, taken: set[str]) -> int | str:
    if size is not None:
        return size
    return dimension_name(tensor, axis, rank, taken, channels_last=True)
