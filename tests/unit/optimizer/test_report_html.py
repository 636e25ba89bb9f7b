"""The page of a report: complete, self-contained, harmless."""

import re
from dataclasses import replace
from html import escape
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.page.markup import element
from optimizer.page.scales import Box, axis_of, place_labels, ticks_of
from optimizer.report import Model, Report
from optimizer.report_html import render
from tests.unit.optimizer.reports import COMPLETED, LABELLED, REJECTED, TWO_REGIMES

_VOID = ("meta", "input", "br")
HOSTILE = "<script>alert('x')</script>\"&$style{}"


class Checker(HTMLParser):
    """Sees that every element ends where it should, and keeps what there is."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parsed(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    return checker


@pytest.mark.parametrize(
    "report",
    [
        COMPLETED,
        REJECTED,
        TWO_REGIMES,
        LABELLED,
        Report("opt-1", "running"),
        Report("opt-1", "failed", reason="out of memory"),
    ],
)
def test_every_report_is_a_page_of_its_own(report: Report) -> None:
    page = render(report)
    checker = parsed(page)
    assert "script" not in checker.tags
    assert not {name for name, _ in checker.attributes} & {"src", "href", "onclick", "onload"}
    assert not re.search(r"https?://|url\(|@import", page)
    assert "default-src 'none'" in page
    assert report.reason == "" or escape(report.reason) in page


def test_all_that_was_tried_is_shown_with_its_reason() -> None:
    page = render(COMPLETED)
    for entry in COMPLETED.candidates:
        assert escape(entry.name) in page
        assert escape(entry.reason) in page
    for text in ("51.0%", "2.33", "74.6%", "0.9925", "AMD EPYC 9R14", "1.31.1", "57.9 s"):
        assert text in page


def test_what_data_would_unlock_is_shown() -> None:
    assert escape(REJECTED.unlock) in render(REJECTED)


def test_two_winners_say_which_batches_are_theirs() -> None:
    page = render(TWO_REGIMES)
    assert "winner, up to 16 rows" in page
    assert "winner, large batches" in page


def test_nothing_from_outside_becomes_markup() -> None:
    entries = tuple(
        replace(entry, name=HOSTILE + entry.name, reason=HOSTILE, techniques=(HOSTILE,))
        for entry in COMPLETED.candidates
    )
    hostile = replace(
        COMPLETED,
        optimization_id=HOSTILE,
        model=Model(HOSTILE, HOSTILE, HOSTILE, HOSTILE),
        candidates=entries,
        reason=HOSTILE,
        notes=(HOSTILE,),
        data=replace(COMPLETED.data, origin=HOSTILE),
        machine=replace(COMPLETED.machine, cpu=HOSTILE, versions={HOSTILE: HOSTILE}),
    )
    page = render(hostile)
    assert "<script" not in page
    assert parsed(page).tags.count("title") >= 1


def test_names_of_attributes_and_values_are_written_as_html_does() -> None:
    made = element("a", "1 < 2", element("b", "x"), class_="k", stroke_width=2, hidden=None)
    assert made == '<a class="k" stroke-width="2">1 &lt; 2<b>x</b></a>'


@given(st.lists(st.tuples(st.floats(0, 700), st.floats(0, 300)), min_size=1, max_size=25))
def test_no_name_lies_on_another_or_on_a_mark(places: list[tuple[float, float]]) -> None:
    frame = Box(0, 0, 700, 300)
    points = [(x, y, f"candidate number {i}") for i, (x, y) in enumerate(places)]
    labels = place_labels(points, frame, 6)
    boxes = [label.box for label in labels if label is not None]
    marks = [Box(x - 6, y - 6, 12, 12) for x, y in places]
    for index, box in enumerate(boxes):
        assert frame.holds(box)
        assert not any(box.meets(other) for other in (*boxes[:index], *marks))


@given(st.lists(st.floats(1e-3, 1e5), min_size=1, max_size=10))
def test_axes_hold_all_values_and_have_round_ticks(values: list[float]) -> None:
    axis = axis_of(values, 0, 100)
    assert all(0 <= axis(value) <= 100 for value in values)
    ticks = ticks_of(axis)
    assert 1 <= len(ticks) <= 8 or axis.is_log
    assert all(axis.low * 0.999 <= tick <= axis.high * 1.001 for tick in ticks)
    assert ticks == sorted(ticks)


def test_a_99th_percentile_of_few_runs_is_not_shown() -> None:
    few = [
        replace(entry, timings=tuple(replace(timing, samples=40) for timing in entry.timings))
        for entry in COMPLETED.candidates
    ]
    page = render(replace(COMPLETED, candidates=tuple(few)))
    assert "of 40 runs" in page
    assert "\N{MIDDLE DOT} p99" in render(COMPLETED)
    assert "\N{MIDDLE DOT} p99" not in page
