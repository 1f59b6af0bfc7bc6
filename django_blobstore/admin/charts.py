"""How figures become the coordinates of an SVG: where lines, bars and ticks are. Colours are the style sheet's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from django.template.defaultfilters import filesizeformat
from django.utils.formats import date_format

WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 84, 16, 12, 32
TICKS = 4
DAYS_BETWEEN = (1, 2, 7, 14, 31, 61, 92)


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: where it is, as SVG writes it, and what it says."""

    at: str
    label: str


@dataclass(frozen=True)
class Line:
    """A line that goes on level until its value changes: the `d` of its path, and that of the area under it."""

    name: str
    label: str
    path: str
    area: str


@dataclass(frozen=True)
class Chart:
    """Lines over days."""

    lines: Sequence[Line]
    across: Sequence[Tick]
    up: Sequence[Tick]

    view_box = f"0 0 {WIDTH} {HEIGHT}"
    left, right, top, bottom = str(LEFT), str(WIDTH - RIGHT), str(TOP), str(HEIGHT - BOTTOM)
    under = str(HEIGHT - BOTTOM + 20)
    beside = str(LEFT - 8)


def growth(start: date, end: date, series: Sequence[tuple[str, str, Sequence[tuple[date, int]]]]) -> Chart:
    """Return the chart of `series`, (name, label, bytes by day in order), from `start` to `end`."""
    highest = max((value for _, _, points in series for _, value in points), default=0)
    step = _step(highest)
    # The last day has room too, or a store of one day would show nothing.
    scale = _Scale(start, (end - start).days + 1, step * TICKS)
    lines = [Line(name, label, *_paths(scale, points, end)) for name, label, points in series if points]
    up = [Tick(scale.y(step * n), filesizeformat(step * n)) for n in range(TICKS + 1)]
    return Chart(lines, list(_days(scale, start, end)), up)


def share(value: int, of: int, width: int = 100) -> str:
    """Return how wide a bar is that stands for `value`, if one for `of` is `width` wide."""
    return f"{width * value / of:.1f}" if of else "0"


@dataclass(frozen=True)
class _Scale:
    start: date
    days: int
    top: int

    def x(self, day: date) -> str:
        across = max((day - self.start).days, 0) / self.days
        return f"{LEFT + across * (WIDTH - LEFT - RIGHT):.1f}"

    def y(self, value: int) -> str:
        return f"{HEIGHT - BOTTOM - value / self.top * (HEIGHT - TOP - BOTTOM):.1f}"


def _paths(scale: _Scale, points: Sequence[tuple[date, int]], end: date) -> tuple[str, str]:
    (first, value), *later = points
    path = f"M{scale.x(first)} {scale.y(value)}" + "".join(f"H{scale.x(day)}V{scale.y(more)}" for day, more in later)
    path += f"H{scale.x(end + timedelta(days=1))}"
    return path, f"{path}V{scale.y(0)}H{scale.x(first)}Z"


def _step(highest: int) -> int:
    """Return the bytes from one tick to the next: 1, 2, 5, 10, 20, 50, 100, 200 or 500 of a unit."""
    unit = 1
    while True:
        for count in (1, 2, 5, 10, 20, 50, 100, 200, 500):
            if count * unit * TICKS >= highest:
                return count * unit
        unit *= 1024


def _days(scale: _Scale, start: date, end: date) -> Iterator[Tick]:
    days = (end - start).days
    apart = next((apart for apart in DAYS_BETWEEN if days / apart <= 6), DAYS_BETWEEN[-1])
    for number in range(0, days + 1, apart):
        day = start + timedelta(days=number)
        yield Tick(scale.x(day), date_format(day, "MONTH_DAY_FORMAT"))
