"""Short forms of the load tests; the long ones are run by hand and before a release."""

from pathlib import Path

import pytest

from loadtests import bench, load, onnx_backend_suite, poison, soak

pytestmark = pytest.mark.slow


def test_fifteen_of_sixteen_survive_a_poisoned_request_each_time_of_a_hundred() -> None:
    report = poison.run(rounds=100)
    assert report.passed, report
    assert report.largest_batch == poison.CALLERS


def test_soak_finds_nothing() -> None:
    report = soak.run(clients=200, seconds=30)
    assert report["findings"] == {}
    assert report["reloads"] > 0
    assert {"ask: right", "cancel: cancelled", "err: INVALID_ARGUMENT"} <= set(report["outcomes"])


def test_every_case_of_the_onnx_suite_that_passes_in_process_passes_over_grpc() -> None:
    report = onnx_backend_suite.run(onnx_backend_suite.KINDS)
    assert report["passed_in_process_only"] == {}
    assert report["passed_through_grpc"] > 1400


def test_bench_reports_figures_and_targets() -> None:
    report = bench.run(["tiny"], seconds=0.5, rounds=1)
    assert report["models"]["tiny"]["throughput"]["served_per_s"] > 0
    assert report["cpu_per_request"]["ratio"] > 0
    assert len(report["targets"]) == 2


def test_locust_writes_a_report_with_the_servers_own_times(tmp_path: Path) -> None:
    assert load.run("tiny", users=4, seconds=3, reports=tmp_path) == 0
    rows = (tmp_path / "load_stats.csv").read_text()
    assert "server queue" in rows
    assert "server compute" in rows
    assert "Predict tiny" in (tmp_path / "load.html").read_text()
    assert "total" in (tmp_path / "load_server.csv").read_text()
