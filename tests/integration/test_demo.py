import subprocess
import sys

import pytest


def demo(*options: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "server", "demo", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


def test_demo_trains_serves_optimizes_under_traffic_and_stops() -> None:
    done = demo("--seconds", "0.5", "--clients", "4")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "0 answers differ before" in done.stdout
    assert "requests, none failed" in done.stdout
    assert "SIGTERM, drained, exit code 0" in done.stdout
    for row in ("form", "size, MB", "accuracy, served", "total p99, ms", "compute p50, ms"):
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
