"""The top of the page: whose report it is, and the figures that matter most."""

from collections.abc import Iterable

from optimizer.candidate import Timing, Verdict
from optimizer.page.figures import MINUS, TIMES, duration, milliseconds, moment, percent, rate
from optimizer.page.markup import Markup, element, join
from optimizer.report import Report, change, reduction

_STATUS = {
    "completed": "optimized",
    "rejected": "the original stays",
    "running": "running",
    "failed": "failed",
    "cancelled": "cancelled",
}

_METRICS = {
    "top1": "top-1 accuracy",
    "f1": "F1",
    "rmse": "RMSE",
    "r2": "R²",
    "nn1": "nearest neighbours kept",
    "cosine": "mean cosine",
    "relative_error": "agreement of amounts",
}


def header(report: Report) -> Markup:
    """Name, origin and state."""
    facts = [report.model.framework, f"report {report.optimization_id}", moment(report.created)]
    spent = report.seconds.get("total")
    facts.append(f"found in {duration(spent)}" if spent else "")
    return element(
        "header",
        element(
            "div",
            element("p", "Inflight optimization report", class_="kicker"),
            element("h1", report.model.name or report.optimization_id),
            element("p", *(element("span", fact) for fact in facts if fact), class_="facts"),
            class_="title",
        ),
        element("span", _STATUS[report.status], class_=f"status {report.status}"),
    )


def tiles(report: Report) -> Markup:
    """Latency, throughput, size and accuracy, as far as they are known."""
    makers = (_latency_tile, _throughput_tile, _size_tile, _accuracy_tile)
    shown = [tile for make in makers if (tile := make(report))]
    return element("div", *shown, class_="tiles") if shown else Markup()


def _latency_tile(report: Report) -> Markup:
    if not report.batch_sizes or report.baseline is None:
        return Markup()
    batch = report.batch_sizes[0]
    before, after = report.baseline.timing(batch), _at(report.optimized_timings, batch)
    what = f"latency, median at batch {batch}"
    if before is None:
        return Markup()
    if after is None:
        return _tile(what, milliseconds(before.p50_s), "of the original")
    return _compared(
        what, before.p50_s, after.p50_s, milliseconds(before.p50_s), milliseconds(after.p50_s)
    )


def _throughput_tile(report: Report) -> Markup:
    before = _most_rows(report.baseline.timings if report.baseline else ())
    after = _most_rows(report.optimized_timings)
    if before is None:
        return Markup()
    what = f"throughput at batch {(after or before).batch}, the best"
    if after is None:
        return _tile(what, f"{rate(before)} rows/s", "of the original")
    factor = after.rows_per_s / before.rows_per_s
    rates = join(_arrow(rate(before), rate(after)), " rows/s")
    return _tile(what, f"{factor:.2f}{TIMES}", rates, "gain" if factor > 1 else "loss")


def _size_tile(report: Report) -> Markup:
    value = report.to_json()
    before, after = value["original"]["size_mb"], value["optimized"]
    if not before:
        return Markup()
    if after is None:
        return _tile("size", f"{before:.2f} MB", "of the original")
    sizes = f"{before:.2f} MB", f"{after['size_mb']:.2f} MB"
    return _compared("size", before, after["size_mb"], *sizes)


def _accuracy_tile(report: Report) -> Markup:
    verdict = report.least_accurate.verdict if report.least_accurate else None
    if verdict is None:
        return Markup()
    if verdict.original is not None and verdict.optimized is not None:
        figure = change(verdict.original, verdict.optimized) or ""
        text = _arrow(f"{verdict.original:.4f}", f"{verdict.optimized:.4f}")
        kind = "gain" if verdict.score >= 1 else ""
        return _tile(f"{_labelled_metric(report, verdict)}, on the labels", figure, text, kind)
    if verdict.metric == "exact":
        return _tile("answers", "the same", f"up to rounding: {percent(verdict.worst)} at worst")
    name = _METRICS.get(verdict.metric, verdict.metric)
    return _tile(name, f"{verdict.score:.4f}", f"agreement; {verdict.threshold:g} was asked")


def _labelled_metric(report: Report, verdict: Verdict) -> str:
    """Lossless candidates are judged without labels, which were used for figures all the same."""
    known = (verdict.metric, report.goal.metric, "top1", "rmse")
    found = (name for name in known if f"original_{name}" in verdict.figures)
    return _METRICS.get(next(found, ""), "accuracy")


def _compared(what: str, before: float, after: float, first: str, second: str) -> Markup:
    saved = reduction(before, after) or "0.0%"
    is_less = after < before
    figure = f"{MINUS}{saved}" if is_less else f"+{saved.removeprefix('-')}"
    kind = "gain" if is_less else "loss" if after > before else ""
    return _tile(what, figure, _arrow(first, second), kind)


def _tile(what: str, figure: str, below: str, kind: str = "") -> Markup:
    return element(
        "div",
        element("div", what, class_="what"),
        element("div", figure, class_="figure"),
        element("div", below, class_="change"),
        class_=f"tile {kind}".strip(),
    )


def _arrow(before: str, after: str) -> Markup:
    return join(f"{before} → ", element("b", after))


def _at(timings: Iterable[Timing], batch: int) -> Timing | None:
    return next((timing for timing in timings if timing.batch == batch), None)


def _most_rows(timings: Iterable[Timing]) -> Timing | None:
    return max(timings, key=lambda timing: timing.rows_per_s, default=None)
