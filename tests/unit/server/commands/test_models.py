import json

from protos import models_pb2 as pb
from server.commands.models import as_dict, describe, list_models

READY = pb.ModelSummary(
    model="digits",
    version=2,
    state=pb.STATE_READY,
    batching=True,
    max_batch=64,
    total=pb.StageLatency(count=7, rate=12.34, p50_ms=1.234, p99_ms=45.6),
    window_s=60,
)
FAILED = pb.ModelSummary(model="sick", version=1, state=pb.STATE_UNAVAILABLE, reason="is broken")
EMPTY = pb.ModelSummary(model="void", state=pb.STATE_UNAVAILABLE, reason="no versions")


def test_a_line_per_version_with_its_reason() -> None:
    lines = list_models([READY, FAILED, EMPTY]).splitlines()
    assert lines[0].split() == [
        *("MODEL", "VERSION", "STATE", "BATCHING", "MAX"),
        *("P50", "MS", "P99", "MS", "RATE/S", "WHY"),
    ]
    assert lines[1].split() == ["digits", "2", "ready", "yes", "64", "1.23", "45.6", "12.3"]
    assert " ".join(lines[2].split()) == "sick 1 unavailable - - - - - is broken"
    assert " ".join(lines[3].split()) == "void - unavailable - - - - - no versions"


def test_no_models() -> None:
    assert list_models([]) == "the server has no models"


def test_a_description_names_tensors_and_verdicts() -> None:
    version = pb.ModelVersion(
        version=2,
        state=pb.STATE_READY,
        inputs=[
            pb.TensorInfo(name="x", datatype="FP32", shape=[-1, 64], dimension_names=["n", ""])
        ],
        outputs=[pb.TensorInfo(name="y", datatype="FP32", shape=[-1], dimension_names=["y[0]"])],
        batching=pb.Batching(reason="rows influence each other"),
        curve=[
            pb.CurvePoint(batch=1, latency_ms=0.5, rows_per_s=2000),
            pb.CurvePoint(batch=2, latency_ms=0.8, rows_per_s=2500),
        ],
        memory_bytes=394,
        latency=pb.ModelLatency(successes=3, batches=2, rows=4, released={"full": 2}, window_s=60),
        warnings=["preferred sizes have no effect"],
    )
    text = describe(pb.GetModelResponse(model="digits", versions=[version]))
    assert "digits version 2  ready" in text
    assert "input     x FP32[n, 64]" in text
    assert "output    y FP32[?]" in text
    assert "batching  no: rows influence each other" in text
    assert "  measured  rows        1      2\n            ms      0.500  0.800\n" in text
    assert "            rows/s   2000   2500\n" in text
    assert "memory    0.4 KiB" in text
    assert "2, 2.0 rows on average; left because: full 2" in text
    assert "warning   preferred sizes have no effect" in text


def test_a_version_that_does_not_serve_is_described_by_its_reason() -> None:
    version = pb.ModelVersion(version=1, state=pb.STATE_LOADING, reason="loading for 3 s")
    text = describe(pb.GetModelResponse(model="m", versions=[version]))
    assert text == "m version 1  loading: loading for 3 s"


def test_a_model_without_versions_is_described_by_its_reason() -> None:
    version = pb.ModelVersion(state=pb.STATE_UNAVAILABLE, reason="unknown key")
    text = describe(pb.GetModelResponse(model="m", versions=[version]))
    assert text == "m  unavailable: unknown key"


def test_the_reason_why_padding_stays_off_is_shown() -> None:
    batching = pb.Batching(enabled=True, padding_reason="no mask input")
    version = pb.ModelVersion(version=1, state=pb.STATE_READY, batching=batching)
    text = describe(pb.GetModelResponse(model="m", versions=[version]))
    assert "padding   no: no mask input" in text


def test_json_has_numbers_as_numbers_and_states_as_words() -> None:
    document = json.loads(json.dumps(as_dict(READY)))
    assert (document["version"], document["state"]) == (2, "ready")
    assert (document["total"]["count"], document["reason"]) == (7, "")
    latency = as_dict(pb.ModelLatency(released={"full": 2}))
    assert latency["released"] == {"full": 2}
    version = as_dict(pb.ModelVersion(curve=[pb.CurvePoint(batch=4)], warnings=["w"]))
    assert version["curve"] == [{"batch": 4, "latency_ms": 0.0, "rows_per_s": 0.0}]
    assert version["warnings"] == ["w"]
