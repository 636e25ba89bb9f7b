"""Models that a native child process loads instead of a framework's, to be made to misbehave."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from optimizer.errors import SourceError
from optimizer.frameworks.contract import Task
from optimizer.samples import Samples
from optimizer.source import SourceModel
from protos.signature import Signature, TensorSpec
from protos.tensors import Array

LOADER = "tests.native_models:load"

LARGE_BYTES = 2**28
# As the first value of "x": what the model does instead of answering.
DIE, HANG, RAISE = 1e6, 2e6, 3e6


class Model:
    """y = 2 x; what was said, in capitals; and who answers with which settings."""

    task: Task = "other"
    weights: Array | None = None
    signature = Signature(
        (TensorSpec("x", "FP32", ("n", "w")), TensorSpec("text", "BYTES", ("n",), optional=True)),
        (
            TensorSpec("y", "FP32", ("n", "w")),
            TensorSpec("loud", "BYTES", ("n",)),
            TensorSpec("process", "INT64", (4,)),
        ),
    )

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        x = inputs["x"]
        first = x.flat[0] if x.size else 0.0
        if first == DIE:
            os.kill(os.getpid(), signal.SIGKILL)
        if first == HANG:
            print("hanging", flush=True)
            while True:
                time.sleep(1000)
        if first == RAISE:
            raise ValueError("x is not to my taste\nwith much detail")
        texts = inputs.get("text", np.array([b"none"] * len(x), object))
        loud = np.array([text.upper() for text in texts.ravel()], object)
        threads = int(os.environ["OMP_NUM_THREADS"])
        niceness = os.getpriority(os.PRIO_PROCESS, 0)
        process = np.array([os.getpid(), os.getppid(), threads, niceness])
        return {"y": x * 2, "loud": loud.reshape(texts.shape), "process": process}


def load(source: SourceModel, samples: Samples | None) -> Model:
    """What to do is written in the file."""
    said = source.path.read_text().strip()
    print("loading", said, file=sys.stderr)
    if said == "refuse":
        raise SourceError(f"'{source.path.name}' was made by version 0")
    if said == "raise":
        raise KeyError("weights")
    if said == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if said == "start a process":
        started = subprocess.Popen(["sleep", "1000"])
        source.path.with_name("started").write_text(str(started.pid))
    if said == "die next time":
        source.path.with_name("once").touch()
    if said == "die unless once" and not _take(source.path.with_name("once")):
        os.kill(os.getpid(), signal.SIGKILL)
    model = Model()
    if said == "large but once" and not _take(source.path.with_name("once")):
        model.weights = np.ones(LARGE_BYTES // 8)
    return model


def _take(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True
