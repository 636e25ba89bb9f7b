"""The drawings of a report, as SVG: latency against accuracy, and before against after.

Colours come from the page's style sheet by class, so they follow its light and dark form.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from optimizer.candidate import State, Timing
from optimizer.page.figures import milliseconds
from optimizer.page.markup import Markup, element, join
from optimizer.page.scales import Axis, Box, Label, axis_of, place_labels, ticks_of
from optimizer.report import Report
from optimizer.report_entry import Entry

_WIDTH, _HEIGHT = 980.0, 440.0
_LEFT, _TOP, _BOTTOM = 64.0, 24.0, 52.0
_UNTIMED = 250.0  # width of the strip of candidates that were judged but not timed
_RADIUS = 6.0
_LINE, _NAME = 17.0, 25  # in the strip: pixels of a line, letters of a name
_LOWEST_SHOWN = 0.05  # of scores below the threshold; what is worse is drawn at the edge


@dataclass(frozen=True, slots=True)
class _Point:
    """One candidate in the plot."""

    entry: Entry
    x: float
    y: float
    kind: str  # class of its mark
    is_below: bool  # its score is off the plot


def latency_against_score(report: Report, batch: int) -> Markup:
    """Every candidate that was judged, by its median at one batch size and its score."""
    timed = [entry for entry in report.candidates if entry.timing(batch) and entry.verdict]
    untimed = [entry for entry in report.candidates if entry.verdict and not entry.timings]
    right = _WIDTH - (_UNTIMED if untimed else 2)
    frame = Box(_LEFT, _TOP, right - _LEFT, _HEIGHT - _TOP - _BOTTOM)
    across = axis_of(
        [_p50_ms(entry, batch) for entry in timed], frame.left, frame.left + frame.width
    )
    up = _score_axis(report, [*timed, *untimed], frame)
    points = [_timed_point(report, entry, batch, across, up) for entry in timed]
    strip = _strip(report, untimed, up, frame)
    points.sort(key=lambda point: _ORDER.index(point.kind))
    labels = place_labels([(p.x, p.y, p.entry.name) for p in points], frame, _RADIUS)
    return element(
        "svg",
        _grid(across, up, frame, batch),
        _threshold(report, up, frame),
        *(_leader(point, label) for point, label in zip(points, labels, strict=True)),
        *(_mark(point, batch) for point in reversed(points)),
        *(_text(point, label) for point, label in zip(points, labels, strict=True)),
        _strip_drawing(strip, frame),
        viewBox=f"0 0 {_WIDTH:g} {_HEIGHT:g}",
        role="img",
        aria_label=f"latency at batch {batch} against score, one mark for each candidate",
    )


def before_and_after(before: Timing, after: Timing) -> Markup:
    """Two bars of the medians, with marks at p95 and p99."""
    longest = max(before.p50_s, after.p50_s)
    most = min(max(before.p99_s, after.p99_s, longest * 1.05), longest * 1.6)
    across = Axis(0, most, 0, 600)
    return element(
        "svg",
        _bar(before, across, 3, "before"),
        _bar(after, across, 25, "after"),
        viewBox="0 0 612 46",
        preserveAspectRatio="none",
        role="img",
        aria_label=f"batch {before.batch}: {milliseconds(before.p50_s)} before,"
        f" {milliseconds(after.p50_s)} after",
    )


_ORDER = ("winner", "baseline", "lossless", "lossy", "dropped", "refused")


def kind_of(report: Report, entry: Entry) -> str:
    """The class of a candidate's mark."""
    if any(regime.candidate == entry.name for regime in report.regimes):
        return "winner"
    if entry is report.baseline:
        return "baseline"
    if entry.state is State.DROPPED:
        return "dropped"
    if entry.state is State.REFUSED:
        return "refused"
    return "lossless" if entry.is_lossless else "lossy"


def _timed_point(report: Report, entry: Entry, batch: int, across: Axis, up: Axis) -> _Point:
    score, kind = _score(entry), kind_of(report, entry)
    return _Point(
        entry, across(_p50_ms(entry, batch)), up(max(score, up.low)), kind, score < up.low
    )


def _score_axis(report: Report, entries: Sequence[Entry], frame: Box) -> Axis:
    """Scores near the threshold and above; what is far below is not worth the room."""
    threshold = report.goal.accuracy_threshold
    scores = [entry.verdict.score for entry in entries if entry.verdict]
    shown = [score for score in scores if score >= threshold - _LOWEST_SHOWN]
    low, high = min([*shown, threshold]), max([*shown, 1.0])
    room = max((high - low) * 0.12, 1e-4)
    top = high + max((high - low) * 0.3, room)  # for the names of those that are exact
    return Axis(low - room, top, frame.top + frame.height, frame.top)


def _strip(report: Report, entries: Sequence[Entry], up: Axis, frame: Box) -> list[_Point]:
    """Marks at their scores with room for a name beside each; the worst are lined up below."""
    points: list[_Point] = []
    x, lowest = frame.left + frame.width + 32, frame.top + frame.height - 12
    for entry in sorted(entries, key=_score):
        y = min(up(min(max(_score(entry), up.low), up.high)), lowest)
        points.append(_Point(entry, x, y, kind_of(report, entry), _score(entry) < up.low))
        lowest = y - _LINE
    return points


def _score(entry: Entry) -> float:
    return entry.verdict.score if entry.verdict else 0.0


def _grid(across: Axis, up: Axis, frame: Box, batch: int) -> Markup:
    bottom, right = frame.top + frame.height, frame.left + frame.width
    parts = [element("rect", x=frame.left, y=frame.top, width=frame.width, height=frame.height,
                     class_="frame")]  # fmt: skip
    for value in ticks_of(across):
        x = round(across(value), 1)
        parts.append(element("line", x1=x, x2=x, y1=frame.top, y2=bottom, class_="grid"))
        parts.append(_words(f"{value:g}", x, bottom + 18, "tick", "middle"))
    ticks = [value for value in ticks_of(up, 5) if value <= max(1.0, up.high * 0.99)]
    digits = max(2, len(f"{ticks[1] - ticks[0]:.10f}".rstrip("0")) - 2) if len(ticks) > 1 else 3
    for value in ticks:
        y = round(up(value), 1)
        parts.append(element("line", x1=frame.left, x2=right, y1=y, y2=y, class_="grid"))
        parts.append(_words(f"{value:.{digits}f}", frame.left - 9, y + 4, "tick", "end"))
    kind = " (logarithmic)" if across.is_log else ""
    title = f"median latency at batch {batch}, ms{kind}"
    parts.append(_words(title, frame.left + frame.width / 2, bottom + 40, "axis", "middle"))
    parts.append(_words("score: 1 is as good as the original", frame.left, frame.top - 9, "axis"))
    parts.append(_words("← faster", frame.left + 2, bottom + 40, "axis"))
    return join(*parts)


def _threshold(report: Report, up: Axis, frame: Box) -> Markup:
    y = round(up(report.goal.accuracy_threshold), 1)
    right = frame.left + frame.width
    text = f"threshold {report.goal.accuracy_threshold:g}"
    return join(
        element("line", x1=frame.left, x2=right, y1=y, y2=y, class_="threshold"),
        _words(text, right - 6, y - 5, "tick threshold-name", "end"),
    )


def _mark(point: _Point, batch: int) -> Markup:
    """A circle, or an arrow down where the score lies below the plot."""
    tip = element("title", _tip(point.entry, batch))
    x, y = round(point.x, 1), round(point.y, 1)
    if point.is_below:
        corners = f"{x - 6},{y - 5} {x + 6},{y - 5} {x},{y + 4}"
        return element("polygon", tip, points=corners, class_=f"mark {point.kind}")
    radius = _RADIUS + 2.5 if point.kind == "winner" else _RADIUS
    return element("circle", tip, cx=x, cy=y, r=radius, class_=f"mark {point.kind}")


def _tip(entry: Entry, batch: int) -> str:
    timing, verdict = entry.timing(batch), entry.verdict
    parts = [entry.name]
    if timing:
        parts.append(f"batch {batch}: p50 {milliseconds(timing.p50_s)}")
    if verdict:
        parts.append(f"{verdict.metric} {verdict.score:.4f}")
    return "\n".join([*parts, entry.reason] if entry.reason else parts)


def _text(point: _Point, label: Label | None) -> Markup:
    if label is None:
        return Markup()
    return _words(label.text, label.box.left + 2, label.box.top + 11, f"name {point.kind}")


def _leader(point: _Point, label: Label | None) -> Markup:
    if label is None or not label.is_apart:
        return Markup()
    is_above = label.box.top < point.y
    x = min(max(point.x, label.box.left + 3), label.box.left + label.box.width - 3)
    y = label.box.top + (label.box.height if is_above else 0)
    return element("line", x1=round(point.x, 1), y1=round(point.y, 1), x2=round(x, 1),
                   y2=round(y, 1), class_="leader")  # fmt: skip


def _strip_drawing(points: Sequence[_Point], frame: Box) -> Markup:
    if not points:
        return Markup()
    x = frame.left + frame.width + 16
    return join(
        element("rect", x=x, y=frame.top, width=_UNTIMED - 24, height=frame.height, class_="strip"),
        _words("judged, not timed", x + 8, frame.top - 9, "axis"),
        *(_mark(point, 0) for point in points),
        *(_words(_short(point.entry), point.x + 12, point.y + 4, "tick") for point in points),
    )


def _short(entry: Entry) -> str:
    """A score and as much of the name as there is room for."""
    name = entry.name if len(entry.name) <= _NAME else entry.name[: _NAME - 1].rstrip() + "…"
    return f"{_score(entry):.3f}  {name}"


def _bar(timing: Timing, across: Axis, top: float, kind: str) -> Markup:
    middle, width = top + 9, round(across(timing.p50_s), 1)
    end = round(across(min(timing.p99_s, across.high)), 1)
    tip = f"p50 {milliseconds(timing.p50_s)}, p95 {milliseconds(timing.p95_s)}"
    return element(
        "g",
        element("title", f"{tip}, p99 {milliseconds(timing.p99_s)}"),
        element("rect", x=0, y=top, width=width, height=18, rx=3, class_=f"bar {kind}"),
        element("line", x1=width, x2=end, y1=middle, y2=middle, class_="whisker"),
        _quantile(timing.p95_s, across, middle, 5),
        _quantile(timing.p99_s, across, middle, 7),
    )


def _quantile(seconds: float, across: Axis, middle: float, reach: float) -> Markup:
    """A mark; beyond the end of the scale an arrow head says that it goes on."""
    x = round(across(min(seconds, across.high)), 1)
    if seconds > across.high:
        points = f"{x - 5},{middle - 5} {x},{middle} {x - 5},{middle + 5}"
        return element("polyline", points=points, class_="whisker")
    return element("line", x1=x, x2=x, y1=middle - reach, y2=middle + reach, class_="whisker")


def _words(text: str, x: float, y: float, kind: str, anchor: str | None = None) -> Markup:
    return element("text", text, x=round(x, 1), y=round(y, 1), class_=kind, text_anchor=anchor)


def _p50_ms(entry: Entry, batch: int) -> float:
    timing = entry.timing(batch)
    return timing.p50_s * 1e3 if timing else 0.0
