"""The tables of the page: all candidates, what was not taken and why, and the conditions."""

from collections.abc import Iterable, Mapping

from optimizer.candidate import State, Timing
from optimizer.page.figures import NONE, duration, milliseconds, percent
from optimizer.page.markup import Markup, element
from optimizer.report import Report
from optimizer.report_entry import Entry, megabytes

_ENDS = (State.REFUSED, State.FAILED, State.DROPPED, State.SKIPPED, State.CANCELLED)


def all_candidates(report: Report) -> Markup:
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
            "Batches in ms: median, and p95 / p99 below, p99 of 200 runs or more. Score:"
            " 1 is as good as the original. Worst row: largest difference in any row, of the"
            " output's range.",
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
    kind = "winner" if is_winner else "original" if entry is report.baseline else str(entry.state)
    state = _winner_of(report, entry) if is_winner else kind
    score = (NONE, "") if verdict is None else (f"{verdict.score:.4f}", verdict.metric)
    cells = [
        element("td", element("b", entry.name), element("small", about)),
        element("td", element("span", state, class_=f"chip {kind}")),
        element("td", f"{megabytes(entry.size_bytes):.2f} MB" if entry.size_bytes else NONE),
        element("td", score[0], element("small", score[1])),
        element("td", NONE if verdict is None else percent(verdict.worst)),
    ]
    cells += [_timing_cell(entry.timing(batch)) for batch in batches]
    return element("tr", *cells, class_="winner" if is_winner else None)


def _timing_cell(timing: Timing | None) -> Markup:
    if timing is None:
        return element("td", NONE)
    p50, p95, p99 = (
        milliseconds(s).removesuffix(" ms") for s in (timing.p50_s, timing.p95_s, timing.p99_s)
    )
    return element("td", p50, element("small", f"{p95} / {p99 if timing.has_p99 else NONE}"))


def _is_winner(report: Report, entry: Entry) -> bool:
    return any(regime.candidate == entry.name for regime in report.regimes)


def _winner_of(report: Report, entry: Entry) -> str:
    """Of which batches, where there are two."""
    sizes = [regime.max_rows for regime in report.regimes if regime.candidate == entry.name]
    if len(report.regimes) < 2:
        return "winner"
    return "winner, large batches" if None in sizes else f"winner, up to {sizes[0]} rows"


def refusals(report: Report) -> Markup:
    ended = [entry for state in _ENDS for entry in report.candidates if entry.state is state]
    if not ended:
        return Markup()
    rows: list[Markup] = []
    for entry in ended:
        chip = element("span", str(entry.state), class_=f"chip {entry.state}")
        rows.append(element("dt", entry.name))
        rows.append(element("dd", chip))
        rows.append(element("dd", entry.reason or "no reason was recorded"))
    return element(
        "section",
        element("h2", "What was not taken, and why"),
        element(
            "p",
            "Refused: answers not as the original does. Dropped: too slow in the first rounds."
            " Skipped: cannot be tried here.",
            class_="hint",
        ),
        element("dl", *rows, class_="refusals"),
    )


def conditions(report: Report) -> Markup:
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
        ("Time spent", {n: duration(s) for n, s in report.seconds.items()}),
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
