"""The process in which a training framework runs a model: loads it, then answers until told to end.

    python -m optimizer.native_child DESCRIPTOR LIFE LOADER

DESCRIPTOR is its end of a `native_channel`, LIFE of a pipe as `lifeline` wants it, LOADER names the
function that loads a model ("optimizer.frameworks:load_native"). It ends when the other end closes,
and is killed by the kernel, with all that it started, when the process that started it is gone.

The first message says which model; the answer is its signature, or why it cannot be loaded. Each
further one is a batch; the answer is its outputs, or why the model failed.
"""

import importlib
import os
import signal
import socket
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from optimizer import lifeline
from optimizer.errors import OptimizationError
from optimizer.frameworks.contract import NativeModel
from optimizer.native_channel import Channel
from optimizer.samples import Samples
from optimizer.source import SourceModel
from protos.tensors import Array, datatype_of

_MAX_TEXT = 300
_MAX_DETAIL = 4000


class Load(Protocol):
    """`optimizer.frameworks.load_native`, or what stands in for it."""

    def __call__(self, source: SourceModel, samples: Samples | None) -> NativeModel: ...


def main(arguments: list[str]) -> None:
    descriptor, life, loader = arguments
    for fd in (int(descriptor), int(life)):
        os.set_inheritable(fd, False)
    lifeline.die_with(int(life))
    # A terminal's Ctrl-C and a service manager's SIGTERM reach the server, which finishes what it
    # has accepted, and needs its models for that.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    channel = Channel(socket.socket(fileno=int(descriptor)))
    try:
        model = _load(channel, loader)
        while model is not None:
            _answer(channel, model)
    except (EOFError, ConnectionError):
        return  # nobody is there any more


def _load(channel: Channel, loader: str) -> NativeModel | None:
    said, _ = channel.receive(copy=False)
    try:
        load = _function(loader)
        source = SourceModel(Path(said["path"]), said["framework"])
        samples = Samples.load(Path(said["samples"])) if said["samples"] else None
        model = load(source, samples)
        value = {"signature": model.signature.to_json(), "memory_bytes": _resident_bytes()}
    except BaseException as error:
        channel.send({"error": _load_reason(error)}, {})
        return None
    channel.send(value, {})
    return model


def _function(name: str) -> Load:
    module, _, function = name.partition(":")
    load: Load = getattr(importlib.import_module(module), function)
    return load


def _load_reason(error: BaseException) -> str:
    if isinstance(error, OptimizationError):
        return str(error)
    traceback.print_exception(error)  # to the log of the server
    return _short(error)


def _answer(channel: Channel, model: NativeModel) -> None:
    said, inputs = channel.receive(copy=False)
    try:
        outputs = _selected(model.predict(inputs), said["outputs"])
    except Exception as error:
        channel.send(_failure(error), {})
        return
    channel.send({}, outputs)


def _selected(outputs: Mapping[str, Array], names: list[str]) -> dict[str, Array]:
    missing = [name for name in names if name not in outputs]
    if missing:
        raise ValueError(f"the model gave no output {missing}, only {list(outputs)}")
    arrays = {name: np.asarray(outputs[name]) for name in names}
    for array in arrays.values():
        datatype_of(array)  # raises where it cannot be carried
    return arrays


def _failure(error: Exception) -> dict[str, Any]:
    detail = "".join(traceback.format_exception(error))
    return {"error": _short(error), "detail": detail[-_MAX_DETAIL:]}


def _short(error: BaseException) -> str:
    """One line for people: a framework's first line says what is wrong, the others where."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main(sys.argv[1:])
