from server.errors import Code
from server.latency import bucket_of
from server.request import ReleaseReason, Timing
from server.statistics import VersionStatistics
from server.statistics_book import BookEntry, StatisticsBook


def used(total_s: float = 0.01, n_requests: int = 1) -> VersionStatistics:
    """Statistics in which everything has been counted at least once."""
    stats = VersionStatistics(wall_clock=lambda: 1000.0)
    for _ in range(n_requests):
        stats.record_success(Timing(total_s, total_s / 10, 0.001, 0.002, 0.003))
    stats.record_failure(0.5, "OTHER", Code.INVALID_ARGUMENT)
    stats.record_batch(n_requests, n_requests, 0.001, 0.002, 0.003, ReleaseReason.FULL)
    stats.record_dropped("deadline")
    stats.queue_depth = 2
    return stats


def only(book: StatisticsBook) -> BookEntry:
    (entry,) = book.entries()
    return entry


def test_a_serving_version_is_shown_as_it_is() -> None:
    book, stats = StatisticsBook(), used()
    book.add("m", 1, stats)
    entry = only(book)
    assert (entry.model, entry.version) == ("m", 1)
    assert entry.total is stats
    assert entry.live is stats


def test_what_an_unloaded_version_counted_stays() -> None:
    book, stats = StatisticsBook(), used(n_requests=3)
    book.add("m", 1, stats)
    book.close("m", 1, stats)
    entry = only(book)
    assert entry.live is None
    assert entry.total.success.count == 3
    assert entry.total.queue_depth == 0


def test_a_reloaded_version_goes_on_counting() -> None:
    book, first, second = StatisticsBook(), used(0.01, 3), used(0.2, 2)
    book.add("m", 1, first)
    book.add("m", 1, second)  # the old loading still drains
    before = only(book).total
    book.close("m", 1, first)
    after = only(book)
    assert after.live is second
    for total in (before, after.total):
        assert (total.success.count, total.success.ns) == (5, 430_000_000)
        assert (total.queue.ns, total.compute.ns) == (43_000_000, 30_000_000)
        assert (total.fail.count, total.fail.ns) == (2, 1_000_000_000)
        assert (total.inference_count, total.execution_count, total.batched_requests) == (5, 2, 5)
        assert total.codes == {Code.OK: 5, Code.INVALID_ARGUMENT: 2}
        assert total.failures == {"OTHER": 2}
        assert total.dropped == {"deadline": 2}
        assert total.releases == {ReleaseReason.FULL: 2}
        assert {rows: size.compute_infer.ns for rows, size in total.batch_stats.items()} == {
            3: 2_000_000,
            2: 2_000_000,
        }
        assert total.duration_counts("total") == {bucket_of(0.01): 3, bucket_of(0.2): 2}
        assert total.last_inference_ms == 1_000_000
    assert (before.queue_depth, after.total.queue_depth) == (4, 2)


def test_an_ended_version_does_not_touch_the_one_that_serves() -> None:
    book, first, second = StatisticsBook(), used(), used()
    book.add("m", 1, first)
    book.close("m", 1, first)
    book.add("m", 1, second)
    for _ in range(2):
        assert only(book).total.success.count == 2
    assert second.success.count == 1
    assert second.latency("total", 300).count == 1


def test_versions_and_models_are_kept_apart() -> None:
    book = StatisticsBook()
    for model, version in (("a", 1), ("a", 2), ("b", 1)):
        book.add(model, version, used(n_requests=version))
    counts = [(entry.model, entry.version, entry.total.success.count) for entry in book.entries()]
    assert counts == [("a", 1, 1), ("a", 2, 2), ("b", 1, 1)]


def test_an_unused_loading_adds_nothing() -> None:
    book, idle = StatisticsBook(), VersionStatistics()
    book.add("m", 1, idle)
    book.close("m", 1, idle)
    assert only(book).total.success.count == 0
    assert only(book).total.duration_counts("total") == {}


def test_a_model_of_ever_new_versions_does_not_fill_the_book() -> None:
    book, serving = StatisticsBook(), used()
    book.add("m", 1, serving)
    for version in range(2, 100):
        ending, serving = serving, used()
        book.add("m", version, serving)
        book.close("m", version - 1, ending)
    assert [entry.version for entry in book.entries()] == [95, 96, 97, 98, 99]
