import io
import json
from pathlib import Path

import numpy as np
import pytest

from optimizer.artifact import Artifact
from optimizer.candidate import Candidate, Outcome, State
from optimizer.progress import Progress
from optimizer.report import Report
from optimizer.report_entry import Entry
from server.__main__ import main
from server.commands.optimize_display import Display, status, summary
from tests.models import mlp


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(mlp())
    return path


def command(model: Path, *options: str) -> list[str]:
    state = ["--state-dir", str(model.parent / "state")]
    effort = ["--quick", "--benchmark-s", "0.2", "--batch-sizes", "1", "--threads", "1"]
    return ["optimize", str(model), *state, *effort, *options]


def test_json_is_one_document_and_nothing_else(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = model.parent / "rows.npy"
    np.save(data, np.random.default_rng(0).random((40, 16), np.float32))
    report, page, served = (model.parent / name for name in ("r.json", "r.html", "served"))
    results = ["--report", str(report), "--report", str(page), "--output", str(served)]
    assert main(command(model, "--data", str(data), "--json", *results)) == 0
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert document["status"] in ("completed", "rejected")
    assert json.loads(report.read_text()) == document
    assert "<html" in page.read_text()
    assert (served / "1" / "artifact.json").is_file()
    assert "100% done" in printed.err
    assert main(command(model, "--data", str(data))) == 0
    again = capsys.readouterr()
    assert "found in the store" in again.err
    assert "original, ONNX Runtime" in again.out


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        pytest.param(
            ["--techniques", "int8_statik"], "the nearest is 'int8_static'", id="technique"
        ),
        pytest.param(["--techniques", "pruning"], "not available", id="later"),
        pytest.param(["--accuracy-threshold", "2"], "expected a ratio", id="threshold"),
        pytest.param(["--time-limit-minutes", "0"], "expected more than 0", id="time"),
        pytest.param(["--data", "none.npz"], "no such file", id="data"),
        pytest.param(["--labels", "y"], "expected --data", id="labels"),
        pytest.param(["--query", "SELECT 1"], "expected --database", id="database"),
        pytest.param(["--report", "r.pdf"], ".html or .json", id="report"),
    ],
)
def test_wrong_usage_is_told_before_any_work(
    model: Path, options: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(model, *options)) == 2
    printed = capsys.readouterr()
    assert reason in printed.err
    assert printed.out == ""


def test_a_model_that_is_not_there_or_no_model_is_wrong_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(tmp_path / "none.onnx")) == 2
    (tmp_path / "notes.md").write_text("no model")
    assert main(command(tmp_path / "notes.md")) == 2
    assert "no known model format" in capsys.readouterr().err


def test_a_pickle_is_opened_only_when_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(b"")
    assert main(command(path)) == 2
    assert "--allow-pickle" in capsys.readouterr().err


def test_an_output_folder_that_is_taken_is_told_before_any_work(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (model.parent / "taken" / "1").mkdir(parents=True)
    assert main(command(model, "--output", str(model.parent / "taken"))) == 2
    assert "exists" in capsys.readouterr().err


def test_a_model_that_does_not_run_fails_and_says_so_in_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"no model at all")
    assert main(command(path, "--json")) == 1
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert document["status"] == "failed"
    assert document["reason"]
    assert "inflight optimize:" in printed.err


def test_the_four_variables_are_honoured(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {
        "OPTIMIZATION_MAX_TIME_MINUTES": "7",
        "OPTIMIZATION_ACCURACY_THRESHOLD": "0.9",
        "TENSORRT_WORKSPACE_SIZE_GB": "2",
        "ONNX_OPSET_VERSION": "18",
    }.items():
        monkeypatch.setenv(name, value)
    assert main(command(model, "--json", "--techniques", "graph")) == 0
    goal = json.loads(capsys.readouterr().out)["goal"]
    assert (goal["time_limit_s"], goal["accuracy_threshold"]) == (420, 0.9)
    assert (goal["workspace_gb"], goal["opset"]) == (2, 18)


def outcome(name: str, state: State) -> Outcome:
    return Outcome(Candidate(name, (), "onnxruntime"), state)


PROGRESS = Progress(
    "building",
    50.0,
    (
        outcome("original", State.MEASURING),
        outcome("a", State.REFUSED),
        outcome("b", State.BUILDING),
    ),
    "a: refused: too far off",
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_status_says_how_far_and_what_is_in_hand() -> None:
    assert status(PROGRESS) == "[##########..........]  50% building  b  1 refused"


def test_elsewhere_than_on_a_terminal_what_happened_is_a_line_each() -> None:
    out = io.StringIO()
    with Display(out) as display:
        display.show(PROGRESS)
        display.show(Progress("building", 51.0, ()))
        display.show(Progress("building", 52.0, (), "| a library talks"))
    assert out.getvalue() == " 50% building: a: refused: too far off\n"


def test_what_libraries_print_is_shown_on_request() -> None:
    out = io.StringIO()
    with Display(out, verbose=True) as display:
        display.show(Progress("building", 52.0, (), "| a library talks"))
    assert "a library talks" in out.getvalue()


def test_a_terminal_keeps_one_line_at_its_end() -> None:
    out = Terminal()
    with Display(out) as display:
        display.show(PROGRESS)
    text = out.getvalue()
    assert "too far off\n[####" in text
    assert text.endswith("\r\x1b[K")


def test_a_summary_without_a_winner_says_why(tmp_path: Path) -> None:
    entries = (
        Entry("original", "onnxruntime", State.MEASURED),
        Entry("int8", "onnxruntime", State.REFUSED, "top1 0.5 of 0.99 asked"),
        Entry("cuda", "onnxruntime", State.SKIPPED, "no GPU"),
    )
    report = Report("opt-1", "rejected", candidates=entries, reason="nothing is faster")
    text = summary(report, Artifact(tmp_path, "m", "onnxruntime", "m"))
    assert text.startswith("rejected: nothing is faster")
    assert "top1 0.5 of 0.99 asked" in text
    assert "1 more were skipped" in text
