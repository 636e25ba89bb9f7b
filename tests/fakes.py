"""Small stand-ins for the slow or unruly parts; everything else in the tests is real."""

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import numpy as np

from protos.signature import Signature, TensorSpec
from protos.tensors import Array
from server.errors import LoadFailed
from server.model_config import VersionSource
from server.probe import Profile
from server.served import ServedVersion

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
    fallback = ""
    is_in_process = True
    instances: int | None = None

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
        self.closed = threading.Event()
        self.interrupted: list[int] = []
        self._compute = compute

    def run(self, inputs: Mapping[str, Array], output_names: Sequence[str]) -> list[Array]:
        self.batches.append(len(next(iter(inputs.values()))))
        self.inputs.append(inputs)
        self.entered.release()
        if not self.gate.wait(30):
            raise TimeoutError("the test never opened the gate")
        outputs = self._compute(inputs)
        return [outputs[name] for name in output_names]

    def interrupt(self, thread: int) -> None:
        self.interrupted.append(thread)

    @property
    def is_closed(self) -> bool:
        return self.closed.is_set()

    def close(self) -> None:
        self.closed.set()


def rows(*values: float) -> Array:
    """FP32[n, 2], each row one value twice."""
    return np.repeat(np.array(values, np.float32)[:, None], 2, axis=1)


class FakeVersion:
    """A served version without a model: what the registry sees of one."""

    def __init__(self, source: VersionSource) -> None:
        self.model, self.version, self.config = source.model, source.version, source.config
        self.optimized = source.optimized
        path = source.path if source.optimized is None else source.optimized.artifact.path
        self.content = path.read_bytes() if path.is_file() else b""
        self.artifact_id = f"fake-{self.content.decode()}"
        self.signature = row_signature(3 if self.content == b"wider" else 2)
        self.profile = Profile(batchable=True)
        self.succeeded: object = None
        self.problem = ""
        self.on_health: Callable[[], None] = lambda: None
        self.handles = 0
        self.retired = asyncio.Event()
        self._closed = asyncio.Event()

    @property
    def is_retired(self) -> bool:
        return self.retired.is_set()

    @property
    def is_closed(self) -> bool:
        return self._closed.is_set()

    def succeed(self, other: object) -> None:
        self.succeeded = other

    def acquire(self) -> None:
        self.handles += 1

    def release(self) -> None:
        self.handles -= 1
        self._close_if_done()

    def retire(self) -> None:
        self.retired.set()
        self._close_if_done()

    async def closed(self) -> None:
        await self._closed.wait()

    def _close_if_done(self) -> None:
        if self.is_retired and not self.handles:
            self._closed.set()


class FakeOpener:
    """Opens fake versions; notes them; fails and waits as told.

    A model whose file says "corrupt" fails to open. While `gate` is closed, loads wait in it;
    `entered` is released once per load that began, `done` once per version opened.
    """

    def __init__(self) -> None:
        self.opened: list[FakeVersion] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered, self.done = asyncio.Semaphore(0), asyncio.Semaphore(0)
        self.at_once = self.most_at_once = 0

    async def __call__(self, source: VersionSource) -> ServedVersion:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.entered.release()
        try:
            await self.gate.wait()
        finally:
            self.at_once -= 1
        version = FakeVersion(source)
        if version.content == b"corrupt":
            raise LoadFailed("the file is corrupt")
        self.opened.append(version)
        self.done.release()
        return cast(ServedVersion, version)

    @property
    def open_now(self) -> list[tuple[str, int]]:
        """Model and version of everything that was not closed, sorted."""
        return sorted((v.model, v.version) for v in self.opened if not v.is_closed)


def fake(served: ServedVersion) -> FakeVersion:
    """The fake that a registry with a `FakeOpener` takes for a served version."""
    return cast(FakeVersion, served)
