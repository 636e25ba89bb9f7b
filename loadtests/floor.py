"""The bare model in this process: the throughput and latency that serving is measured against."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort

from protos.tensors import Array


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
    """One model opened twice: with one thread per run and with all cores per run."""

    def __init__(self, model: bytes, row: Mapping[str, Array], cores: int) -> None:
        self._row, self._cores = row, cores
        self._sessions = {threads: _open(model, threads) for threads in {1, cores}}

    def best(self, batches: tuple[int, ...], duration_s: float) -> tuple[Layout, float]:
        """The fastest of all layouts and batch sizes, and its rows per second."""
        layouts = [
            Layout(threads, self._cores // threads, batch)
            for threads in self._sessions
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
        session, inputs = self._sessions[self._cores], self._rows(1)
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


def _open(model: bytes, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
