"""`inflight demo`: from a data set to live predictions that become faster while clients send.

Trains a network on scikit-learn's handwritten digits, serves it as it is from a process of its own,
sends it the held-out images from concurrent clients, has it optimized meanwhile, and compares
before and after. What is printed was measured in this run; the latency is what the server says.
"""

import argparse
import asyncio
import json
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from client import AsyncClient, InferenceError
from protos.models_pb2 import ModelLatency
from protos.optimization_pb2 import OptimizationJob
from protos.tensors import Array
from server.commands.connection import positive, seconds
from server.commands.demo_model import INSTALL, MODEL, Digits, NotInstalled, train

_READY = re.compile(r"inflight ready grpc=(\S+)")
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 60.0
# Of each client between two requests while the model is optimized: clients that keep every core
# busy would make the demo long, since optimizing gives way to serving.
_PAUSE_S = 0.05
_WINDOWS_S = (1, 10, 60, 300)  # of the latency the server keeps


class DemoFailed(Exception):
    """The demo cannot go on; the message is one line for the person who started it."""


@dataclass(slots=True)
class Phase:
    """What the clients got in one part of the demo: the last label of each image, and counts."""

    labels: dict[int, int] = field(default_factory=dict)
    answered: int = 0
    failures: list[InferenceError] = field(default_factory=list)
    is_complete: asyncio.Event = field(default_factory=asyncio.Event)
    elapsed_s: float = 0.0
    latency: ModelLatency | None = None


@dataclass(slots=True)
class _Server:
    """The server's process and its address."""

    process: asyncio.subprocess.Process
    address: str
    ready_s: float

    async def stop(self) -> None:
        """SIGTERM, drain, exit 0; anything else fails the demo."""
        self.process.send_signal(signal.SIGTERM)
        try:
            code = await asyncio.wait_for(self.process.wait(), _STOP_TIMEOUT_S)
        except TimeoutError:
            raise DemoFailed(
                f"the server still runs {_STOP_TIMEOUT_S:.0f} s after SIGTERM"
            ) from None
        if code:
            raise DemoFailed(f"the server ended with exit code {code} after SIGTERM")


class _Traffic:
    """Clients that send one image after the other until they are stopped."""

    def __init__(self, client: AsyncClient, images: Array, clients: int) -> None:
        self._client, self._images = client, images
        self._phase = Phase()
        self._pause_s = 0.0  # of each client between two requests
        self._is_stopping = False
        self._began = time.monotonic()
        self._rows = cycle(range(len(images)))
        self._callers = [asyncio.create_task(self._call()) for _ in range(clients)]

    async def every_image(self) -> None:
        """Waits until each image has been answered in this phase, or a request has failed."""
        await self._phase.is_complete.wait()

    def next_phase(self, pause_s: float = 0.0) -> Phase:
        """Ends a phase and begins the next; requests count where they are answered."""
        self._pause_s = pause_s
        ended, self._phase = self._phase, Phase()
        now = time.monotonic()
        ended.elapsed_s, self._began = now - self._began, now
        return ended

    async def stop(self) -> None:
        self._is_stopping = True
        await asyncio.gather(*self._callers)

    async def _call(self) -> None:
        while not self._is_stopping:
            row = next(self._rows)
            try:
                outputs = await self._client.predict(MODEL, {"X": self._images[row : row + 1]})
            except InferenceError as error:
                self._phase.failures.append(error)
                self._phase.is_complete.set()
                return
            self._phase.answered += 1
            self._phase.labels[row] = int(outputs["label"].item())
            if len(self._phase.labels) == len(self._images):
                self._phase.is_complete.set()
            if self._pause_s:
                await asyncio.sleep(self._pause_s)


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "demo",
        help="train a model, serve it, optimize it under traffic, print what happened",
        description=f"Needs scikit-learn and skl2onnx: {INSTALL}.",
    )
    parser.add_argument(
        "--seconds",
        type=seconds,
        default=10.0,
        metavar="X",
        help="how long the clients send before the optimization, and after it (default: 10)",
    )
    parser.add_argument(
        "--clients",
        type=positive,
        default=16,
        metavar="N",
        help="concurrent clients (default: 16)",
    )


def run(args: argparse.Namespace) -> int:
    try:
        asyncio.run(_demo(args.clients, args.seconds))
    except (DemoFailed, NotInstalled, InferenceError) as failure:
        print(f"inflight demo: {failure}", file=sys.stderr)
        return 1
    return 0


async def _demo(clients: int, seconds: float) -> None:
    print("Inflight demo: handwritten digits, served at once and optimized under traffic\n")
    with tempfile.TemporaryDirectory(prefix="inflight-demo-") as folder:
        digits = train(Path(folder, "models"))
        _row("train", f"{digits.trained_on:,} images, scikit-learn network", digits.train_s)
        async with _serving(digits.repository, Path(folder)) as server:
            _row("serve", f"process {server.process.pid}, gRPC on {server.address}", server.ready_s)
            async with AsyncClient(server.address, timeout_s=30) as client:
                phases, job = await _send(client, digits, clients, seconds)
            began = time.monotonic()
            await server.stop()
    _row("stop", "SIGTERM, drained, exit code 0", time.monotonic() - began)
    print()
    _report(digits, phases, job)


async def _send(
    client: AsyncClient, digits: Digits, clients: int, seconds: float
) -> tuple[list[Phase], OptimizationJob]:
    """Traffic before, during and after an optimization; ends the demo where a request failed."""
    traffic = _Traffic(client, digits.images, clients)
    try:
        before = await _measured(client, traffic, seconds, _PAUSE_S)
        _row("predict", f"{clients} clients, one image a request", before.elapsed_s)
        job = await _optimized(client)
        during = traffic.next_phase()
        _row("optimize", f"{len(job.candidates)} candidates, while clients send", during.elapsed_s)
        after = await _measured(client, traffic, seconds)
        _row("predict", f"the same clients, {job.artifact_id} serves", after.elapsed_s)
    finally:
        await traffic.stop()
    phases = [before, during, after]
    failures = [failure for phase in phases for failure in phase.failures]
    if failures:
        raise DemoFailed(f"{len(failures)} requests failed, the first with {failures[0]}")
    return phases, job


async def _measured(
    client: AsyncClient, traffic: _Traffic, seconds: float, pause_s: float = 0.0
) -> Phase:
    """A phase of so many seconds, or longer until every image was sent, with its latency.

    `pause_s` is of the phase that follows.
    """
    await asyncio.sleep(seconds)
    await traffic.every_image()
    window = max(w for w in _WINDOWS_S if w <= max(1.0, seconds))
    latency = (await client.latency(MODEL, window_s=window))[0]
    phase = traffic.next_phase(pause_s)
    phase.latency = latency
    return phase


async def _optimized(client: AsyncClient) -> OptimizationJob:
    """Asks for a job and waits until what it found serves."""
    asked = await client.optimize(MODEL, quick=True)
    async for _ in client.watch_optimization(asked.id):
        pass  # until it has ended
    job = await client.optimization(asked.id)
    if not job.is_serving:
        why = job.not_serving_reason or job.reason or "no reason given"
        raise DemoFailed(f"the optimization {job.id} changed nothing: {why}")
    return job


@asynccontextmanager
async def _serving(repository: Path, folder: Path) -> AsyncIterator[_Server]:
    """The real server on free ports; killed at the end if it still runs."""
    log, began = folder / "server.log", time.monotonic()
    options = ["--grpc-port", "0", "--http-port", "0", "--state-dir", str(folder / "state")]
    with log.open("w") as stderr:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "server", "serve", str(repository), "--optimize", "off", *options,
            stdout=asyncio.subprocess.PIPE, stderr=stderr, env=_server_environment(),
        )  # fmt: skip
    try:
        address = await _ready(process, log)
        yield _Server(process, address, time.monotonic() - began)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _server_environment() -> dict[str, str]:
    """This process's, but with this package importable from any directory and no stray options."""
    root = str(Path(__file__).parents[2])
    kept = {key: value for key, value in os.environ.items() if not key.startswith("INFLIGHT_")}
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, [root, kept.get("PYTHONPATH")]))}


async def _ready(process: asyncio.subprocess.Process, log: Path) -> str:
    """The address of the ready line."""
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), _START_TIMEOUT_S)
    except TimeoutError:
        raise DemoFailed(f"the server was not ready within {_START_TIMEOUT_S:.0f} s") from None
    ready = _READY.match(line.decode())
    if not ready:
        raise DemoFailed(f"the server did not start: {_last_line(log) or 'it printed nothing'}")
    return ready[1]


def _last_line(log: Path) -> str:
    return log.read_text(errors="replace").strip().rpartition("\n")[2]


def _report(digits: Digits, phases: list[Phase], job: OptimizationJob) -> None:
    before, during, after = phases
    report: dict[str, Any] = json.loads(job.report_json)
    print(f"  {'':22} {'before':>12} {'after':>12}")
    for name, old, new in (
        *_sizes(report),
        ("accuracy, served", _accuracy(before, digits), _accuracy(after, digits)),
        ("requests/s", _rate(before), _rate(after)),
        ("rows in a batch", _rows(before), _rows(after)),
        *_percentiles(before, after),
    ):
        print(f"  {name:22} {old:>12} {new:>12}")
    window_s = after.latency.window_s if after.latency else 0
    print(f"\n  latency       as the server measured it, last {window_s} s of each part")
    print(f"  scikit-learn  accuracy {_share(digits.expected, digits.labels)} in this process;"
          f" {_differ(before, digits)} answers differ before, {_differ(after, digits)} after,"
          f" of {len(digits.images)}")  # fmt: skip
    print(f"  meanwhile     {during.answered:,} requests, none failed")
    print(f"  why           {job.reason or report.get('reason', '')}")


def _sizes(report: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    original, optimized = report["original"], report["optimized"]
    yield "form", str(original["format"]), str(optimized["format"])
    yield "size, MB", f"{original['size_mb']:.2f}", f"{optimized['size_mb']:.2f}"


def _percentiles(before: Phase, after: Phase) -> Iterator[tuple[str, str, str]]:
    assert before.latency is not None
    assert after.latency is not None
    for stage in ("total", "queue", "compute"):
        for quantile in ("p50", "p95", "p99"):
            values = (getattr(getattr(p.latency, stage), f"{quantile}_ms") for p in (before, after))
            old, new = values
            yield f"{stage} {quantile}, ms", f"{old:.2f}", f"{new:.2f}"


def _rate(phase: Phase) -> str:
    return f"{phase.answered / phase.elapsed_s:,.0f}"


def _rows(phase: Phase) -> str:
    assert phase.latency is not None
    return f"{phase.latency.rows / max(1, phase.latency.batches):.1f}"


def _accuracy(phase: Phase, digits: Digits) -> str:
    return _share(_served(phase, digits), digits.labels)


def _differ(phase: Phase, digits: Digits) -> int:
    return int((_served(phase, digits) != digits.expected).sum())


def _served(phase: Phase, digits: Digits) -> Array:
    return np.array([phase.labels[row] for row in range(len(digits.images))])


def _share(answers: Array, truth: Array) -> str:
    return f"{float((answers == truth).mean()):.4f}"


def _row(step: str, what: str, seconds: float) -> None:
    print(f"  {step:10} {what:44} {seconds:6.1f} s", flush=True)
