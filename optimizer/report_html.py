"""A report as one page: everything inside, nothing fetched, no script; light and dark."""

from collections.abc import Iterable
from functools import partial
from importlib.resources import files
from string import Template

from optimizer.candidate import Timing
from optimizer.goal import TECHNIQUES
from optimizer.page.figures import milliseconds
from optimizer.page.headline import header, tiles
from optimizer.page.markup import Markup, element, join
from optimizer.page.plots import before_and_after, kind_of, latency_against_score
from optimizer.page.tables import all_candidates, conditions, refusals
from optimizer.report import Report

_LEGEND = (
    ("winner", "winner"),
    ("baseline", "original"),
    ("lossless", "same arithmetic up to rounding"),
    ("lossy", "changed arithmetic, accepted"),
    ("refused", "refused"),
    ("dropped", "given up as too slow"),
)


def render(report: Report) -> str:
    """The page, complete; can be written to a file or sent as it is."""
    sections = (
        header(report),
        tiles(report),
        _why(report),
        _plot(report),
        _bars(report),
        all_candidates(report),
        refusals(report),
        conditions(report),
    )
    body = element("main", *sections, _footer(report))
    folder = files("optimizer.page")
    page = Template((folder / "page.html").read_text(encoding="utf-8"))
    style = (folder / "page.css").read_text(encoding="utf-8")
    title = join(f"{report.model.name}: optimization report")
    return page.substitute(title=title, style=style, body=body)


def _why(report: Report) -> Markup:
    title = {"completed": "Why this one", "rejected": "Why none"}.get(
        report.status, "What happened"
    )
    winners = [report.candidate(regime.candidate) for regime in report.regimes]
    names = dict.fromkeys(t for entry in winners if entry for t in entry.techniques)
    techniques = [
        element("li", element("b", name), f" {TECHNIQUES.get(name, '')}") for name in names
    ]
    parts = [element("h2", title)]
    if report.reason:
        parts.append(element("p", report.reason, class_="why"))
    if techniques:
        parts.append(element("ul", *techniques, class_="techniques"))
    if report.unlock:
        parts.append(element("p", report.unlock, class_="callout"))
    return element("section", *parts) if len(parts) > 1 else Markup()


def _plot(report: Report) -> Markup:
    if not report.batch_sizes:
        return Markup()
    panels: list[Markup] = []
    for index, batch in enumerate(report.batch_sizes):
        name = f"batch-{batch}"
        panels += (
            element(
                "input", type="radio", name="batch", id=name, checked="" if index == 0 else None
            ),
            element("label", f"batch {batch}", for_=name),
            element("div", latency_against_score(report, batch), class_="panel"),
        )
    return element(
        "section",
        element("h2", "Latency and accuracy"),
        element(
            "p",
            "Every candidate that was judged. Up is more accurate, left is faster.",
            class_="hint",
        ),
        element("div", *panels, class_="tabs"),
        _legend(report),
    )


def _legend(report: Report) -> Markup:
    """Of the kinds of marks that there are."""
    kinds = {kind_of(report, entry) for entry in report.candidates if entry.verdict}
    mark = partial(element, "circle", cx=8, cy=8, r=6)
    items = [
        element("li", element("svg", mark(class_=f"mark {kind}"), viewBox="0 0 16 16"), text)
        for kind, text in _LEGEND
        if kind in kinds
    ]
    return element("ul", *items, class_="legend")


def _bars(report: Report) -> Markup:
    baseline = report.baseline
    pairs = [
        (before, after)
        for after in report.optimized_timings
        if baseline and (before := baseline.timing(after.batch))
    ]
    if not pairs:
        return Markup()
    rows = [part for before, after in pairs for part in _bar_row(report, before, after)]
    return element(
        "section",
        element("h2", "Before and after, by batch size"),
        element(
            "p",
            "Bars are medians, marks are p95 and p99. Each batch size has its own scale.",
            class_="hint",
        ),
        element("div", *rows, class_="bars"),
    )


def _bar_row(report: Report, before: Timing, after: Timing) -> Iterable[Markup]:
    saved = 1 - after.p50_s / before.p50_s
    text = f"{abs(saved):.1%} {'less' if saved >= 0 else 'more'}"
    kind = "saved" if saved >= 0 else "saved worse"
    yield element("div", f"batch {before.batch}", class_="batch")
    yield element("div", before_and_after(before, after))
    yield element(
        "div",
        *_quantiles("before", before),
        element("br"),
        *_quantiles("after", after),
        "  ",
        element("span", text, class_=kind),
        class_="values",
    )


def _quantiles(name: str, timing: Timing) -> Iterable[str]:
    yield f"{name} "
    yield element("b", milliseconds(timing.p50_s))
    yield f" · p95 {milliseconds(timing.p95_s)}"
    if timing.has_p99:
        yield f" · p99 {milliseconds(timing.p99_s)}"
    else:
        yield f" of {timing.samples} runs"


def _footer(report: Report) -> Markup:
    return element(
        "footer",
        "All candidates were measured in turns in one process, ranked by minimum."
        " Figures hold for this machine.",
    )
