"""What optimization gains: `python -m loadtests.optimize_bench [CASE ...] [--check]`.

Every case runs `inflight optimize` as a user does, in a state folder of its own, and puts the
figures of its report next to targets. Latency is the median against ONNX Runtime at its defaults,
or against the original framework for tables, measured in the same run. One JSON document goes to
stdout, progress to stderr. Run it on a quiet machine.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np

from loadtests import machine
from loadtests.datasets import digits_data, sentences, tokenized
from loadtests.models_tabular import MODELS, fitted

_ONNX = "ONNX Runtime"
_TIMEOUT_S = 1800
_NOISE = 1.05  # times the same time


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure and what it has to be."""

    case: str
    what: str
    value: float
    target: float
    is_least: bool = True  # the target is a least value, not a largest one

    @property
    def is_met(self) -> bool:
        return self.value >= self.target if self.is_least else self.value <= self.target


@dataclass(frozen=True, slots=True)
class Run:
    """One report, and how long it took to make."""

    report: Mapping[str, Any]
    seconds: float

    @property
    def winner(self) -> str:
        optimized = self.report["optimized"]
        return str(optimized["candidate"]) if optimized else ""

    @property
    def size_reduction(self) -> float:
        """In percent."""
        optimized = self.report["optimized"]
        if not optimized:
            return 0.0
        return float(100 * (1 - optimized["size_mb"] / self.report["original"]["size_mb"]))

    def latency_reduction(self, batch: int) -> float:
        """In percent of the original's median."""
        results = self.report["benchmark"]
        before = results["original_results"][f"batch_{batch}"]["p50_ms"]
        after = results["results"][f"batch_{batch}"]["p50_ms"]
        return float(100 * (1 - after / before))

    @property
    def accuracy_ratio(self) -> float:
        before, after = self.report["original"]["accuracy"], self.report["optimized"] or {}
        return float(after.get("accuracy", before) / before)

    def figure(self, name: str) -> float:
        """Of the winner's verdict."""
        entries = [e for e in self.report["candidates"] if e["name"] == self.winner]
        return float(entries[0]["verdict"]["figures"].get(name, 1.0)) if entries else 1.0


class Bench:
    """Runs cases in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._runs = 0
        self.runs: dict[str, dict[str, Any]] = {}

    def path(self, name: str) -> Path:
        return self._folder / name

    def arrays(self, name: str, **arrays: Any) -> Path:
        path = self._folder / name
        np.savez(path, **arrays)
        return path

    def optimize(self, case: str, model: Path, data: Path | None, *options: str) -> Run:
        """One run that finds nothing in the store."""
        self._runs += 1
        state = self._folder / f"state{self._runs}"
        command = [sys.executable, "-m", "server", "optimize", str(model), "--json"]
        command += ["--state-dir", str(state), "--allow-pickle", *options]
        command += ["--data", str(data)] if data else []
        print(f"{case}: {' '.join(options)}", file=sys.stderr, flush=True)
        begin = time.monotonic()
        ended = subprocess.run(
            command, stdout=subprocess.PIPE, timeout=_TIMEOUT_S, check=False, text=True
        )
        if ended.returncode:
            raise SystemExit(f"{case}: inflight optimize ended with {ended.returncode}")
        run = Run(json.loads(ended.stdout), time.monotonic() - begin)
        self.runs[f"{case} {self._runs}"] = summary(run)
        print(f"{case}: {run.report['reason']} ({run.seconds:.0f} s)", file=sys.stderr, flush=True)
        return run


def summary(run: Run) -> dict[str, Any]:
    """What of a report goes into the document."""
    results = run.report["benchmark"]
    return {
        "status": run.report["status"],
        "reason": run.report["reason"],
        "seconds": round(run.seconds, 1),
        "improvement": run.report["improvement"],
        "original": results["original_results"],
        "optimized": results["results"],
        "refused": {
            entry["name"]: entry["reason"]
            for entry in run.report["candidates"]
            if entry["state"] in ("refused", "failed")
        },
    }


def digits_cnn(bench: Bench) -> list[Figure]:
    """A CNN trained on handwritten digits; accuracy on images it has not seen."""
    from loadtests.models_torch import digits_cnn as build  # noqa: PLC0415  imports torch

    _, _, images, labels = digits_data()
    data = bench.arrays("digits.npz", image=images, labels=labels)
    name, sizes = "digits CNN", ("--batch-sizes", "1,8,32")
    run = bench.optimize(name, build(bench.path("")), data, *sizes)
    return [
        Figure(name, "latency reduction, batch 1, %", run.latency_reduction(1), 50),
        Figure(name, "latency reduction, batch 8, %", run.latency_reduction(8), 60),
        Figure(name, "latency reduction, batch 32, %", run.latency_reduction(32), 60),
        Figure(name, "size reduction, %", run.size_reduction, 73),
        Figure(name, "accuracy ratio", run.accuracy_ratio, 0.998),
        Figure("specification's example", "latency reduction, %", run.latency_reduction(1), 55.3),
        Figure("specification's example", "accuracy ratio", run.accuracy_ratio, 0.998),
    ]


def minilm(bench: Bench) -> list[Figure]:
    """A sentence encoder with real weights: for cosine 0.997, and for nearest neighbours 0.99."""
    model, data = _minilm(bench)
    sizes = ("--batch-sizes", "1,8,32")
    cosine = ("--metric", "cosine", "--accuracy-threshold", "0.997")
    small = bench.optimize("MiniLM, cosine 0.997", model, data, *sizes, *cosine)
    near = bench.optimize("MiniLM, nearest neighbours 0.99", model, data, *sizes)
    name = "MiniLM, cosine 0.997"
    figures = [
        Figure(name, f"latency reduction, batch {n}, %", small.latency_reduction(n), least)
        for n, least in ((1, 50), (8, 65), (32, 65))
    ]
    other = "MiniLM, nearest neighbours 0.99"
    return [
        *figures,
        Figure(name, "size reduction, %", small.size_reduction, 74),
        Figure(name, "mean cosine", small.figure("cosine"), 0.997),
        Figure(other, "latency reduction, batch 32, %", near.latency_reduction(32), 50),
        Figure(other, "mean cosine", near.figure("cosine"), 0.9995),
    ]


def resnet50(bench: Bench) -> list[Figure]:
    """The architecture with random weights: its figures are of speed and size."""
    from loadtests.models_torch import resnet50 as build  # noqa: PLC0415

    images = np.random.default_rng(0).random((96, 3, 224, 224), np.float32)
    data = bench.arrays("images.npz", image=images)
    name = "ResNet-50"
    options = ("--batch-sizes", "1,8", "--metric", "cosine")
    run = bench.optimize(name, build(bench.path("")), data, *options)
    return [
        Figure(name, "latency reduction, batch 1, %", run.latency_reduction(1), 65),
        Figure(name, "latency reduction, batch 8, %", run.latency_reduction(8), 65),
        Figure(name, "size reduction, %", run.size_reduction, 73),
    ]


def tables(bench: Bench) -> list[Figure]:
    """Models of tables against their own framework, which stays a candidate."""
    figures: list[Figure] = []
    for name in MODELS:
        model, rows = fitted(name)
        path = bench.path("model.joblib")
        joblib.dump(model, path)
        data = bench.arrays("table.npz", X=rows.held_out, labels=rows.truth)
        options = ("--batch-sizes", "1,32,1024", "--benchmark-s", "6")
        figures += _of_table(name, bench.optimize(name, path, data, *options))
    converted = sum(figure.what.startswith("latency reduction") for figure in figures)
    return [*figures, Figure("tables", "models that are faster converted", converted, 20)]


def _of_table(name: str, run: Run) -> list[Figure]:
    slowest = max(1 - run.latency_reduction(n) / 100 for n in (1, 32, 1024))
    never = Figure(name, "time of the original's, any batch", slowest, _NOISE, is_least=False)
    if _ONNX not in run.winner:
        return [never]
    return [
        Figure(name, "latency reduction, batch 1, %", run.latency_reduction(1), 85),
        never,
    ]


def selection(bench: Bench) -> list[Figure]:
    """The same question five times, each time from nothing; and in a hurry."""
    model, data = _minilm(bench)
    name = "selection, MiniLM"
    runs = [bench.optimize(name, model, data, "--benchmark-s", "20") for _ in range(5)]
    quick = bench.optimize(name, model, data, "--quick")
    same = Counter(run.winner for run in runs).most_common(1)[0][1]
    return [
        Figure(name, "runs of 5 with the same winner", same, 5),
        Figure(name, "worst regret, %", 100 * _worst_regret(runs), 5, is_least=False),
        Figure(name, "slowest run, s", max(run.seconds for run in runs), 60, is_least=False),
        Figure(name, "quick run, s", quick.seconds, 15, is_least=False),
    ]


def _worst_regret(runs: Sequence[Run]) -> float:
    """How much slower, by all runs together, the worst choice is than the best one."""
    times: dict[str, list[float]] = {}
    for run in runs:
        for entry in run.report["candidates"]:
            result = entry["results"].get("batch_1")
            if result:
                times.setdefault(entry["name"], []).append(result["min_ms"])
    typical = {name: float(np.median(found)) for name, found in times.items()}
    chosen = [typical[run.winner] for run in runs if run.winner]
    return max(chosen) / min(chosen) - 1 if chosen else 0.0


def traps(bench: Bench) -> list[Figure]:
    """What is fast and wrong, or right and slow, never wins."""
    from loadtests.models_torch import digits_cnn as build  # noqa: PLC0415

    _, _, images, labels = digits_data()
    poisoned = np.array(images)
    poisoned[::5] *= 1e6
    cnn = build(bench.path(""))
    data = bench.arrays("poisoned.npz", image=poisoned)
    clean = bench.arrays("digits.npz", image=images, labels=labels)
    model, sentences_file = _minilm(bench)
    static = ("--techniques", "int8_static", "--quick")
    dynamic = ("--techniques", "int8_dynamic", "--quick")
    runs = {
        "poisoned calibration set": bench.optimize("poisoned", cnn, data, *static),
        "dynamic int8 on convolutions": bench.optimize("dynamic", cnn, clean, *dynamic),
        "static int8 on MiniLM": bench.optimize("static", model, sentences_file, *static),
    }
    return [
        Figure("traps", f"{name}: chosen", float(bool(run.winner)), 0, is_least=False)
        for name, run in runs.items()
    ]


def _minilm(bench: Bench) -> tuple[Path, Path]:
    from loadtests.models_torch import minilm as build  # noqa: PLC0415

    return build(bench.path("")), bench.arrays("sentences.npz", **tokenized(sentences(400)))


CASES: Mapping[str, Callable[[Bench], list[Figure]]] = {
    "digits": digits_cnn,
    "minilm": minilm,
    "resnet50": resnet50,
    "tables": tables,
    "selection": selection,
    "traps": traps,
}


def main(argv: Sequence[str] | None = None) -> int:
    """1 with `--check` where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a target is missed")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the document there, too")
    arguments = parser.parse_args(argv)
    unknown = set(arguments.cases) - set(CASES)
    if unknown:
        parser.error(f"no case {', '.join(sorted(unknown))}, expected of {', '.join(CASES)}")
    with tempfile.TemporaryDirectory(prefix="inflight-bench-") as folder:
        bench = Bench(Path(folder))
        figures = [f for name in arguments.cases or CASES for f in CASES[name](bench)]
    text = json.dumps(_document(figures, bench.runs), indent=1)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n", encoding="utf-8")
    return int(arguments.check and not all(figure.is_met for figure in figures))


def _document(figures: Sequence[Figure], runs: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "machine": machine.describe(),
        "figures": [
            {**asdict(figure), "value": round(figure.value, 4), "is_met": figure.is_met}
            for figure in figures
        ],
        "missed": [f"{f.case}: {f.what}" for f in figures if not f.is_met],
        "runs": runs,
    }


if __name__ == "__main__":
    sys.exit(main())
