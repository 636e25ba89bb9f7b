"""Served against bare, in one run on one machine: `make bench`.

Every figure is a ratio or a difference to something measured seconds before or after it: the
throughput to a `session.run` loop at its best batch size and thread layout, the CPU per request
to a constant-answer grpc.aio server, the latency of a lone client to the bare call. One JSON
document goes to stdout, progress to stderr. A figure is the median over the rounds.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import grpc
import numpy as np

from client import Client
from loadtests import machine, perf_analyzer, python_client
from loadtests.floor import Floor
from loadtests.load_result import Load, LoadResult
from loadtests.models import BUILDERS, VOCABULARY, write_repository
from loadtests.server_process import Process, ServerProcess, serving
from protos.inference import grpc_service_pb2 as pb
from protos.tensors import Array

Generator = Callable[[Load], LoadResult]

MIN_THROUGHPUT_RATIO = 0.95  # of models whose lone bare call takes longer than the next line
HEAVY_MS = 5.0
MAX_CPU_RATIO = 1.15
MAX_ADDED_P99_MS = 0.5
_GPU_BATCHES = (1, 8, 16, 32, 64)
_GPU_CONCURRENCY = 128  # two batches of 64: one that computes, one that gathers
MIN_SAMPLES = 200  # a p99 of fewer, or a rate with a batch more or less, says little


@dataclass(frozen=True, slots=True)
class Subject:
    """A model under test, one row of its input, and how hard it is driven."""

    row: dict[str, Array]
    batches: tuple[int, ...]  # sizes the bare loop is tried with
    concurrency: int  # saturates the server

    def on(self, device: str) -> "Subject":
        """The same as hard as this device needs it."""
        if device == "cpu":
            return self
        return replace(self, batches=_GPU_BATCHES, concurrency=_GPU_CONCURRENCY)


def _subjects(sequence: int = 128) -> dict[str, Subject]:
    random = np.random.default_rng(0)
    ids = random.integers(0, VOCABULARY, (1, sequence))
    image = random.random((1, 3, 224, 224), np.float32)
    small = {"x": random.random((1, 16), np.float32)}
    features = {"x": random.random((1, 256), np.float32)}
    tokens: dict[str, Array] = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    return {
        "tiny": Subject(small, (1, 8, 32, 64), 64),
        "mlp": Subject(features, (1, 8, 32, 64), 64),
        "minilm": Subject(tokens, (1, 2, 4, 8, 16), 16),
        "resnet50": Subject({"image": image}, (1, 2, 4, 8), 8),
    }


class Bench:
    """Measures one subject after the other against one running server."""

    def __init__(self, server: ServerProcess, generate: Generator, seconds: float, rounds: int):
        self._server, self._generate = server, generate
        self._seconds, self._rounds = seconds, rounds
        self._cores = len(os.sched_getaffinity(0))

    def measure(self, name: str, subject: Subject) -> dict[str, Any]:
        """Measures one model on the device that the server has put it on."""
        device = self._device(name)
        subject = subject.on(device)
        floor = Floor(BUILDERS[name](), subject.row, self._cores, device)
        return {
            "device": device,
            "throughput": self._throughput(name, subject, floor),
            "concurrency_1": self._lone_client(name, subject, floor),
        }

    def _throughput(self, name: str, subject: Subject, floor: Floor) -> dict[str, Any]:
        layout, expected_per_s = floor.best(subject.batches, self._seconds / 4)
        seconds = max(self._seconds, MIN_SAMPLES / expected_per_s)
        load = self._load(name, subject, subject.concurrency, seconds)
        bare, served = [], []
        for _ in range(self._rounds):
            bare.append(floor.rows_per_s(layout, seconds))
            served.append(self._generate(load))
        return {
            "bare_layout": asdict(layout),
            "bare_per_s": median(bare),
            "served_per_s": median(result.per_s for result in served),
            "ratio": median(s.per_s / b for s, b in zip(served, bare, strict=True)),
            "served_runs": [asdict(result) for result in served],
            "bare_runs_per_s": bare,
        }

    def _lone_client(self, name: str, subject: Subject, floor: Floor) -> dict[str, Any]:
        expected_s = floor.latency(self._seconds / 4).p50_ms / 1e3
        seconds = max(self._seconds, MIN_SAMPLES * expected_s)
        load = self._load(name, subject, 1, seconds)
        bare, served = [], []
        for _ in range(self._rounds):
            bare.append(floor.latency(seconds))
            served.append(self._generate(load))
        pairs = list(zip(served, bare, strict=True))
        return {
            "bare_p50_ms": median(latency.p50_ms for latency in bare),
            "bare_p99_ms": median(latency.p99_ms for latency in bare),
            "served_p50_ms": median(result.p50_ms for result in served),
            "served_p99_ms": median(result.p99_ms for result in served),
            "added_p50_ms": median(s.p50_ms - b.p50_ms for s, b in pairs),
            "added_p99_ms": median(s.p99_ms - b.p99_ms for s, b in pairs),
        }

    def front_end(self, subject: Subject, ceiling: Process, address: str) -> dict[str, Any]:
        """Server CPU per request on the tiny model, next to the constant-answer server."""
        ours = self._load("tiny", subject, subject.concurrency, self._seconds)
        least = Load(address, "tiny", subject.row, subject.concurrency, self._seconds)
        served, constant = [], []
        for _ in range(self._rounds):
            constant.append(_cpu_per_request(ceiling, self._generate, least))
            served.append(_cpu_per_request(self._server, self._generate, ours))
        pairs = zip(served, constant, strict=True)
        return {
            "concurrency": subject.concurrency,
            "served_us": median(served) * 1e6,
            "constant_us": median(constant) * 1e6,
            "ratio": median(s / c for s, c in pairs),
        }

    def _device(self, name: str) -> str:
        with Client(self._server.grpc) as client:
            (model,) = client.model(name).versions
        if not model.execution.devices:
            raise SystemExit(f"{name} does not serve: {model.reason}")
        return model.execution.devices[0]

    def _load(self, name: str, subject: Subject, concurrency: int, seconds: float) -> Load:
        return Load(self._server.grpc, name, subject.row, concurrency, seconds)


def _cpu_per_request(process: Process, generate: Generator, load: Load) -> float:
    """CPU seconds of the server per request it answered while the load ran."""
    cpu, count = process.cpu_s(), _answered(load)
    generate(load)
    return (process.cpu_s() - cpu) / (_answered(load) - count)


def _answered(load: Load) -> int:
    with grpc.insecure_channel(load.address) as channel:
        call = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelStatistics",
            pb.ModelStatisticsRequest.SerializeToString,
            pb.ModelStatisticsResponse.FromString,
        )
        answer: pb.ModelStatisticsResponse = call(pb.ModelStatisticsRequest(name=load.model))
    return answer.model_stats[0].inference_stats.success.count


@contextmanager
def _ceiling() -> Iterator[tuple[Process, str]]:
    command = [sys.executable, "-m", "loadtests.ceiling_server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as popen:
        try:
            line = popen.stdout.readline() if popen.stdout else ""
            ready = re.search(r"grpc=(\S+)", line)
            if not ready:
                raise RuntimeError("the constant-answer server did not start")
            yield Process(popen.pid), ready[1]
        finally:
            popen.kill()


def targets(models: dict[str, Any], front_end: dict[str, Any] | None) -> list[dict[str, Any]]:
    """What the figures are held against; "bound" is a minimum or a maximum as `kind` says."""
    rows: list[tuple[str, float, str, float]] = []
    for name, figures in models.items():
        lone = figures["concurrency_1"]
        if lone["bare_p50_ms"] > HEAVY_MS:
            ratio = figures["throughput"]["ratio"]
            rows.append((f"{name}: throughput ratio", ratio, "min", MIN_THROUGHPUT_RATIO))
        added = lone["added_p99_ms"]
        rows.append((f"{name}: p99 added at concurrency 1, ms", added, "max", MAX_ADDED_P99_MS))
    if front_end:
        ratio = front_end["ratio"]
        rows.append(("tiny: CPU per request ratio", ratio, "max", MAX_CPU_RATIO))
    return [
        {
            "what": what,
            "value": value,
            "kind": kind,
            "bound": bound,
            "met": value >= bound if kind == "min" else value <= bound,
        }
        for what, value, kind, bound in rows
    ]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _generator() -> tuple[str, Generator]:
    program = perf_analyzer.find()
    if program is None:
        _say("perf_analyzer is not to be had here; the Python client drives the load")
        return "python", python_client.run
    return "perf_analyzer", lambda load: perf_analyzer.run(program, load)


def run(names: list[str], seconds: float, rounds: int, provider: str = "auto") -> dict[str, Any]:
    """Measures the named models; see the module for what comes back."""
    subjects, (client, generate) = _subjects(), _generator()
    with tempfile.TemporaryDirectory(prefix="inflight-bench-") as folder:
        repository = write_repository(Path(folder, "models"), names, provider)
        with serving(repository) as server:
            bench = Bench(server, generate, seconds, rounds)
            models = {}
            for name in names:
                _say(f"{name} ...")
                models[name] = bench.measure(name, subjects[name])
            front_end = None
            if "tiny" in names:
                _say("CPU per request ...")
                with _ceiling() as (ceiling, address):
                    front_end = bench.front_end(subjects["tiny"], ceiling, address)
    return {
        "machine": machine.describe(),
        "client": client,
        "provider": provider,
        "seconds": seconds,
        "rounds": rounds,
        "models": models,
        "cpu_per_request": front_end,
        "targets": targets(models, front_end),
    }


def _write(report: dict[str, Any], file: Path | None) -> None:
    text = json.dumps(report, indent=2)
    if file is None:
        print(text)
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text + "\n")
    _say(f"written to {file}")


def main() -> int:
    names = list(_subjects())
    parser = argparse.ArgumentParser(description="Served against bare; JSON on stdout.")
    parser.add_argument("--models", default=",".join(names), help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=4, help="per measurement (default: 4)")
    parser.add_argument("--rounds", type=int, default=3, help="median over them (default: 3)")
    parser.add_argument(
        "--provider",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where the models run; auto: where the server puts them (default: %(default)s)",
    )
    parser.add_argument("--output", type=Path, help="write the JSON to this file, not to stdout")
    parser.add_argument("--check", action="store_true", help="exit 1 when a target is missed")
    arguments = parser.parse_args()
    wanted = arguments.models.split(",")
    unknown = sorted(set(wanted) - set(names))
    if unknown:
        parser.error(f"--models: unknown {', '.join(unknown)}; expected some of {', '.join(names)}")
    report = run(wanted, arguments.seconds, arguments.rounds, arguments.provider)
    _write(report, arguments.output)
    for target in report["targets"]:
        bound = f"{target['kind']} {target['bound']}"
        verdict = "met" if target["met"] else "MISSED"
        _say(f"{verdict:6} {target['what']}: {target['value']:.3f} ({bound})")
    return 1 if arguments.check and not all(t["met"] for t in report["targets"]) else 0


if __name__ == "__main__":
    sys.exit(main())
