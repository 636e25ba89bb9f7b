"""What a stage's child process and its parent say to each other: frames of pickled values.

The parent is a server that imports no training framework and runs no code of a model. What a child
sends, after it opened a model of anybody's, may therefore only be made of plain values.
"""

import importlib
import os
import pickle
import struct
import threading
from collections.abc import Iterator
from dataclasses import is_dataclass
from enum import Enum, IntEnum
from io import BytesIO
from typing import Any

import numpy as np

from optimizer.errors import StageFailed

_HEAD = struct.Struct("<BQ")  # kind, bytes that follow

_LIBRARIES = frozenset(("collections", "datetime", "decimal", "pathlib"))  # all classes are values
# Where values may come from; besides, from the package of the stage's function.
_PACKAGES = _LIBRARIES | {"builtins", "ml_dtypes", "numpy", "optimizer", "protos", "server"}
# Of the builtins, those that only hold values; exceptions come too.
_BUILTINS: tuple[type, ...] = (bool, bytearray, bytes, complex, dict, float, frozenset, int)
_BUILTINS += (list, object, range, set, slice, str, tuple)
# NumPy's own way of restoring arrays and scalars (`numpy.core` before NumPy 2).
_FUNCTIONS = frozenset(
    (f"numpy.{core}.{module}", name)
    for core in ("_core", "core")
    for module, name in (
        ("multiarray", "_reconstruct"),
        ("multiarray", "scalar"),
        ("numeric", "_frombuffer"),
    )
)


class Kind(IntEnum):
    PROGRESS = 1  # a value, any number of times
    RESULT = 2  # what the function returned; the last frame
    RAISED = 3  # an OptimizationError; the last frame
    FAILED = 4  # the text of any other exception; the last frame


class Sender:
    """The child's end. Threads of the process that made it may send; forks of it are not heard."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._pid = os.getpid()
        self._lock = threading.Lock()

    def send(self, kind: Kind, value: object) -> None:
        """Blocks until the parent took it. Raises what pickle raises, before anything is sent."""
        if os.getpid() != self._pid:
            return
        body = pickle.dumps(value, protocol=5)
        with self._lock:
            self._write(_HEAD.pack(kind, len(body)))
            self._write(body)

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._fd, rest) :]


class Receiver:
    """The parent's end: is fed bytes as they come and yields whole frames."""

    def __init__(self, package: str) -> None:
        self._allowed = _PACKAGES | {package}
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[Kind, Any]]:
        """Raises StageFailed for a frame that holds more than plain values."""
        self._buffer += data
        while len(self._buffer) >= _HEAD.size:
            kind, size = _HEAD.unpack_from(self._buffer)
            end = _HEAD.size + size
            if len(self._buffer) < end:
                return
            body = bytes(memoryview(self._buffer)[_HEAD.size : end])
            del self._buffer[:end]
            yield Kind(kind), _PlainUnpickler(body, self._allowed).read()


class _PlainUnpickler(pickle.Unpickler):
    """Restores values, and neither calls functions nor imports packages that are not ours."""

    def __init__(self, body: bytes, packages: frozenset[str]) -> None:
        super().__init__(BytesIO(body))
        self._packages = packages

    def read(self) -> Any:
        try:
            return self.load()
        except StageFailed:
            raise
        except Exception as error:
            raise StageFailed(f"what the stage sent cannot be read: {error!r}") from error

    def find_class(self, module: str, name: str) -> Any:
        package = module.partition(".")[0]
        if package in self._packages:
            found = getattr(importlib.import_module(module), name, None)
            if (module, name) in _FUNCTIONS or self._is_plain(found, package):
                return found
        raise StageFailed(f"a stage returns plain values only, and this one sent a {module}.{name}")

    def _is_plain(self, found: object, package: str) -> bool:
        if not isinstance(found, type):
            return False
        if package == "builtins":
            return found in _BUILTINS or issubclass(found, Exception)
        if package in _LIBRARIES:
            return True
        if package in ("numpy", "ml_dtypes"):
            return found in (np.ndarray, np.dtype) or issubclass(found, np.generic)
        return is_dataclass(found) or issubclass(found, Enum | Exception | tuple)
