"""Every metric of the server, made from the statistics when somebody asks.

A request pays nothing for Prometheus: it is counted once, in `VersionStatistics`, and the
families below are derived at the scrape. Names and labels are a contract; the Grafana dashboard
and users' alerts hold on to them.
"""

import asyncio
import math
import platform
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from itertools import accumulate
from typing import Final, TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from server.latency import STAGES, WINDOWS_S, Counts, Stage, bucket_value_s
from server.request import ReleaseReason
from server.statistics import DROP_REASONS, VersionStatistics
from server.statistics_book import BookEntry, StatisticsBook
from server.triton_metrics import triton_families

DURATION_BOUNDS_S: Final = (
    *(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    *(1.0, 2.0, 5.0, 10.0, 20.0, 60.0),
)
BATCH_BOUNDS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

STAGE_BOUNDS_S: Final = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)

_Reason = TypeVar("_Reason", bound=str)

_VERSION: Final = ("model", "version")
_HISTOGRAMS: Final[tuple[tuple[Stage, str, str], ...]] = (
    ("total", "inflight_request_duration_seconds", "Answered requests, arrival to answer."),
    ("queue", "inflight_queue_delay_seconds", "Answered requests, enqueued to taken."),
    ("compute", "inflight_compute_duration_seconds", "Answered requests, compute of their batch."),
)


@dataclass(frozen=True, slots=True)
class VersionState:
    """What the registry knows of one version, as far as metrics show it."""

    model: str
    version: int | None  # None: the model failed to load before its versions were known
    is_ready: bool
    memory_bytes: int = 0


@dataclass(slots=True)
class OptimizationFigures:
    """What is counted of optimizations since the process started."""

    jobs: Counter[str] = field(
        default_factory=lambda: Counter(completed=0, rejected=0, failed=0, cancelled=0)
    )  # ended, by outcome
    lookups: Counter[str] = field(default_factory=lambda: Counter(hit=0, miss=0))
    stages: dict[str, Counter[float]] = field(default_factory=dict)  # durations, up to a bound
    stages_s: dict[str, float] = field(default_factory=dict)  # sums

    def add_stage(self, stage: str, seconds: float) -> None:
        """Counts one stage of one candidate."""
        place = bisect_left(STAGE_BOUNDS_S, seconds)
        bound = STAGE_BOUNDS_S[place] if place < len(STAGE_BOUNDS_S) else math.inf
        self.stages.setdefault(stage, Counter())[bound] += 1
        self.stages_s[stage] = self.stages_s.get(stage, 0.0) + seconds


class Metrics(Collector):
    """The collector of all `inflight_*` metrics, and their text form.

    `states` is asked at every scrape, on the event loop. Histograms and latency gauges appear
    with a version's first answered request: a thousand idle models would otherwise cost a
    hundred thousand lines a scrape. Histogram bounds fall into buckets of relative width 2 %, so
    a duration within 1 % of a bound may be counted on either side of it; sums are exact.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        book: StatisticsBook,
        states: Callable[[], Iterable[VersionState]],
        optimization: OptimizationFigures | None = None,
        *,
        with_triton_names: bool = False,
    ) -> None:
        self._registry, self._book, self._states = registry, book, states
        self._optimization = optimization or OptimizationFigures()
        self._with_triton_names = with_triton_names
        ProcessCollector(registry=registry)
        registry.register(self)

    async def render(self, accept: str) -> tuple[bytes, str]:
        """The exposition for an Accept header (Prometheus text or OpenMetrics), and its type.

        The values are read at once on the event loop; the text, which takes ten times as long,
        is made in a thread.
        """
        encode, content_type = choose_encoder(accept)
        families = _Collected(list(self._registry.collect()))
        return await asyncio.to_thread(encode, families), content_type

    def describe(self) -> list[Metric]:
        """Nothing: registering must not read the server's state."""
        return []

    def collect(self) -> Iterator[Metric]:
        entries = self._book.entries()
        used = [entry for entry in entries if entry.total.success.count]
        yield _build_info()
        yield from _state_families(self._states())
        yield from _counter_families(entries)
        yield from _histogram_families(used)
        yield from _latency_families(used)
        yield from _optimization_families(self._optimization)
        if self._with_triton_names:
            yield from triton_families(entries)


class _Collected(Collector):
    """Families that were collected before, for the encoder."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


def distribution_version(name: str) -> str:
    """The installed version of a distribution; "" when it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _build_info() -> Metric:
    info = {
        "version": distribution_version("inflight"),
        "python": platform.python_version(),
        "onnxruntime": distribution_version("onnxruntime")
        or distribution_version("onnxruntime-gpu"),
    }
    return InfoMetricFamily("inflight_build", "What this server is made of.", info)


def _state_families(states: Iterable[VersionState]) -> list[Metric]:
    ready = GaugeMetricFamily(
        "inflight_model_ready",
        "1 while the version serves; a model whose configuration cannot be read has no version.",
        labels=_VERSION,
    )
    memory = GaugeMetricFamily(
        "inflight_model_memory_bytes",
        "Estimated cost of keeping the version loaded.",
        labels=_VERSION,
    )
    for state in states:
        labels = [state.model, "" if state.version is None else str(state.version)]
        ready.add_metric(labels, int(state.is_ready))
        memory.add_metric(labels, state.memory_bytes)
    return [ready, memory]


def _counter_families(entries: Sequence[BookEntry]) -> list[Metric]:
    depth = GaugeMetricFamily("inflight_queue_depth", "Entries waiting.", labels=_VERSION)
    requests = CounterMetricFamily(
        "inflight_requests",
        "Requests, by the status they were answered with.",
        labels=(*_VERSION, "code"),
    )
    dropped = CounterMetricFamily(
        "inflight_requests_dropped",
        "Requests that left without being executed.",
        labels=(*_VERSION, "reason"),
    )
    batches = CounterMetricFamily(
        "inflight_batches", "Batches, by why they left the queue.", labels=(*_VERSION, "reason")
    )
    batched = CounterMetricFamily(
        "inflight_batched_requests",
        "Requests, or parts of a split one, in those batches.",
        labels=_VERSION,
    )
    for entry in entries:
        labels, total = _labels(entry), entry.total
        depth.add_metric(labels, total.queue_depth)
        requests.add_metric([*labels, "OK"], total.success.count)
        for code, count in total.failed_codes.items():
            requests.add_metric([*labels, code.name], count)
        if total.execution_count or total.dropped:
            batched.add_metric(labels, total.batched_requests)
            _add_all(dropped, labels, total.dropped, DROP_REASONS)
            _add_all(batches, labels, total.releases, tuple(ReleaseReason))
    return [depth, requests, dropped, batches, batched]


def _add_all(
    family: CounterMetricFamily,
    labels: list[str],
    counts: Mapping[_Reason, int],
    reasons: Iterable[_Reason],
) -> None:
    """One sample per reason, zeros too: a rate needs a first value to start from."""
    for reason in reasons:
        family.add_metric([*labels, str(reason)], counts.get(reason, 0))


def _histogram_families(entries: Sequence[BookEntry]) -> list[Metric]:
    families: list[Metric] = []
    for stage, name, help_text in _HISTOGRAMS:
        family = HistogramMetricFamily(name, help_text, labels=_VERSION)
        for entry in entries:
            counts = entry.total.duration_counts(stage)
            sum_s = _stage_sum_s(entry.total, stage)
            family.add_metric(_labels(entry), duration_buckets(counts), sum_s)
        families.append(family)
    return [*families, _batch_size_family(entries)]


def _stage_sum_s(total: VersionStatistics, stage: Stage) -> float:
    sums = {"total": total.success, "queue": total.queue, "compute": total.compute}
    return sums[stage].total_s


def _batch_size_family(entries: Sequence[BookEntry]) -> Metric:
    family = HistogramMetricFamily("inflight_batch_size", "Rows of a batch.", labels=_VERSION)
    for entry in entries:
        counts = {float(rows): size.count for rows, size in entry.total.batch_stats.items()}
        family.add_metric(
            _labels(entry), histogram_buckets(counts, BATCH_BOUNDS), entry.total.inference_count
        )
    return family


def duration_buckets(counts: Counts) -> list[tuple[str, float]]:
    """Logarithmic buckets as the cumulative buckets of a Prometheus histogram."""
    by_value = {bucket_value_s(bucket): count for bucket, count in counts.items()}
    return histogram_buckets(by_value, DURATION_BOUNDS_S)


def histogram_buckets(
    counts: Mapping[float, int], bounds: Sequence[float]
) -> list[tuple[str, float]]:
    """(upper bound, number of values up to it) for each bound and "+Inf"."""
    filled = [0] * (len(bounds) + 1)
    for value, count in counts.items():
        filled[bisect_left(bounds, value)] += count
    names = [*(str(float(bound)) for bound in bounds), "+Inf"]
    return list(zip(names, map(float, accumulate(filled)), strict=True))


def _latency_families(entries: Sequence[BookEntry]) -> list[Metric]:
    latency = GaugeMetricFamily(
        "inflight_latency_seconds",
        "Live quantiles over a sliding window; quantile 1 is the exact maximum.",
        labels=(*_VERSION, "stage", "quantile", "window"),
    )
    rate = GaugeMetricFamily(
        "inflight_request_rate",
        "Answered requests per second over a sliding window.",
        labels=(*_VERSION, "window"),
    )
    for entry in entries:
        for window_s in WINDOWS_S:
            _add_window(latency, rate, entry, window_s)
    return [latency, rate]


def _add_window(
    latency: GaugeMetricFamily, rate: GaugeMetricFamily, entry: BookEntry, window_s: int
) -> None:
    """No latency is shown for a window in which nothing ended: it would not be zero."""
    if entry.live is None:
        return
    labels, window = _labels(entry), f"{window_s}s"
    for stage in STAGES:
        summary = entry.live.latency(stage, window_s)
        if stage == "total":
            rate.add_metric([*labels, window], summary.rate)
        values = (summary.p50_s, summary.p95_s, summary.p99_s, summary.max_s)
        for quantile, value_s in zip(("0.5", "0.95", "0.99", "1"), values, strict=True):
            if summary.count:
                latency.add_metric([*labels, stage, quantile, window], value_s)


def _optimization_families(figures: OptimizationFigures) -> list[Metric]:
    jobs = CounterMetricFamily(
        "inflight_optimization_jobs", "Jobs, by how they ended.", labels=["outcome"]
    )
    lookups = CounterMetricFamily(
        "inflight_artifact_cache_lookups",
        "Loaded versions of which something was known from before, or not.",
        labels=["result"],
    )
    stages = HistogramMetricFamily(
        "inflight_optimization_stage_duration_seconds",
        "Time one stage took for one candidate of a job that has ended.",
        labels=["stage"],
    )
    for outcome, count in figures.jobs.items():
        jobs.add_metric([outcome], count)
    for result, count in figures.lookups.items():
        lookups.add_metric([result], count)
    for stage, counts in figures.stages.items():
        buckets = histogram_buckets(counts, STAGE_BOUNDS_S)
        stages.add_metric([stage], buckets, figures.stages_s[stage])
    return [jobs, lookups, stages]


def _labels(entry: BookEntry) -> list[str]:
    return [entry.model, str(entry.version)]
