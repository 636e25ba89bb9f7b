"""The bare model in this process: the throughput and latency that serving is measured against."""

import sys
import threading
import time
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort

from protos.tensors import Array

# As the server sets up CUDA: the floor must not differ in anything but the serving.
_CUDA_OPTIONS = {
    "cudnn_conv_algo_search": "HEURISTIC",
    "arena_extend_strategy": "kSameAsRequested",
}
_GPU_CALLERS = (1, 2)  # a second one copies while the first computes


class NoSuchDevice(Exception):
    """The bare model does not run on the device that the server runs it on."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How `session.run` is called: `callers` threads, each with runs of `threads` threads."""

    threads: int
    callers: int
    batch: int


@dataclass(frozen=True, slots=True)
class BareLatency:
    """One caller, one row at a time, in milliseconds."""

    p50_ms: float
    p99_ms: float


class Floor:
    """One model on "cpu" or "cuda:0".

    On a CPU it is opened twice: with one thread per run and with all cores per run. On a GPU once,
    and called by one thread or by two.

    Raises:
        NoSuchDevice: it does not run there.
    """

    def __init__(
        self, model: bytes, row: Mapping[str, Array], cores: int, device: str = "cpu"
    ) -> None:
        self._row, self._cores, self._is_on_cpu = row, cores, device == "cpu"
        sizes = {1, cores} if self._is_on_cpu else {1}
        self._sessions = {threads: _open(model, threads, device) for threads in sizes}

    def best(self, batches: tuple[int, ...], duration_s: float) -> tuple[Layout, float]:
        """The fastest of all layouts and batch sizes, and its rows per second."""
        layouts = [
            Layout(threads, callers, batch)
            for threads in self._sessions
            for callers in ((self._cores // threads,) if self._is_on_cpu else _GPU_CALLERS)
            for batch in batches
        ]
        speeds = {layout: self.rows_per_s(layout, duration_s) for layout in layouts}
        best = max(speeds, key=speeds.__getitem__)
        return best, speeds[best]

    def rows_per_s(self, layout: Layout, duration_s: float) -> float:
        """Throughput of the layout over at least `duration_s` and at least one run per caller."""
        session, inputs = self._sessions[layout.threads], self._rows(layout.batch)
        session.run(None, inputs)
        runs = [0] * layout.callers
        start = time.monotonic()

        def call(caller: int) -> None:
            while runs[caller] == 0 or time.monotonic() < start + duration_s:
                session.run(None, inputs)
                runs[caller] += 1

        threads = [threading.Thread(target=call, args=(n,)) for n in range(layout.callers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(runs) * layout.batch / (time.monotonic() - start)

    def latency(self, duration_s: float) -> BareLatency:
        """A lone caller with all cores: the fastest a single request can be."""
        session, inputs = self._sessions[max(self._sessions)], self._rows(1)
        session.run(None, inputs)
        times: list[float] = []
        end = time.monotonic() + duration_s
        while time.monotonic() < end:
            began = time.monotonic()
            session.run(None, inputs)
            times.append(time.monotonic() - began)
        p50, p99 = np.percentile(times, [50, 99]) * 1e3
        return BareLatency(float(p50), float(p99))

    def _rows(self, batch: int) -> dict[str, Array]:
        return {name: np.repeat(array, batch, axis=0) for name, array in self._row.items()}


def _open(model: bytes, threads: int, device: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    name, _, number = device.partition(":")
    cpu = "CPUExecutionProvider"
    if name == "cpu":
        return ort.InferenceSession(model, options, providers=[cpu])
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        raise NoSuchDevice(f"{device}: this onnxruntime is built without CUDA")
    with redirect_stdout(sys.stderr):  # stdout is the report's
        ort.preload_dlls()
    cuda = ("CUDAExecutionProvider", {"device_id": number, **_CUDA_OPTIONS})
    session = ort.InferenceSession(model, options, providers=[cuda, cpu], enable_fallback=0)
    if session.get_providers()[0] != cuda[0]:
        raise NoSuchDevice(f"{device}: CUDA did not start; ONNX Runtime says why on stderr")
    return session
