import re
from collections.abc import Mapping

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from server.errors import Code
from server.latency import bucket_of
from server.metrics import (
    DURATION_BOUNDS_S,
    Metrics,
    VersionState,
    duration_buckets,
    histogram_buckets,
)
from server.request import ReleaseReason, Timing
from server.statistics import VersionStatistics
from server.statistics_book import StatisticsBook

VERSION = {"model": "digits", "version": "3"}


class Scene:
    """Metrics with a registry of their own over one version that may be used."""

    def __init__(self, *, with_triton_names: bool = False) -> None:
        self.now = 100.0
        self.registry = CollectorRegistry()
        self.book = StatisticsBook()
        self.stats = VersionStatistics(clock=lambda: self.now)
        self.book.add("digits", 3, self.stats)
        self.states = [VersionState("digits", 3, True, 2048), VersionState("broken", 1, False)]
        self.metrics = Metrics(
            self.registry, self.book, lambda: self.states, with_triton_names=with_triton_names
        )

    def use(self, n_requests: int = 4) -> None:
        for _ in range(n_requests):
            self.stats.record_success(Timing(0.010, 0.002, 0.001, 0.005, 0.001))
        self.stats.record_batch(
            n_requests, n_requests, 0.001, 0.005, 0.001, ReleaseReason.IDLE_INSTANCE
        )

    def value(
        self, name: str, labels: Mapping[str, str] | None = None, **more: str
    ) -> float | None:
        return self.registry.get_sample_value(
            name, {**(VERSION if labels is None else labels), **more}
        )

    def names(self) -> set[str]:
        return {sample.name for family in self.registry.collect() for sample in family.samples}


def test_a_model_without_versions_is_not_ready_either() -> None:
    scene = Scene()
    scene.states.append(VersionState("mistyped", None, False))
    assert scene.value("inflight_model_ready", {"model": "mistyped", "version": ""}) == 0


def test_requests_are_counted_by_code() -> None:
    scene = Scene()
    scene.use(4)
    scene.stats.record_failure(0.1, "REJECTED", Code.RESOURCE_EXHAUSTED)
    assert scene.value("inflight_requests_total", code="OK") == 4
    assert scene.value("inflight_requests_total", code="RESOURCE_EXHAUSTED") == 1


@pytest.mark.parametrize(
    ("name", "sum_s", "bound", "below"),
    [
        ("inflight_request_duration_seconds", 0.04, "0.02", "0.005"),
        ("inflight_queue_delay_seconds", 0.008, "0.005", "0.001"),
        ("inflight_compute_duration_seconds", 0.028, "0.01", "0.005"),
    ],
)
def test_each_stage_has_a_histogram_with_an_exact_sum(
    name: str, sum_s: float, bound: str, below: str
) -> None:
    scene = Scene()
    scene.use(4)
    assert scene.value(f"{name}_count") == 4
    assert scene.value(f"{name}_sum") == pytest.approx(sum_s)
    assert scene.value(f"{name}_bucket", le=bound) == 4
    assert scene.value(f"{name}_bucket", le=below) == 0
    assert scene.value(f"{name}_bucket", le="+Inf") == 4


def test_batches_have_a_size_and_a_reason() -> None:
    scene = Scene()
    scene.use(4)
    assert scene.value("inflight_batch_size_sum") == 4
    assert scene.value("inflight_batch_size_count") == 1
    assert scene.value("inflight_batch_size_bucket", le="2.0") == 0
    assert scene.value("inflight_batch_size_bucket", le="4.0") == 1
    assert scene.value("inflight_batches_total", reason="idle_instance") == 1
    assert scene.value("inflight_batches_total", reason="full") == 0
    assert scene.value("inflight_batched_requests_total") == 4


def test_dropped_requests_have_a_reason() -> None:
    scene = Scene()
    scene.stats.record_dropped("deadline")
    assert scene.value("inflight_requests_dropped_total", reason="deadline") == 1
    assert scene.value("inflight_requests_dropped_total", reason="queue_full") == 0


def test_gauges_show_the_present() -> None:
    scene = Scene()
    scene.stats.queue_depth = 7
    assert scene.value("inflight_queue_depth") == 7
    assert scene.value("inflight_model_ready") == 1
    assert scene.value("inflight_model_memory_bytes") == 2048
    assert scene.value("inflight_model_ready", {"model": "broken", "version": "1"}) == 0


def test_live_quantiles_follow_the_windows() -> None:
    scene = Scene()
    scene.use(10)

    def p99_s(window: str) -> float | None:
        return scene.value(name, stage="total", quantile="0.99", window=window)

    name = "inflight_latency_seconds"
    assert p99_s("10s") == pytest.approx(0.01, rel=0.01)
    assert scene.value(name, stage="queue", quantile="1", window="1s") == 0.002
    scene.now += 30
    assert p99_s("10s") is None
    assert p99_s("60s") == pytest.approx(0.01, rel=0.01)
    assert scene.value("inflight_request_rate", window="10s") == 0
    assert scene.value("inflight_request_rate", window="300s") == pytest.approx(10 / 30)


def test_an_idle_version_costs_a_handful_of_lines() -> None:
    scene = Scene()
    samples = [
        sample
        for family in scene.registry.collect()
        for sample in family.samples
        if sample.labels.get("model") == "digits"
    ]
    assert len(samples) <= 5


def test_counters_neither_vanish_nor_fall_when_a_version_is_reloaded() -> None:
    scene = Scene()
    scene.use(4)
    scene.book.close("digits", 3, scene.stats)
    assert scene.value("inflight_requests_total", code="OK") == 4
    assert scene.value("inflight_request_duration_seconds_count") == 4
    assert scene.value("inflight_request_rate", window="10s") is None
    scene.stats = VersionStatistics(clock=lambda: scene.now)
    scene.book.add("digits", 3, scene.stats)
    scene.use(2)
    assert scene.value("inflight_requests_total", code="OK") == 6
    assert scene.value("inflight_batch_size_sum") == 6


def test_build_and_process_are_described() -> None:
    names = Scene().names()
    assert {"inflight_build_info", "process_resident_memory_bytes", "process_open_fds"} <= names


def test_triton_names_are_absent_unless_asked_for() -> None:
    assert not [name for name in Scene().names() if name.startswith("nv_")]


def test_triton_names_have_tritons_meaning() -> None:
    scene = Scene(with_triton_names=True)
    scene.use(4)
    scene.use(2)
    scene.stats.record_failure(0.1, "REJECTED", Code.RESOURCE_EXHAUSTED)
    scene.stats.queue_depth = 5
    expected = {
        "nv_inference_request_success": 6,
        "nv_inference_count": 6,
        "nv_inference_exec_count": 2,
        "nv_inference_request_duration_us": 60_000,
        "nv_inference_queue_duration_us": 12_000,
        "nv_inference_compute_input_duration_us": 6_000,
        "nv_inference_compute_infer_duration_us": 30_000,
        "nv_inference_compute_output_duration_us": 6_000,
        "nv_inference_pending_request_count": 5,
    }
    assert {name: scene.value(name) for name in expected} == expected
    failure = "nv_inference_request_failure"
    assert scene.value(failure, reason="REJECTED") == 1
    assert scene.value(failure, reason="CANCELED") == 0


async def test_the_text_form_is_prometheus_text_by_default() -> None:
    scene = Scene(with_triton_names=True)
    scene.use()
    body, content_type = await scene.metrics.render("")
    assert content_type.startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in parse_text(body.decode())}
    assert families["inflight_requests"].type == "counter"
    assert families["inflight_request_duration_seconds"].type == "histogram"
    assert families["nv_inference_count"].type == "unknown"


async def test_openmetrics_is_given_to_who_accepts_it() -> None:
    scene = Scene(with_triton_names=True)
    scene.use()
    accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    body, content_type = await scene.metrics.render(accept)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    families = {family.name for family in parse_openmetrics(body.decode())}  # type: ignore[no-untyped-call]
    assert {"inflight_build", "inflight_requests", "nv_inference_count"} <= families


def test_every_name_follows_the_naming_rules() -> None:
    scene = Scene()
    scene.use()
    for family in scene.registry.collect():
        if not family.name.startswith("inflight_"):
            continue
        assert re.fullmatch(r"[a-z_]+", family.name)
        assert family.documentation
        if family.type == "histogram" and family.name != "inflight_batch_size":
            assert family.name.endswith("_seconds")


@pytest.mark.parametrize("bound_s", DURATION_BOUNDS_S)
def test_a_duration_beyond_one_percent_of_a_bound_is_on_the_right_side(bound_s: float) -> None:
    below = dict(duration_buckets({bucket_of(bound_s * 0.9899): 1}))
    above = dict(duration_buckets({bucket_of(bound_s * 1.0101): 1}))
    assert below[str(bound_s)] == 1
    assert above[str(bound_s)] == 0


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({}, [0, 0, 0]),
        ({0.0: 2}, [2, 2, 2]),
        ({1.0: 1}, [1, 1, 1]),
        ({1.5: 1, 2.0: 1}, [0, 2, 2]),
        ({99.0: 3}, [0, 0, 3]),
    ],
    ids=["nothing", "below the first bound", "on a bound", "between", "above the last"],
)
def test_histogram_buckets_are_cumulative(counts: dict[float, int], expected: list[int]) -> None:
    assert histogram_buckets(counts, (1, 2)) == list(
        zip(("1.0", "2.0", "+Inf"), expected, strict=True)
    )
