"""TensorFlow: Keras 3 models (.keras) and SavedModel folders, run by TensorFlow."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from optimizer.errors import SourceError
from optimizer.frameworks.contract import Task
from optimizer.frameworks.keras_function import Function, dtype_of, of_keras, of_saved_model
from optimizer.frameworks.network import task_of, typical_rows
from optimizer.frameworks.tensorflow_import import keras, tf
from optimizer.quiet import quiet
from optimizer.samples import Samples
from optimizer.source import SourceModel
from protos.tensors import Array


class KerasModel:
    """A TensorFlow model, compiled once for all sizes."""

    def __init__(self, function: Function) -> None:
        self.signature = function.signature
        self.task: Task = task_of(function.signature, function.is_softmax)
        with quiet():
            self._run = function.compiled().get_concrete_function()

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        tensors = [tf.constant(inputs[s.name], dtype_of(s)) for s in self.signature.inputs]
        outputs = zip(self.signature.outputs, self._run(*tensors), strict=True)
        return {spec.name: np.asarray(tensor.numpy()) for spec, tensor in outputs}

    def typical_rows(self, rows: int, seed: int) -> Samples:
        return typical_rows(self.signature, self.predict, rows, seed)


def load(path: Path, samples: Samples | None = None) -> KerasModel:
    """A .keras file or a SavedModel folder.

    Python code in a .keras file (a Lambda layer) is refused; a SavedModel's graph can read and
    write files.

    Raises:
        SourceError: it cannot be read, or does not say what its inputs are.
    """
    return KerasModel(load_function(path))


def load_function(path: Path) -> Function:
    """As `load`, for what converts it."""
    try:
        with quiet():
            if path.is_dir():
                return of_saved_model(tf.saved_model.load(str(path)))
            return of_keras(keras.saving.load_model(path, compile=False))
    except SourceError as error:
        raise SourceError(f"'{path}': {error}") from None
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise SourceError(f"'{path}' cannot be loaded by TensorFlow: {reason}") from None


def save(model: Any, folder: Path) -> SourceModel:
    """Writes model.keras; or the SavedModel folder "model" where classes are not Keras's own.

    Raises:
        SourceError: it has no inputs yet, or cannot be saved.
    """
    path = folder / ("model.keras" if _is_of_keras_only(model) else "model")
    try:
        with quiet():
            if path.suffix:
                model.save(path)
            elif isinstance(model, keras.Model):
                model.export(path, verbose=False)
            else:
                tf.saved_model.save(model, str(path))
    except Exception as error:
        raise SourceError(f"{type(model).__name__} cannot be saved: {error}") from None
    return SourceModel(path, "tensorflow")


def _is_of_keras_only(model: Any) -> bool:
    """Whether another process can load it: it knows no classes of the user's own."""
    is_own = type(model).__module__.partition(".")[0] == "keras"
    return is_own and all(map(_is_of_keras_only, getattr(model, "layers", ())))
