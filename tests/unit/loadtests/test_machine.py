"""What a report says of the machine."""

from pathlib import Path

from loadtests import machine


def test_gpus_are_named_with_their_driver(tmp_path: Path) -> None:
    assert machine.gpus(tmp_path) == []
    (tmp_path / "version").write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n"
        "GCC version:  gcc version 12.3.0 (Ubuntu 12.3.0-1ubuntu1~22.04)\n"
    )
    for bus in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / "gpus" / bus).mkdir(parents=True)
        text = f"Model: \t\t NVIDIA H200\nIRQ:   \t\t 77\nBus Location: \t {bus}\n"
        (tmp_path / "gpus" / bus / "information").write_text(text)
    assert machine.gpus(tmp_path) == ["NVIDIA H200, driver 580.65.06"] * 2


def test_a_report_says_what_it_was_measured_on() -> None:
    report = machine.describe()
    assert report["cores"] >= 1
    assert {"cpu", "gpus", "python", "grpcio"} <= set(report)
    assert any(name.startswith("onnxruntime") for name in report)
