"""perf_analyzer, Triton's C++ load generator: the cheapest client there is for this protocol.

It comes out of a wheel of tritonclient (its data folder holds the program) and needs CUDA's
runtime library even where there is no GPU; both are unpacked once into a cache folder. The
system must have libb64.so.0d (Debian's package libb64-0d).
"""

import csv
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from loadtests.load_result import Load, LoadResult
from protos.tensors import Array

_WHEELS = ("tritonclient==2.50.0", "nvidia-cuda-runtime-cu12==12.9.79")
_FILES = ("perf_analyzer", "libcudart.so.12")
_WINDOWS = 3  # perf_analyzer's least number of measurement windows


def cache_folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home, "inflight", "perf_analyzer-2.50.0")


def find() -> Path | None:
    """The program, fetched and unpacked if need be; None where it cannot be had."""
    folder = cache_folder()
    if not all((folder / name).exists() for name in _FILES):
        try:
            _unpack(folder)
        except (OSError, subprocess.CalledProcessError, zipfile.BadZipFile):
            return None
    program = folder / "perf_analyzer"
    runs = subprocess.run(
        [program, "--version"], env=_environment(folder), capture_output=True, check=False
    )
    return program if runs.returncode == 0 else None


def _unpack(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as wheels:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", wheels]
        subprocess.run([*pip, *_WHEELS], check=True, capture_output=True)
        for wheel in Path(wheels).glob("*.whl"):
            _extract(wheel, folder)
    (folder / "perf_analyzer").chmod(0o755)


def _extract(wheel: Path, folder: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            name = Path(member).name
            if name in _FILES:
                (folder / name).write_bytes(archive.read(member))


def _environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "LD_LIBRARY_PATH": str(folder)}


def run(program: Path, load: Load) -> LoadResult:
    """Applies the load from one client thread.

    Raises:
        RuntimeError: perf_analyzer failed, or requests did; carries what it printed.
    """
    with tempfile.TemporaryDirectory() as folder:
        data, report = Path(folder, "data.json"), Path(folder, "report.csv")
        data.write_text(json.dumps({"data": [_row(load.inputs)]}))
        command = [
            str(program), "-i", "grpc", "-u", load.address, "-m", load.model, "--async",
            "--max-threads", "1", "--concurrency-range", str(load.concurrency),
            "--input-data", str(data), "-f", str(report),
            "--measurement-interval", str(max(200, round(load.duration_s * 1e3 / _WINDOWS))),
            "--stability-percentage", "999", "--max-trials", str(_WINDOWS),
        ]  # fmt: skip
        done = subprocess.run(
            command, env=_environment(program.parent), capture_output=True, text=True, check=False
        )
        if done.returncode or not report.exists():
            raise RuntimeError(f"perf_analyzer failed:\n{done.stdout}\n{done.stderr}")
        return _result(report.read_text())


def _row(inputs: Mapping[str, Array]) -> dict[str, object]:
    """One row of each input: perf_analyzer adds the batch dimension itself."""
    return {
        name: {"content": array[0].ravel().tolist(), "shape": list(array.shape[1:])}
        for name, array in inputs.items()
    }


def _result(report: str) -> LoadResult:
    row = next(csv.DictReader(report.splitlines()))
    p50, p95, p99 = (float(row[f"p{q} latency"]) / 1e3 for q in (50, 95, 99))
    return LoadResult(
        client="perf_analyzer",
        concurrency=int(row["Concurrency"]),
        per_s=float(row["Inferences/Second"]),
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
    )
