"""`make load`: the real server under locust, headless, with a report.

Writes `load.html` (locust's page, with the server's queue and compute beside the client's
latency), locust's `load_*.csv`, and `load_server.csv` (the server's own percentiles).
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from client import Client
from loadtests.models import write_repository
from loadtests.server_process import serving
from protos.models_pb2 import ModelLatency

REPORTS = Path(__file__).parent / "reports"
_LOCUSTFILE = Path(__file__).parent / "locustfile.py"
_WINDOWS_S = (1, 10, 60, 300)
_COLUMNS = ("count", "rate", "p50_ms", "p95_ms", "p99_ms", "max_ms")


def run(model: str, users: int, seconds: int, reports: Path) -> int:
    """Locust's exit code: 0 when no request failed."""
    reports.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="inflight-load-") as folder,
        serving(write_repository(Path(folder), [model])) as server,
    ):
        command = [
            sys.executable, "-m", "locust", "--headless", "-f", str(_LOCUSTFILE),
            "--host", server.grpc, "--users", str(users), "--spawn-rate", str(users),
            "--run-time", f"{seconds}s", "--only-summary",
            "--html", str(reports / "load.html"), "--csv", str(reports / "load"),
        ]  # fmt: skip
        code = subprocess.run(
            command, env={**os.environ, "INFLIGHT_LOAD_MODEL": model}, check=False
        ).returncode
        window = next((w for w in _WINDOWS_S if w >= seconds), _WINDOWS_S[-1])
        with Client(server.grpc) as client:
            _write_server(reports / "load_server.csv", client.latency(model, window_s=window)[0])
    return code


def _write_server(path: Path, latency: ModelLatency) -> None:
    stages = {"total": latency.total, "queue": latency.queue, "compute": latency.compute}
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("model", "stage", "window_s", *_COLUMNS))
        for name, stage in stages.items():
            values = (getattr(stage, column) for column in _COLUMNS)
            rows.writerow((latency.model, name, latency.window_s, *values))


def main() -> int:
    parser = argparse.ArgumentParser(description="The server under locust, headless.")
    parser.add_argument("--model", choices=("tiny", "mlp"), default="tiny")
    parser.add_argument("--users", type=int, default=32, help="default: 32")
    parser.add_argument("--seconds", type=int, default=30, help="default: 30")
    parser.add_argument("--reports", type=Path, default=REPORTS, help="default: %(default)s")
    arguments = parser.parse_args()
    code = run(arguments.model, arguments.users, arguments.seconds, arguments.reports)
    print(f"report: {arguments.reports / 'load.html'}")
    return code


if __name__ == "__main__":
    sys.exit(main())
