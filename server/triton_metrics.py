"""The `nv_inference_*` metrics, for dashboards and autoscalers made for Triton.

Names, labels, units and meaning are Triton's: success counts requests, inference rows,
executions batches; durations are microseconds and a batch's compute time counts for each of its
requests. Triton's counters have no `_total` suffix, without which the Prometheus client knows no
counter: they are exposed with type `untyped`, which every query function accepts.
"""

from collections.abc import Callable, Sequence
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric, UntypedMetricFamily

from server.statistics import FAILURE_REASONS, VersionStatistics
from server.statistics_book import BookEntry

_LABELS: Final = ("model", "version")
_COUNTERS: Final[tuple[tuple[str, str, Callable[[VersionStatistics], float]], ...]] = (
    (
        "nv_inference_request_success",
        "Requests that were answered.",
        lambda total: total.success.count,
    ),
    (
        "nv_inference_count",
        "Rows inferred.",
        lambda total: total.inference_count,
    ),
    (
        "nv_inference_exec_count",
        "Batches executed.",
        lambda total: total.execution_count,
    ),
    (
        "nv_inference_request_duration_us",
        "Microseconds from arrival to answer, summed over requests.",
        lambda total: total.success.ns // 1000,
    ),
    (
        "nv_inference_queue_duration_us",
        "Microseconds in the queue, summed over requests.",
        lambda total: total.queue.ns // 1000,
    ),
    (
        "nv_inference_compute_input_duration_us",
        "Microseconds of gathering inputs, summed over requests.",
        lambda total: total.compute_input.ns // 1000,
    ),
    (
        "nv_inference_compute_infer_duration_us",
        "Microseconds inside the backend, summed over requests.",
        lambda total: total.compute_infer.ns // 1000,
    ),
    (
        "nv_inference_compute_output_duration_us",
        "Microseconds of splitting outputs, summed over requests.",
        lambda total: total.compute_output.ns // 1000,
    ),
)


def triton_families(entries: Sequence[BookEntry]) -> list[Metric]:
    """Triton's per-model metrics of every version."""
    counters = [_counter_family(counter, entries) for counter in _COUNTERS]
    return [*counters, _failure_family(entries), _pending_family(entries)]


def _counter_family(
    counter: tuple[str, str, Callable[[VersionStatistics], float]], entries: Sequence[BookEntry]
) -> Metric:
    name, help_text, value_of = counter
    family = UntypedMetricFamily(name, help_text, labels=_LABELS)
    for entry in entries:
        family.add_metric([entry.model, str(entry.version)], value_of(entry.total))
    return family


def _failure_family(entries: Sequence[BookEntry]) -> Metric:
    family = UntypedMetricFamily(
        "nv_inference_request_failure",
        "Requests that failed, by reason.",
        labels=(*_LABELS, "reason"),
    )
    for entry in entries:
        for reason in FAILURE_REASONS:
            labels = [entry.model, str(entry.version), reason]
            family.add_metric(labels, entry.total.failures.get(reason, 0))
    return family


def _pending_family(entries: Sequence[BookEntry]) -> Metric:
    family = GaugeMetricFamily(
        "nv_inference_pending_request_count",
        "Requests waiting for execution now.",
        labels=_LABELS,
    )
    for entry in entries:
        family.add_metric([entry.model, str(entry.version)], entry.total.queue_depth)
    return family
