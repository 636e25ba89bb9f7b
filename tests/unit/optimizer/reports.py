"""A report with the figures of a real job, for the tests of what is made of reports."""

from dataclasses import replace

from optimizer.candidate import State, Step, Timing, Verdict
from optimizer.goal import Goal
from optimizer.report import Data, Entry, Machine, Model, Regime, Report

BATCHES = (1, 8, 32)


def timings(*medians_ms: float) -> tuple[Timing, ...]:
    return tuple(
        Timing(b, 1000, ms * 0.96e-3, ms * 1e-3, ms * 1.09e-3, ms * 1.3e-3, b / ms * 1e3)
        for b, ms in zip(BATCHES, medians_ms, strict=False)
    )


def accepted(metric: str, score: float, worst: float) -> Verdict:
    return Verdict(True, metric, score, 0.99, worst=worst, rows=400, figures={"cosine": 0.9999})


def refused(metric: str, score: float, worst: float) -> Verdict:
    reason = f"{metric} agreement with the original is {score:.4f}, at least 0.99 is needed"
    return Verdict(False, metric, score, 0.99, worst=worst, rows=400, reason=reason)


def lossless(name: str, size: int, *medians_ms: float, **more: object) -> Entry:
    given = {"techniques": ("graph",), "seconds": {"build": 1.3, "validate": 4.2}} | more
    return Entry(
        name,
        "openvino" if "OpenVINO" in name else "onnxruntime",
        State.MEASURED,
        size_bytes=size,
        verdict=accepted("exact", 1.0, 2e-6),
        timings=timings(*medians_ms),
        **given,  # type: ignore[arg-type]
    )


def lossy(name: str, technique: str, size: int, verdict: Verdict, *medians_ms: float) -> Entry:
    entry = lossless(name, size, *medians_ms, techniques=(technique,))
    state = State.MEASURED if verdict.is_accepted else State.REFUSED
    return replace(
        entry,
        is_lossless=False,
        needs_data=True,
        verdict=verdict,
        state=state,
        reason=verdict.reason,
        steps=(Step(technique, {"per_channel": True}),),
        artifact_id=f"{technique}-0123456789ab",
    )


CANDIDATES = (
    lossless("original, ONNX Runtime", 90_950_000, 4.82, 31.9, 144),
    lossless("graph level none", 90_950_000, 4.63, 29.7, 131),
    lossless("graph level basic", 90_950_000, 4.66, 29.9, 132),
    lossless("graph level extended", 90_950_000, 4.86, 31.7, 137),
    lossless("OpenVINO f32", 90_950_000, 4.58, 28.7, 117),
    lossless("clean-up, ONNX Runtime", 90_700_000, 4.81, 31.8, 143),
    lossy("bf16, OpenVINO", "bf16", 45_500_000, accepted("nn1", 0.9975, 8e-3), 2.75, 15.9, 70.5),
    lossy(
        "8-bit weights + bf16, OpenVINO",
        "weight_only_int8",
        23_100_000,
        accepted("nn1", 0.9925, 1.3e-2),
        2.36,
        13.7,
        67.7,
    ),
    lossy("fp16, ONNX Runtime", "fp16", 45_800_000, accepted("nn1", 1.0, 5e-4), 5.2, 32.0, 144.5),
    lossy("int8 SmoothQuant, OpenVINO", "int8_smoothquant", 23_400_000, refused("nn1", 0.933, 0.1)),
    lossy("int8 dynamic per-channel", "int8_dynamic", 22_800_000, refused("nn1", 0.885, 0.12)),
    lossy("int8 static MinMax", "int8_static", 22_900_000, refused("nn1", 0.29, 0.7)),
    lossy("int4 RTN block 32", "weight_only_int4", 55_000_000, refused("nn1", 0.825, 0.2)),
    Entry(
        "int8 static entropy",
        "onnxruntime",
        State.FAILED,
        "the stage died of signal 9 after 41 s, using 6.1 GB where 6.0 GB are allowed",
        ("int8_static",),
        is_lossless=False,
    ),
    Entry(
        "TensorRT fp16",
        "tensorrt",
        State.SKIPPED,
        "there is no NVIDIA GPU on this machine",
        ("tensorrt", "fp16"),
        is_lossless=False,
    ),
    Entry(
        "8-bit MatMul, block 32",
        "onnxruntime",
        State.DROPPED,
        "2.2 times slower than the best after the first rounds",
        ("weight_only_int8",),
        is_lossless=False,
        size_bytes=60_300_000,
        verdict=accepted("nn1", 0.996, 1e-2),
    ),
)

COMPLETED = Report(
    "opt-20250203-1",
    "completed",
    Model("all-MiniLM-L6-v2", "onnx", "9f2c" * 16, "onnx", 90_950_000),
    Goal(batch_sizes=BATCHES, threads=2),
    CANDIDATES,
    (Regime(None, "8-bit weights + bf16, OpenVINO"),),
    "weight_only_int8-0123456789ab",
    23_100_000,
    "'8-bit weights + bf16, OpenVINO': -51% at batch 1 (4.82 -> 2.36 ms), nn1 0.9925 of 0.99 asked,"
    " size -75% (90.95 -> 23.10 MB)",
    Data("sentences.jsonl, 600 rows", True, 200, 400),
    Machine(
        "AMD EPYC 9R14",
        2,
        24_000,
        ("avx2", "avx512f", "avx512_vnni", "avx512_bf16"),
        (),
        {"onnxruntime": "1.31.1", "openvino": "2026.4.1", "nncf": "3.4.0"},
        1.2,
        1.9,
    ),
    {"prepare": 2.1, "build": 21.4, "validate": 18.0, "benchmark": 15.2, "total": 57.9},
    ("opset 17 asked, 18 made: the exporter starts there",),
    "2025-02-03T10:11:12Z",
)

NO_DATA = "changes the arithmetic, and there are no real rows to prove it harmless"

REJECTED = replace(
    COMPLETED,
    status="rejected",
    candidates=tuple(
        entry
        if entry.is_lossless or entry.state is State.SKIPPED
        else replace(entry, state=State.REFUSED, reason=NO_DATA, timings=(), verdict=None)
        for entry in CANDIDATES
    ),
    regimes=(),
    artifact_id=None,
    artifact_size_bytes=0,
    reason="nothing beats 'original, ONNX Runtime' by more than the noise of 5%",
    data=Data("64 rows made up from the signature", False, 0, 64),
)

TWO_REGIMES = replace(
    COMPLETED,
    regimes=(Regime(16, "bf16, OpenVINO"), Regime(None, "8-bit weights + bf16, OpenVINO")),
)

LABELLED = replace(
    COMPLETED,
    candidates=tuple(
        replace(entry, verdict=replace(entry.verdict, metric="top1", original=0.9926,
                optimized=0.9907, score=0.9981, figures={"original_top1": 0.9926}))
        if entry.verdict
        else entry
        for entry in CANDIDATES
    ),
)  # fmt: skip
