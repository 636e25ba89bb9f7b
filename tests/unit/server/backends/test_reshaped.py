"""`reshape` of config.pbtxt: what clients see against what the model sees."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from protos.signature import Signature, TensorSpec
from protos.tensors import Array
from server.backends.reshaped import reshaped
from server.errors import InvalidRequest
from server.model_config import ModelConfig, TensorConfig
from tests.fakes import FakeBackend


class Sees(FakeBackend):
    """Returns its inputs' values as output "y" of shape [n, 2, 2]; notes the shapes it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: tuple[int, ...] = ()
        self.signature = Signature(
            (TensorSpec("x", "FP32", ("n", 4)),), (TensorSpec("y", "FP32", ("n", 2, 2)),)
        )

    def run(self, inputs: Mapping[str, Array], output_names: Sequence[str]) -> list[Array]:
        self.seen = inputs["x"].shape
        return [inputs["x"].reshape(-1, 2, 2)]


def config(x: TensorConfig, y: TensorConfig | None = None, batch: int = 8) -> ModelConfig:
    outputs = () if y is None else (y,)
    return ModelConfig("m", inputs=(x,), outputs=outputs, max_batch_size=batch)


def test_nothing_reshaped_is_the_backend_itself() -> None:
    backend = Sees()
    assert reshaped(backend, config(TensorConfig("x", "FP32", (4,)))) is backend


def test_inputs_and_outputs_are_reshaped_row_by_row() -> None:
    backend = Sees()
    x = TensorConfig("x", "FP32", (2, 2, 1), reshape=(4,))
    y = TensorConfig("y", "FP32", (4,), reshape=(2, 2))
    outer = reshaped(backend, config(x, y))
    assert outer.signature.inputs[0].shape == ("n", 2, 2, 1)
    assert outer.signature.outputs[0].shape == ("n", 4)
    (answer,) = outer.run({"x": np.zeros((3, 2, 2, 1), np.float32)}, ["y"])
    assert backend.seen == (3, 4)
    assert answer.shape == (3, 4)


def test_a_dropped_dimension_becomes_one_value_per_row() -> None:
    backend = Sees()
    outer = reshaped(backend, config(TensorConfig("x", "FP32", (1,), reshape=())))
    assert outer.signature.inputs[0].shape == ("n", 1)
    outer.run({"x": np.zeros((4, 1), np.float32)}, ["y"])
    assert backend.seen == (4,)


def test_variable_sizes_keep_their_order() -> None:
    backend = Sees()
    tensor = TensorConfig("x", "FP32", (-1, -1), reshape=(-1, 1, -1))
    outer = reshaped(backend, config(tensor))
    assert outer.signature.inputs[0].shape == ("n", "x[1]", "x[2]")
    outer.run({"x": np.zeros((2, 4, 6), np.float32)}, ["y"])
    assert backend.seen == (2, 4, 1, 6)


def test_elements_that_do_not_fit_are_the_clients_fault() -> None:
    outer = reshaped(Sees(), config(TensorConfig("x", "FP32", (-1,), reshape=(2, 2))))
    with pytest.raises(InvalidRequest, match=r"'x': \[1, 5\] cannot be reshaped to \[1, 2, 2\]"):
        outer.run({"x": np.zeros((1, 5), np.float32)}, ["y"])


def test_without_max_batch_size_the_whole_shape_is_replaced() -> None:
    backend = Sees()
    outer = reshaped(backend, config(TensorConfig("x", "FP32", (4,), reshape=(1, 4)), batch=0))
    assert outer.signature.inputs[0].shape == (4,)
    outer.run({"x": np.zeros(4, np.float32)}, ["y"])
    assert backend.seen == (1, 4)
