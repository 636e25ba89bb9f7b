"""What the always-on statistics cost a request, beside prometheus_client's histograms.

Run from the root: `python -m tests.benchmarks.bench_statistics`. Prints one JSON document with
microseconds per request (best of several repetitions, the empty loop subtracted) and the ratio
to observing the same three durations in three prometheus_client histograms, which measures the
same thing independently of the machine.
"""

import json
import random
import timeit
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Histogram

from server.request import ReleaseReason, Timing
from server.statistics import VersionStatistics

N_REQUESTS = 1000
REPETITIONS = 7
BATCH_SIZES = (1, 4)


def timings() -> list[Timing]:
    """Requests of about 2.5 ms with the spread of a busy server."""
    draw = random.Random(20)
    totals = [draw.lognormvariate(-6, 1) for _ in range(N_REQUESTS)]
    return [Timing(total, total / 3, total / 50, total / 2, total / 60, 4, 4) for total in totals]


def ticking_clock() -> Callable[[], float]:
    """2,000 requests a second, so the folding of slots takes its usual share."""

    def instants() -> Iterator[float]:
        instant = 0.0
        while True:
            instant += 0.0005
            yield instant

    return instants().__next__


def us_per_request(run: Callable[[], None]) -> float:
    seconds = min(timeit.repeat(run, number=20, repeat=REPETITIONS)) / 20
    return seconds / N_REQUESTS * 1e6


def empty_us(requests: list[Timing]) -> float:
    def run() -> None:
        for _ in requests:
            pass

    return us_per_request(run)


def statistics_us(requests: list[Timing], batch_size: int) -> float:
    """`record_success` for each request and its share of `record_batch`."""
    stats = VersionStatistics(clock=ticking_clock())

    def run() -> None:
        for index, timing in enumerate(requests):
            if index % batch_size == 0:
                stats.record_batch(
                    batch_size, batch_size, 1e-4, 1e-3, 1e-4, ReleaseReason.IDLE_INSTANCE
                )
            stats.record_success(timing)

    return us_per_request(run)


def prometheus_us(requests: list[Timing]) -> float:
    """The same three durations observed in labelled histograms of prometheus_client."""
    registry = CollectorRegistry()
    children = [
        Histogram(name, name, ["model", "version"], registry=registry).labels("m", "1")
        for name in ("total", "queue", "compute")
    ]
    total, queue, compute = children

    def run() -> None:
        for timing in requests:
            total.observe(timing.total_s)
            queue.observe(timing.queue_s)
            compute.observe(timing.compute_s)

    return us_per_request(run)


def main() -> None:
    requests = timings()
    empty = empty_us(requests)
    prometheus = prometheus_us(requests) - empty
    report: dict[str, float] = {"prometheus_us": round(prometheus, 3)}
    for batch_size in BATCH_SIZES:
        cost = statistics_us(requests, batch_size) - empty
        report[f"batch_{batch_size}_us"] = round(cost, 3)
        report[f"batch_{batch_size}_ratio_to_prometheus"] = round(cost / prometheus, 3)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
