"""Where values lie on a drawing, and where texts find room: geometry without any drawing."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_LOG_FROM = 6.0  # times the smallest value: beyond, a linear axis squeezes the small ones
_FONT = 11.0
_LETTER = 0.6  # mean width of a letter, in font sizes


@dataclass(frozen=True, slots=True)
class Axis:
    """Values from `low` to `high` on pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (self._plain(v) for v in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def _plain(self, value: float) -> float:
        return math.log(value) if self.is_log else value


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle."""

    left: float
    top: float
    width: float
    height: float

    def meets(self, other: "Box") -> bool:
        return (
            self.left < other.left + other.width
            and other.left < self.left + self.width
            and self.top < other.top + other.height
            and other.top < self.top + self.height
        )

    def holds(self, other: "Box") -> bool:
        return (
            self.left <= other.left
            and other.left + other.width <= self.left + self.width
            and self.top <= other.top
            and other.top + other.height <= self.top + self.height
        )


def axis_of(values: Iterable[float], start: float, end: float) -> Axis:
    """An axis of positive values with some room on both sides; logarithmic where they differ."""
    found = [value for value in values if value > 0] or [1.0]
    low, high = min(found), max(found)
    if high / low > _LOG_FROM:
        return Axis(low / 1.35, high * 1.35, start, end, is_log=True)
    room = (high - low) * 0.15 or high * 0.2
    return Axis(max(0.0, low - room), high + room, start, end)


def ticks_of(axis: Axis, most: int = 7) -> list[float]:
    """Round values within an axis."""
    if axis.is_log:
        powers = range(math.floor(math.log10(axis.low)), math.ceil(math.log10(axis.high)) + 1)
        for steps in ((1, 2, 5), (1, 3), (1,)):
            found = [step * 10.0**power for power in powers for step in steps]
            found = [value for value in found if axis.low <= value <= axis.high]
            if len(found) <= most:
                return found
        return found[:: math.ceil(len(found) / most)]
    step = _round_step((axis.high - axis.low) / most)
    first = math.ceil(axis.low / step - 1e-9)
    count = math.floor(axis.high / step + 1e-9) - first + 1
    return [(first + index) * step for index in range(count)]


def _round_step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= least * (1 - 1e-9))


@dataclass(frozen=True, slots=True)
class Label:
    """A text at a point: where it begins, and whether a line has to lead to it."""

    text: str
    box: Box
    is_apart: bool


def place_labels(
    points: Sequence[tuple[float, float, str]], frame: Box, radius: float
) -> list[Label | None]:
    """Room for a text at each point, those in front first; None where there is none left."""
    taken = [Box(x - radius, y - radius, 2 * radius, 2 * radius) for x, y, _ in points]
    labels: list[Label | None] = []
    for x, y, text in points:
        found = next(
            (
                label
                for label in _places(x, y, text, radius)
                if frame.holds(label.box) and not any(label.box.meets(box) for box in taken)
            ),
            None,
        )
        labels.append(found)
        if found is not None:
            taken.append(found.box)
    return labels


def _places(x: float, y: float, text: str, radius: float) -> Iterable[Label]:
    """Beside the point, then farther and farther above and below."""
    width, height = len(text) * _FONT * _LETTER + 4, _FONT + 3
    gap = radius + 3
    for side in (x + gap, x - gap - width):
        yield Label(text, Box(side, y - height / 2, width, height), is_apart=False)
    for distance in range(1, 9):
        for direction in (-1, 1):
            top = y + direction * (distance * (height + 1) + gap - 6) - height / 2
            for left in (x + 4, x - width / 2, x - width - 4):
                yield Label(text, Box(left, top, width, height), is_apart=True)
