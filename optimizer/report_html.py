"""A report as one page: everything inside, nothing fetched, no script; light and dark."""

from collections.abc import Iterable, Mapping
from importlib.resources import files
from string import Template

from optimizer.candidate import State, Timing
from optimizer.goal import TECHNIQUES
from optimizer.markup import Markup, element, join
from optimizer.report import Report, reduction
from optimizer.report_entry import Entry, megabytes
from optimizer.report_plots import before_and_after, latency_against_score, milliseconds

_NONE, _TIMES, _MINUS = "\N{EN DASH}", "\N{MULTIPLICATION SIGN}", "\N{MINUS SIGN}"
_ENDS = (State.REFUSED, State.FAILED, State.DROPPED, State.SKIPPED, State.CANCELLED)
_STATUS = {
    "completed": "optimized",
    "rejected": "the original stays",
    "running": "running",
    "failed": "failed",
    "cancelled": "cancelled",
}
_LEGEND = (
    ("winner", "winner"),
    ("baseline", "original"),
    ("lossless", "same arithmetic up to rounding"),
    ("lossy", "changed arithmetic, accepted"),
    ("refused", "refused"),
)


def render(report: Report) -> str:
    """The page, complete; can be written to a file or sent as it is."""
    sections = (
        _header(report),
        _tiles(report),
        _why(report),
        _plot(report),
        _bars(report),
        _table(report),
        _refusals(report),
        _conditions(report),
    )
    body = element("main", *sections, _footer(report))
    folder = files("optimizer")
    page = Template((folder / "report_page.html").read_text(encoding="utf-8"))
    style = (folder / "report_page.css").read_text(encoding="utf-8")
    title = element("title", f"{report.model.name}: optimization report")
    return page.substitute(title=title[7:-8], style=style, body=body)


def _header(report: Report) -> Markup:
    facts = [report.model.framework, f"report {report.optimization_id}", report.created]
    spent = report.seconds.get("total")
    facts.append(f"found in {_duration(spent)}" if spent else "")
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


def _tiles(report: Report) -> Markup:
    tiles = (_latency_tile(report), _throughput_tile(report), _size_tile(report))
    shown = [tile for tile in (*tiles, _accuracy_tile(report)) if tile]
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
    what = "throughput, rows a second at the best batch"
    if after is None:
        return _tile(what, _rate(before), f"of the original at batch {before.batch}")
    factor = after.rows_per_s / before.rows_per_s
    change = _arrow(f"{_rate(before)} at {before.batch}", f"{_rate(after)} at {after.batch}")
    return _tile(what, f"{factor:.2f}{_TIMES}", change, "gain" if factor > 1 else "loss")


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
    value = report.to_json()
    before, after = value["original"]["accuracy"], value["optimized"]
    verdict = report.winner.verdict if report.winner else None
    if before is None:
        return Markup()
    if after is None or verdict is None:
        return Markup()
    if verdict.original is not None:
        change = value["improvement"]["accuracy_change"]
        figure = change if float(change) else "±0.000"
        name = _METRICS.get(_labelled_metric(report), _labelled_metric(report))
        text = _arrow(f"{before:.4f}", f"{after['accuracy']:.4f}")
        return _tile(f"{name}, on the labels", figure, text, "gain" if float(change) >= 0 else "")
    if verdict.metric == "exact":
        return _tile("answers", "the same", f"up to rounding; worst row off by {verdict.worst:.1g}")
    name = _METRICS.get(verdict.metric, verdict.metric)
    return _tile(name, f"{verdict.score:.4f}", f"agreement; {verdict.threshold:g} was asked")


_METRICS = {
    "top1": "top-1 accuracy",
    "f1": "F1",
    "rmse": "RMSE",
    "r2": "R²",
    "nn1": "nearest neighbours kept",
    "cosine": "mean cosine",
    "relative_error": "agreement of amounts",
}


def _labelled_metric(report: Report) -> str:
    """Exact candidates are judged without their labels, which are shown all the same."""
    verdict = report.winner.verdict if report.winner else None
    if verdict is None or verdict.metric != "exact":
        return verdict.metric if verdict else ""
    known = ("top1", "rmse")
    return next((name for name in known if f"original_{name}" in verdict.figures), "accuracy")


def _compared(what: str, before: float, after: float, first: str, second: str) -> Markup:
    change = reduction(before, after) or "0.0%"
    is_less = after < before
    figure = f"{_MINUS}{change}" if is_less else f"+{change.removeprefix('-')}"
    kind = "gain" if is_less else "loss" if after > before else ""
    return _tile(what, figure, _arrow(first, second), kind)


def _tile(what: str, figure: str, change: str, kind: str = "") -> Markup:
    return element(
        "div",
        element("div", what, class_="what"),
        element("div", figure, class_="figure"),
        element("div", change, class_="change"),
        class_=f"tile {kind}".strip(),
    )


def _arrow(before: str, after: str) -> Markup:
    return join(f"{before} → ", element("b", after))


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
        _legend(),
    )


def _legend() -> Markup:
    items = (
        element(
            "li",
            element(
                "svg",
                element("circle", cx=8, cy=8, r=6, class_=f"mark {kind}"),
                viewBox="0 0 16 16",
                aria_hidden="true",
            ),
            text,
        )
        for kind, text in _LEGEND
    )
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
    yield f" · p95 {milliseconds(timing.p95_s)} · p99 {milliseconds(timing.p99_s)}"


def _table(report: Report) -> Markup:
    if not report.candidates:
        return Markup()
    batches = report.batch_sizes
    heads = ["candidate", "state", "size", "score", "worst row"]
    heads += [f"batch {batch}" for batch in batches]
    ranked = sorted(report.candidates, key=lambda entry: _rank(report, entry))
    return element(
        "section",
        element("h2", "All candidates"),
        element(
            "p",
            "Milliseconds: median, and p95 / p99 below. Score: 1 is as good as the original. Worst"
            " row: largest difference of any row, relative to the range of the output.",
            class_="hint",
        ),
        element(
            "div",
            element(
                "table",
                element("thead", element("tr", *(element("th", head) for head in heads))),
                element("tbody", *(_row(report, entry, batches) for entry in ranked)),
            ),
            class_="scroll",
        ),
    )


def _rank(report: Report, entry: Entry) -> tuple[int, float, str]:
    """The winner, the original, the timed ones by latency, the others by state."""
    if _is_winner(report, entry):
        return 0, 0.0, entry.name
    if entry is report.baseline:
        return 1, 0.0, entry.name
    timing = entry.timing(report.batch_sizes[0]) if report.batch_sizes else None
    if timing is not None:
        return 2, timing.p50_s, entry.name
    return 3, float(_ENDS.index(entry.state) if entry.state in _ENDS else 9), entry.name


def _row(report: Report, entry: Entry, batches: Iterable[int]) -> Markup:
    is_winner, verdict = _is_winner(report, entry), entry.verdict
    about = ", ".join(entry.techniques) or entry.runtime
    state = "winner" if is_winner else "original" if entry is report.baseline else str(entry.state)
    score = (_NONE, "") if verdict is None else (f"{verdict.score:.4f}", verdict.metric)
    cells = [
        element("td", element("b", entry.name), element("small", about)),
        element("td", element("span", state, class_=f"chip {state}")),
        element("td", f"{megabytes(entry.size_bytes):.2f} MB" if entry.size_bytes else _NONE),
        element("td", score[0], element("small", score[1])),
        element("td", _NONE if verdict is None else f"{verdict.worst:.2g}"),
    ]
    cells += [_timing_cell(entry.timing(batch)) for batch in batches]
    return element("tr", *cells, class_="winner" if is_winner else None)


def _timing_cell(timing: Timing | None) -> Markup:
    if timing is None:
        return element("td", _NONE)
    p50, p95, p99 = (
        milliseconds(s).removesuffix(" ms") for s in (timing.p50_s, timing.p95_s, timing.p99_s)
    )
    return element("td", p50, element("small", f"{p95} / {p99}"))


def _refusals(report: Report) -> Markup:
    ended = [entry for state in _ENDS for entry in report.candidates if entry.state is state]
    if not ended:
        return Markup()
    rows: list[Markup] = []
    for entry in ended:
        chip = element("span", str(entry.state), class_=f"chip {entry.state}")
        rows.append(element("dt", entry.name, chip))
        rows.append(element("dd", entry.reason or "no reason was recorded"))
    return element(
        "section",
        element("h2", "What was not taken, and why"),
        element(
            "p",
            "Refused: answers not as the original does. Skipped: cannot be tried here.",
            class_="hint",
        ),
        element("dl", *rows, class_="refusals"),
    )


def _conditions(report: Report) -> Markup:
    machine, data, goal = report.machine, report.data, report.goal
    load = _load(report)
    columns = (
        (
            "Machine",
            {
                "CPU": machine.cpu,
                "cores": f"{machine.cores}, {goal.threads} used" if machine.cores else "",
                "memory": f"{machine.memory_mb / 1024:.1f} GiB" if machine.memory_mb else "",
                "instructions": ", ".join(machine.features),
                "GPU": ", ".join(machine.gpus),
                "load": load,
            },
        ),
        (
            "Data",
            {
                "rows": data.origin,
                "kind": _kind_of(report),
                "for calibration": f"{data.calibration_rows:,} rows"
                if data.calibration_rows
                else "",
                "for validation": f"{data.validation_rows:,} rows" if data.validation_rows else "",
            },
        ),
        (
            "Asked for",
            {
                "objective": goal.objective,
                "threshold": f"{goal.accuracy_threshold:g} ({goal.metric})",
                "precision": goal.precision,
                "backend": goal.backend,
                "techniques": ", ".join(goal.techniques) or "all",
                "iterations": f"{goal.iterations:,} after {goal.warmup_iterations:,} to warm up,"
                f" in {goal.benchmark_s:g} s at most",
            },
        ),
        ("Time spent", {n: _duration(s) for n, s in report.seconds.items()}),
        ("Versions", dict(machine.versions)),
        (
            "Model",
            {
                "format": report.model.format,
                "SHA-256": report.model.fingerprint,
                "artifact": report.artifact_id or "",
            },
        ),
    )
    shown = [_pairs(title, pairs) for title, pairs in columns if any(pairs.values())]
    notes = [element("li", note) for note in report.notes]
    parts = [element("h2", "Conditions"), element("div", *shown, class_="columns")]
    if notes:
        title = element("h3", "Notes", style="margin-top:22px")
        parts += [title, element("ul", *notes, class_="notes")]
    return element("section", *parts)


def _kind_of(report: Report) -> str:
    if not report.data.origin:
        return ""
    if not report.data.is_real:
        return "made up: good for comparing arithmetic, not for accuracy"
    return "real, with labels" if report.data.has_labels else "real, without labels"


def _load(report: Report) -> str:
    before, after = report.machine.load_before, report.machine.load_after
    if before is None or after is None:
        return ""
    return f"{before:.1f} before and {after:.1f} after the benchmark"


def _pairs(title: str, pairs: Mapping[str, str]) -> Markup:
    rows = [
        part
        for name, value in pairs.items()
        if value
        for part in (element("dt", name), element("dd", value))
    ]
    return element("div", element("h3", title), element("dl", *rows, class_="pairs"))


def _footer(report: Report) -> Markup:
    return element(
        "footer",
        "All candidates were measured in turns in one process, ranked by minimum and median."
        " Figures hold for this machine.",
    )


def _is_winner(report: Report, entry: Entry) -> bool:
    return any(regime.candidate == entry.name for regime in report.regimes)


def _at(timings: Iterable[Timing], batch: int) -> Timing | None:
    return next((timing for timing in timings if timing.batch == batch), None)


def _most_rows(timings: Iterable[Timing]) -> Timing | None:
    return max(timings, key=lambda timing: timing.rows_per_s, default=None)


def _rate(timing: Timing) -> str:
    return f"{timing.rows_per_s:,.0f}" if timing.rows_per_s >= 100 else f"{timing.rows_per_s:.3g}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min {seconds % 60:.0f} s"
