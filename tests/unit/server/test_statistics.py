import tracemalloc

import pytest

from server.errors import Code
from server.latency import STAGES, WINDOWS_S, bucket_of
from server.request import ReleaseReason, Timing
from server.statistics import FailureReason, VersionStatistics, failure_reason

TIMING = Timing(
    total_s=0.010,
    queue_s=0.002,
    compute_input_s=0.001,
    compute_infer_s=0.005,
    compute_output_s=0.0015,
)


def statistics(now: float = 100.0) -> VersionStatistics:
    return VersionStatistics(clock=lambda: now, wall_clock=lambda: 1_700_000_000.5)


def test_answered_requests_are_counted_with_all_their_durations() -> None:
    stats = statistics()
    for _ in range(3):
        stats.record_success(TIMING)
    durations = (
        stats.success,
        stats.queue,
        stats.compute_input,
        stats.compute_infer,
        stats.compute_output,
    )
    assert [duration.count for duration in durations] == [3] * 5
    assert [duration.ns for duration in durations] == [
        30_000_000,
        6_000_000,
        3_000_000,
        15_000_000,
        4_500_000,
    ]
    assert stats.codes == {Code.OK: 3}
    assert stats.fail.count == 0


def test_a_batch_counts_rows_once_and_keeps_its_size() -> None:
    stats = statistics()
    stats.record_batch(4, 3, 0.1, 0.2, 0.3, ReleaseReason.FULL)
    stats.record_batch(4, 1, 0.1, 0.2, 0.3, ReleaseReason.IDLE_INSTANCE)
    stats.record_batch(1, 1, 0.5, 0.5, 0.5, ReleaseReason.FULL)
    assert (stats.inference_count, stats.execution_count, stats.batched_requests) == (9, 3, 5)
    assert stats.last_inference_ms == 1_700_000_000_500
    assert stats.releases == {ReleaseReason.FULL: 2, ReleaseReason.IDLE_INSTANCE: 1}
    assert set(stats.batch_stats) == {1, 4}
    four = stats.batch_stats[4]
    assert (four.compute_input.count, four.compute_input.ns) == (2, 200_000_000)
    assert (four.compute_infer.count, four.compute_infer.ns) == (2, 400_000_000)
    assert (four.compute_output.count, four.compute_output.ns) == (2, 600_000_000)


def test_failures_are_counted_by_reason_and_code_and_stay_out_of_the_latency() -> None:
    stats = statistics()
    stats.record_success(TIMING)
    stats.record_failure(0.25, "REJECTED", Code.RESOURCE_EXHAUSTED)
    stats.record_failure(0.5, "REJECTED", Code.DEADLINE_EXCEEDED)
    stats.record_failure(0.25, "OTHER", Code.INVALID_ARGUMENT)
    assert (stats.fail.count, stats.fail.ns) == (3, 1_000_000_000)
    assert stats.failures == {"REJECTED": 2, "OTHER": 1}
    assert stats.codes == {
        Code.OK: 1,
        Code.RESOURCE_EXHAUSTED: 1,
        Code.DEADLINE_EXCEEDED: 1,
        Code.INVALID_ARGUMENT: 1,
    }
    assert stats.latency("total", 10).count == 1


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (Code.RESOURCE_EXHAUSTED, "REJECTED"),
        (Code.DEADLINE_EXCEEDED, "REJECTED"),
        (Code.UNAVAILABLE, "REJECTED"),
        (Code.CANCELLED, "CANCELED"),
        (Code.INTERNAL, "BACKEND"),
        (Code.INVALID_ARGUMENT, "OTHER"),
        (Code.UNKNOWN, "OTHER"),
    ],
)
def test_a_code_has_the_reason_triton_would_give(code: Code, reason: FailureReason) -> None:
    assert failure_reason(code) == reason


def test_dropped_requests_are_counted_by_reason() -> None:
    stats = statistics()
    stats.record_dropped("deadline")
    stats.record_dropped("deadline")
    stats.record_dropped("queue_full")
    assert stats.dropped == {"deadline": 2, "queue_full": 1}


def test_the_stages_of_the_latency_are_those_of_the_timing() -> None:
    stats = statistics()
    stats.record_success(TIMING)
    assert [stats.latency(stage, 1).max_s for stage in STAGES] == [0.010, 0.002, TIMING.compute_s]
    assert stats.duration_counts("compute") == {bucket_of(TIMING.compute_s): 1}


def test_the_windows_follow_the_clock() -> None:
    instant = [100.0]
    stats = VersionStatistics(clock=lambda: instant[0])
    stats.record_success(TIMING)
    instant[0] = 130.0
    assert [stats.latency("total", window_s).count for window_s in WINDOWS_S] == [0, 0, 1, 1]


def test_an_idle_version_costs_less_than_a_kibibyte() -> None:
    tracemalloc.start()
    try:
        versions = [VersionStatistics() for _ in range(500)]
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size / len(versions) < 1024
