"""The values of a report, and their JSON form."""

import json

import pytest

from optimizer import plan
from optimizer.candidate import Candidate, Outcome, State, Verdict
from optimizer.device import Device
from optimizer.errors import OptimizationError
from optimizer.goal import Goal
from optimizer.report import Entry, Report, entry_of
from tests.unit.optimizer.reports import COMPLETED, LABELLED, REJECTED, TWO_REGIMES

EMPTY = Report("opt-1", "running")


@pytest.mark.parametrize("report", [COMPLETED, REJECTED, TWO_REGIMES, LABELLED, EMPTY])
def test_a_report_survives_json(report: Report) -> None:
    value = report.to_json()
    text = json.dumps(value, allow_nan=False)
    again = Report.from_json(json.loads(text))
    assert again.to_json() == value == json.loads(text)
    assert (again.status, again.goal, again.regimes) == (report.status, report.goal, report.regimes)
    assert [e.verdict for e in again.candidates] == [e.verdict for e in report.candidates]


def test_the_shape_is_that_of_the_rest_interface() -> None:
    value = COMPLETED.to_json()
    assert value["status"] == "completed"
    for side in ("original", "optimized"):
        assert {"format", "size_mb", "latency_ms", "accuracy"} <= set(value[side])
    assert value["original"]["latency_ms"] == 4.82
    assert value["optimized"]["size_mb"] == 23.1
    assert value["improvement"] == {
        "size_reduction": "74.6%",
        "latency_reduction": "51.0%",
        "accuracy_change": "-0.007",
    }
    assert value["artifact_id"] == "weight_only_int8-0123456789ab"
    assert len(value["candidates"]) == len(COMPLETED.candidates)
    benchmark = value["benchmark"]
    assert (benchmark["iterations"], benchmark["warmup_iterations"]) == (1000, 100)
    assert benchmark["batch_sizes"] == [1, 8, 32]
    assert benchmark["results"]["batch_1"]["p50_ms"] == 2.36
    assert benchmark["original_results"]["batch_1"]["p50_ms"] == 4.82
    assert {"p50_ms", "p95_ms", "p99_ms"} <= set(benchmark["results"]["batch_32"])


def test_accuracy_is_that_of_the_labels_where_there_are_any() -> None:
    value = LABELLED.to_json()
    assert value["original"]["accuracy"] == 0.9926
    assert value["optimized"]["accuracy"] == 0.9907
    assert value["optimized"]["accuracy_metric"] == "top1"
    assert value["improvement"]["accuracy_change"] == "-0.002"


def test_where_the_original_stays_there_is_no_improvement() -> None:
    value = REJECTED.to_json()
    assert (value["optimized"], value["improvement"], value["artifact_id"]) == (None, None, None)
    assert value["benchmark"]["results"] == value["benchmark"]["original_results"]
    assert "noise" in value["reason"]


def test_each_batch_size_is_timed_by_whoever_answers_it() -> None:
    medians = [timing.p50_s for timing in TWO_REGIMES.optimized_timings]
    assert medians == pytest.approx([2.75e-3, 15.9e-3, 67.7e-3])
    assert TWO_REGIMES.winner is not None
    assert TWO_REGIMES.winner.name == "bf16, OpenVINO"


def test_accuracy_is_that_of_the_less_accurate_of_two_winners() -> None:
    assert TWO_REGIMES.to_json()["optimized"]["accuracy"] == 0.9925


def test_what_data_would_unlock_is_said_only_without_data() -> None:
    assert COMPLETED.unlock == ""
    assert "9 more candidates" in REJECTED.unlock
    assert "int8 dynamic per-channel" in REJECTED.unlock
    assert "TensorRT" not in REJECTED.unlock


def test_candidates_that_the_plan_leaves_out_without_data_are_named() -> None:
    graph = plan.Graph(17, 1_000_000, 10, 0.0, 1.0, True, False, False)
    device = Device("cpu", 2, 8000, ("avx512_bf16",), (), {"onnxruntime": "1", "openvino": "1"})
    facts = plan.ModelFacts("onnx", graph)
    planned = plan.candidates(facts, device, Goal(), has_data=False)
    report = Report("opt-1", "rejected", candidates=tuple(map(entry_of, planned)))
    assert "would let" in report.unlock


def test_nothing_known_is_nothing_said() -> None:
    value = EMPTY.to_json()
    assert value["original"]["latency_ms"] is None
    assert value["optimized"] is None
    assert value["candidates"] == []
    assert value["benchmark"]["results"] == {}
    assert value["benchmark"]["batch_sizes"] == [1, 16, 32, 64]


def test_numbers_that_json_does_not_have_are_left_out() -> None:
    odd = Verdict(False, "rmse", float("inf"), 0.99, float("nan"), 1.0, float("inf"))
    entry = entry_of(Outcome(Candidate("x", (), "native"), State.REFUSED, verdict=odd))
    assert json.dumps(entry.to_json(), allow_nan=False)
    assert Entry.from_json(entry.to_json()).verdict is not None


@pytest.mark.parametrize("value", [{}, {"optimization_id": 1}, [], {**EMPTY.to_json(), "goal": 3}])
def test_something_else_is_no_report(value: object) -> None:
    with pytest.raises(OptimizationError, match="no report of an optimization"):
        Report.from_json(value)  # type: ignore[arg-type]
