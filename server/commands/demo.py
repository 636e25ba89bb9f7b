"""`inflight demo`: from a data set to live predictions, with the real server and real gRPC.

Trains on scikit-learn's handwritten digits, converts the model to ONNX, serves it from a process
of its own, sends it the held-out images from concurrent clients, and prints what the server says
about itself. What is printed was measured in this run.
"""

import argparse
import asyncio
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from client import AsyncClient, InferenceError
from protos.models_pb2 import ModelLatency, StageLatency
from protos.tensors import Array
from server.commands.connection import positive, seconds

MODEL = "digits"
_INSTALL = "pip install 'inflight[sklearn]'"  # not [cpu]: it would replace a GPU's runtime
_READY = re.compile(r"inflight ready grpc=(\S+)")
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 60.0
_WINDOWS_S = (1, 10, 60, 300)  # of the latency the server keeps


class DemoFailed(Exception):
    """The demo cannot go on; the message is one line for the person who started it."""


@dataclass(frozen=True, slots=True)
class Digits:
    """A trained classifier, its ONNX form, and the images it has not seen."""

    onnx: bytes
    images: Array  # float32[n, 64]
    labels: Array  # what they show
    expected: Array  # what the classifier says in process
    trained_on: int
    train_s: float
    convert_s: float


@dataclass(slots=True)
class Answers:
    """What the clients got: one label per image (of its last request), and counts."""

    labels: dict[int, int] = field(default_factory=dict)
    answered: int = 0
    failures: list[InferenceError] = field(default_factory=list)
    elapsed_s: float = 0.0


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


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = subparsers.add_parser(
        "demo",
        help="train a model, serve it, send it real requests, print what happened",
        description=f"Needs scikit-learn and skl2onnx: {_INSTALL}.",
    )
    parser.add_argument(
        "--seconds",
        type=seconds,
        default=5.0,
        metavar="X",
        help="how long the clients send (default: 5)",
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
    except (DemoFailed, InferenceError) as failure:
        print(f"inflight demo: {failure}", file=sys.stderr)
        return 1
    return 0


async def _demo(clients: int, seconds: float) -> None:
    print("Inflight demo: handwritten digits, from a data set to live predictions\n")
    digits = _train()
    _row("train", f"{digits.trained_on:,} images, scikit-learn", digits.train_s)
    _row("convert", f"to ONNX, {len(digits.onnx) / 1024:,.0f} KiB", digits.convert_s)
    with tempfile.TemporaryDirectory(prefix="inflight-demo-") as folder:
        repository = _write_repository(Path(folder, "models"), digits.onnx)
        async with _serving(repository, Path(folder)) as server:
            _row("serve", f"process {server.process.pid}, gRPC on {server.address}", server.ready_s)
            answers = await _send(server.address, digits.images, clients, seconds)
            _row("predict", f"{clients} clients, one image a request", answers.elapsed_s)
            latency = await _latency(server.address, answers.elapsed_s)
            began = time.monotonic()
            await server.stop()
    _row("stop", "SIGTERM, drained, exit code 0", time.monotonic() - began)
    print()
    _report(digits, answers, latency)


def _train() -> Digits:
    """Trains on 70 % of the digits and converts the model."""
    try:
        from skl2onnx import to_onnx  # noqa: PLC0415  only the demo needs these
        from sklearn.datasets import load_digits  # noqa: PLC0415
        from sklearn.model_selection import train_test_split  # noqa: PLC0415
        from sklearn.neighbors import KNeighborsClassifier  # noqa: PLC0415
    except ImportError as error:
        raise DemoFailed(f"{error.name} is not installed: {_INSTALL}") from None
    images, labels = load_digits(return_X_y=True)
    x, held_out, y, truth = train_test_split(
        (images / 16).astype(np.float32), labels, test_size=0.3, random_state=0, stratify=labels
    )
    began = time.monotonic()
    # Ten images take little longer than one: the kind of model that batching is for.
    model = KNeighborsClassifier(3).fit(x, y)
    trained = time.monotonic()
    # Without zipmap the probabilities are one float tensor, not a list of dictionaries.
    converted = to_onnx(model, x[:1], options={id(model): {"zipmap": False}})
    return Digits(
        onnx=converted.SerializeToString(),
        images=held_out,
        labels=truth,
        expected=model.predict(held_out),
        trained_on=len(x),
        train_s=trained - began,
        convert_s=time.monotonic() - trained,
    )


def _write_repository(repository: Path, model: bytes) -> Path:
    version = repository / MODEL / "1"
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(model)
    return repository


@asynccontextmanager
async def _serving(repository: Path, folder: Path) -> AsyncIterator[_Server]:
    """The real server on free ports; killed at the end if it still runs."""
    log, began = folder / "server.log", time.monotonic()
    options = ["--grpc-port", "0", "--http-port", "0", "--state-dir", str(folder / "state")]
    with log.open("w") as stderr:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "server", "serve", str(repository), *options,
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


async def _send(address: str, images: Array, clients: int, seconds: float) -> Answers:
    """Every image at least once, then again until `seconds` have passed."""
    answers, began = Answers(), time.monotonic()

    def due() -> Iterator[int]:
        for request in count():
            if request >= len(images) and time.monotonic() - began >= seconds:
                return
            yield request % len(images)

    async def call(requests: Iterator[int], client: AsyncClient) -> None:
        for index in requests:
            try:
                outputs = await client.predict(MODEL, {"X": images[index : index + 1]})
            except InferenceError as error:
                answers.failures.append(error)
                continue
            answers.answered += 1
            answers.labels[index] = int(outputs["label"].item())

    async with AsyncClient(address, timeout_s=30) as client:
        requests = due()
        await asyncio.gather(*(call(requests, client) for _ in range(clients)))
    answers.elapsed_s = time.monotonic() - began
    return answers


async def _latency(address: str, elapsed_s: float) -> ModelLatency:
    window = next((w for w in _WINDOWS_S if w >= elapsed_s), _WINDOWS_S[-1])
    async with AsyncClient(address, timeout_s=10) as client:
        return (await client.latency(MODEL, window_s=window))[0]


def _report(digits: Digits, answers: Answers, latency: ModelLatency) -> None:
    if answers.failures:
        failed = len(answers.failures)
        raise DemoFailed(f"{failed} requests failed, the first with {answers.failures[0]}")
    served = np.array([answers.labels[index] for index in range(len(digits.images))])
    differ = int((served != digits.expected).sum())
    print(f"  accuracy     served {_share(served, digits.labels)}, "
          f"scikit-learn {_share(digits.expected, digits.labels)} on {len(served)} held-out images "
          f"({differ} answers differ)")  # fmt: skip
    print(f"  throughput   {answers.answered:,} requests, "
          f"{answers.answered / answers.elapsed_s:,.0f} requests/s")  # fmt: skip
    print(f"  batches      {latency.batches:,}, {latency.rows / max(1, latency.batches):.1f} rows "
          f"on average ({_reasons(latency)})")  # fmt: skip
    print(f"  latency      as the server measured it, last {latency.window_s} s\n")
    print(f"  {'':10} {'p50':>8} {'p95':>8} {'p99':>8} {'max':>8}   ms")
    stages = {"total": latency.total, "queue": latency.queue, "compute": latency.compute}
    for name, stage in stages.items():
        print(f"  {name:10} {_milliseconds(stage)}")


def _milliseconds(stage: StageLatency) -> str:
    values = (stage.p50_ms, stage.p95_ms, stage.p99_ms, stage.max_ms)
    return " ".join(f"{value:8.2f}" for value in values)


def _reasons(latency: ModelLatency) -> str:
    named: dict[str, Any] = dict(latency.released)
    ordered = sorted(named.items(), key=lambda item: -item[1])
    return ", ".join(f"{reason.replace('_', ' ')} {number:,}" for reason, number in ordered)


def _share(answers: Array, truth: Array) -> str:
    return f"{float((answers == truth).mean()):.4f}"


def _row(step: str, what: str, seconds: float) -> None:
    print(f"  {step:10} {what:44} {seconds:6.1f} s", flush=True)
