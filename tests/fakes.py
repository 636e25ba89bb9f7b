"""Small stand-ins for the slow or unruly parts; everything else in the tests is real."""

import threading
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from protos.tensors import Array
from server.backends.base import Signature, TensorSpec

Compute = Callable[[Mapping[str, Array]], dict[str, Array]]


def double(inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The model of most tests: y = 2 x."""
    return {"y": inputs["x"] * 2}


def row_signature(width: int | str = 2) -> Signature:
    """x FP32[n, width] -> y FP32[n, width]."""
    shape = ("n", width)
    return Signature((TensorSpec("x", "FP32", shape),), (TensorSpec("y", "FP32", shape),))


class FakeBackend:
    """A backend that computes with numpy, notes its batches, and can be made to wait.

    With `gate` set to an unset event every run blocks until it is set; `entered` is released
    once per run that began.
    """

    platform = "fake"
    artifact_id = "fake-1"
    devices: tuple[str, ...] = ("cpu",)

    def __init__(
        self,
        compute: Compute = double,
        signature: Signature | None = None,
        threads: int = 1,
    ) -> None:
        self.signature = signature or row_signature()
        self.threads = threads
        self.memory_bytes = 0
        self.batches: list[int] = []
        self.inputs: list[Mapping[str, Array]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.is_closed = False
        self._compute = compute

    def run(self, inputs: Mapping[str, Array], output_names: Sequence[str]) -> list[Array]:
        self.batches.append(len(next(iter(inputs.values()))))
        self.inputs.append(inputs)
        self.entered.release()
        if not self.gate.wait(30):
            raise TimeoutError("the test never opened the gate")
        outputs = self._compute(inputs)
        return [outputs[name] for name in output_names]

    def close(self) -> None:
        self.is_closed = True


def rows(*values: float) -> Array:
    """FP32[n, 2], each row one value twice."""
    return np.repeat(np.array(values, np.float32)[:, None], 2, axis=1)
