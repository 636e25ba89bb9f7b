import subprocess
import sys

import pytest


def demo(*options: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "server", "demo", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


def test_demo_trains_serves_predicts_and_stops() -> None:
    done = demo("--seconds", "0.5", "--clients", "4")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "0 answers differ" in done.stdout
    assert "SIGTERM, drained, exit code 0" in done.stdout
    for row in ("accuracy", "throughput", "batches", "total", "queue", "compute"):
        assert f"\n  {row} " in done.stdout


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--seconds", "0", "expected seconds above 0"),
        ("--clients", "0", "expected a whole number above 0"),
    ],
)
def test_wrong_options_are_usage_errors(option: str, value: str, expected: str) -> None:
    done = demo(option, value)
    assert done.returncode == 2
    assert expected in done.stderr
