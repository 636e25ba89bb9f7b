import tracemalloc
from math import ceil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.latency import (
    RELATIVE_ERROR,
    STAGES,
    WINDOWS_S,
    LatencyRecorder,
    LatencySummary,
    bucket_of,
    bucket_value_s,
    quantiles_s,
)

# The arithmetic of logarithms and exponentials adds a few units in the last place.
TOLERANCE = RELATIVE_ERROR * (1 + 1e-6)
N = 5000


def _rng() -> np.random.Generator:
    return np.random.default_rng(20)


DISTRIBUTIONS = {
    "lognormal": _rng().lognormal(-6, 1, N),
    "bimodal": np.concatenate([_rng().normal(0.002, 1e-4, N), _rng().normal(0.2, 0.01, N // 9)]),
    "pareto": (_rng().pareto(1.1, N) + 1) * 1e-3,
    "constant": np.full(N, 0.0123),
    "single value": np.array([3.7]),
    "two values": np.array([1e-3, 2e-3]),
    "microseconds to minutes": np.geomspace(1e-6, 600, N),
    "half of them zero": np.concatenate([np.zeros(N), _rng().exponential(0.01, N)]),
    "all zero": np.zeros(7),
    "powers of the bucket width": bucket_value_s(1) * 1.02020202020202 ** np.arange(1000),
}


def exact(durations_s: list[float], percent: int) -> float:
    return sorted(durations_s)[-(-len(durations_s) * percent // 100) - 1]


def recorded(durations_s: list[float], now: float = 100.0) -> LatencyRecorder:
    recorder = LatencyRecorder(started=0.0)
    for duration_s in durations_s:
        recorder.record(duration_s, duration_s, duration_s, now)
    return recorder


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_quantiles_are_within_one_percent_of_the_exact_ones(name: str) -> None:
    durations_s = DISTRIBUTIONS[name].tolist()
    summary = recorded(durations_s).summary("total", 10, now=100.0)
    for got, percent in ((summary.p50_s, 50), (summary.p95_s, 95), (summary.p99_s, 99)):
        expected = float(np.quantile(durations_s, percent / 100, method="inverted_cdf"))
        assert got == pytest.approx(expected, rel=TOLERANCE, abs=1e-9)
    assert summary.max_s == max(durations_s)
    assert summary.count == len(durations_s)


@given(st.lists(st.floats(0, 3600) | st.floats(1e-9, 1e-3), min_size=1, max_size=200))
def test_any_durations_keep_the_promise(durations_s: list[float]) -> None:
    summary = recorded(durations_s).summary("total", 1, now=100.0)
    for got, percent in ((summary.p50_s, 50), (summary.p95_s, 95), (summary.p99_s, 99)):
        assert got == pytest.approx(exact(durations_s, percent), rel=TOLERANCE, abs=1.01e-9)
    assert summary.p50_s <= summary.p95_s <= summary.p99_s <= summary.max_s == max(durations_s)


@given(st.floats(1.01e-9, 1e6))
def test_a_bucket_stands_for_what_is_in_it(duration_s: float) -> None:
    assert bucket_value_s(bucket_of(duration_s)) == pytest.approx(duration_s, rel=TOLERANCE)


@pytest.mark.parametrize("duration_s", [0.0, -1.0, 1e-12])
def test_nothing_and_less_count_as_zero(duration_s: float) -> None:
    assert bucket_value_s(bucket_of(duration_s)) == 0.0


def test_quantiles_are_those_of_all_counts_together() -> None:
    counts = [{1: 50, 900: 1}, {2: 48}, {900: 1}]
    assert quantiles_s(counts, (50, 98, 99, 100)) == [
        bucket_value_s(bucket) for bucket in (1, 2, 900, 900)
    ]


@pytest.mark.parametrize("window_s", WINDOWS_S)
@pytest.mark.parametrize("traffic", [False, True], ids=["never used", "long idle"])
def test_an_empty_window_is_all_zero(window_s: int, traffic: bool) -> None:
    recorder = recorded([0.5] if traffic else [], now=100.0)
    expected = LatencySummary(window_s, 0, 0.0, 0.0, 0.0, 0.0, 0.0)
    assert recorder.summary("queue", window_s, now=1200.0) == expected


def test_each_stage_keeps_its_own_durations() -> None:
    recorder = LatencyRecorder(started=0.0)
    for _ in range(10):
        recorder.record(0.3, 0.1, 0.2, 50.0)
    tops = [recorder.summary(stage, 1, 50.0) for stage in STAGES]
    assert [top.max_s for top in tops] == [0.3, 0.1, 0.2]
    assert [top.p99_s for top in tops] == pytest.approx([0.3, 0.1, 0.2], rel=TOLERANCE)


@pytest.mark.parametrize(
    ("window_s", "slot_s"), [(1, 0.1), (10, 1.0), (60, 6.0), (300, 30.0)], ids=str
)
def test_a_request_leaves_its_window_within_one_slot(window_s: int, slot_s: float) -> None:
    recorder = recorded([0.5], now=1200.0)
    assert recorder.summary("total", window_s, 1200.0 + window_s).count == 1
    assert recorder.summary("total", window_s, 1200.0 + window_s + slot_s * 0.99).count == 1
    assert recorder.summary("total", window_s, 1200.0 + window_s + slot_s * 1.01).count == 0


@pytest.mark.parametrize("window_s", WINDOWS_S)
def test_a_steady_rate_reads_steady_at_every_instant(window_s: int) -> None:
    recorder, rates = LatencyRecorder(started=0.0), []
    for tick in range(400 * 20):  # 20 requests a second, in the middle of their 50 ms
        recorder.record(0.01, 0.0, 0.01, tick / 20 + 0.025)
        if tick > 20:
            rates.append(recorder.summary("total", window_s, (tick + 1) / 20).rate)
    assert min(rates) >= 20 * 0.95
    assert max(rates) <= 20 * 1.05


def test_a_young_recorder_divides_by_its_age() -> None:
    recorder = LatencyRecorder(started=200.0)
    for tick in range(50):
        recorder.record(0.01, 0.0, 0.01, 200.0 + tick / 10)
    assert recorder.summary("total", 60, 205.0).rate == pytest.approx(10)


def test_a_rate_is_never_taken_over_less_than_a_second() -> None:
    recorder = LatencyRecorder(started=200.0)
    recorder.record(0.001, 0.0, 0.001, 200.001)
    assert recorder.summary("total", 60, 200.001).rate == 1.0


def test_the_maximum_leaves_with_its_slot() -> None:
    recorder = recorded([9.0], now=100.0)
    recorder.record(0.1, 0.1, 0.1, 130.0)
    assert recorder.summary("total", 60, 130.0).max_s == 9.0
    assert recorder.summary("total", 10, 130.0).max_s == 0.1


def test_windows_agree_with_a_list_of_everything() -> None:
    rng = np.random.default_rng(7)
    ends = np.cumsum(rng.exponential(0.05, 4000) + (rng.random(4000) < 0.01) * 13)
    durations = rng.lognormal(-5, 1.5, 4000)
    recorder, slot_s = LatencyRecorder(started=0.0), {1: 0.1, 10: 1.0, 60: 6.0, 300: 30.0}
    for index, (end, duration) in enumerate(zip(ends.tolist(), durations.tolist(), strict=True)):
        recorder.record(duration, 0.0, duration, end)
        if index % 97:
            continue
        for window_s in WINDOWS_S:
            got = recorder.summary("total", window_s, end)
            first = (np.floor((end - window_s) / slot_s[window_s])) * slot_s[window_s]
            inside = durations[: index + 1][ends[: index + 1] >= first].tolist()
            assert got.count == len(inside)
            assert got.max_s == max(inside)
            assert got.p99_s == pytest.approx(exact(inside, 99), rel=TOLERANCE)


def test_the_cumulative_counts_survive_every_fold() -> None:
    recorder = LatencyRecorder(started=0.0)
    for tick in range(3000):
        recorder.record(0.01, 0.0, 0.02, tick * 0.37)
    assert recorder.cumulative("total") == {bucket_of(0.01): 3000}
    assert recorder.cumulative("queue") == {0: 3000}
    assert recorder.cumulative("compute") == {bucket_of(0.02): 3000}


def test_nothing_is_cumulated_before_the_first_request() -> None:
    assert LatencyRecorder(started=0.0).cumulative("total") == {}


def test_memory_does_not_grow_with_time_or_traffic() -> None:
    durations_s = _rng().lognormal(-6, 1, 1000).tolist()
    recorder = LatencyRecorder(started=0.0)

    def run(start_s: int) -> None:
        for tick in range(20_000):  # 2000 s
            duration_s = durations_s[tick % 1000]
            recorder.record(duration_s, duration_s, duration_s, start_s + tick / 10)

    tracemalloc.start()
    try:
        run(0)
        before, _ = tracemalloc.get_traced_memory()
        run(2000)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after < before * 1.1
    assert after < 1_000_000


def test_a_recorder_without_traffic_allocates_nothing() -> None:
    tracemalloc.start()
    try:
        recorders = [LatencyRecorder(started=0.0) for _ in range(1000)]
        for recorder in recorders:
            recorder.summary("total", 300, 10.0)
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert ceil(size / 1000) < 300


@pytest.mark.parametrize("window_s", [0, 5, 10.5, -1])
def test_a_window_that_is_not_kept_is_refused(window_s: float) -> None:
    with pytest.raises(ValueError, match=r"no window of .* s is kept, expected one of 1, 10, 60"):
        LatencyRecorder(started=0.0).summary("total", window_s, 1.0)


def test_an_unknown_stage_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown stage 'decode', expected one of total, queue"):
        LatencyRecorder(started=0.0).summary("decode", 1, 1.0)  # type: ignore[arg-type]
