"""Small plots as inline SVG: axes, bars, lines, dots. No script, no font, colours from the style sheet.

An SVG of this kind is text: it scales without blur, follows the page's light or dark colours, and a screen
reader reads its title and description.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

WIDTH, HEIGHT = 400, 280
LEFT, RIGHT, TOP, BOTTOM = 58, 24, 14, 46
TICK_TEXT = 5


@dataclass(frozen=True)
class Axis:
    """One axis: its range, its words and how a tick is written. log: base-10, the range must be above 0."""

    low: float
    high: float
    label: str
    log: bool = False
    show: Callable[[float], str] = lambda value: f"{value:g}"
    ticks: Sequence[float] | None = None

    def place(self, value: float) -> float:
        """0 at the low end, 1 at the high end; values beyond stay at the ends."""
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = math.log10(low), math.log10(high), math.log10(max(value, low))
        return min(1.0, max(0.0, (at - low) / (high - low))) if high > low else 0.5

    def marks(self) -> list[float]:
        if self.ticks is not None:
            return list(self.ticks)
        return decades(self.low, self.high) if self.log else round_ticks(self.low, self.high)


def round_ticks(low: float, high: float, most: int = 7) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) from low to high, as many as fit up to `most`."""
    if high <= low:
        return [low]
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(factor * power for factor in (1, 2, 5, 10, 20) if (high - low) / (factor * power) <= most - 1)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def decades(low: float, high: float) -> list[float]:
    """Powers of ten from low to high, every other one when there are more than six."""
    powers = list(range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1))
    return [10.0**power for power in powers[:: 2 if len(powers) > 6 else 1]]


@dataclass
class Chart:
    """A plot under construction, in the order in which it is painted.

    name: unique on the page; title, description: what a screen reader says.
    """

    name: str
    title: str
    description: str
    x: Axis
    y: Axis
    parts: list[Markup] = field(default_factory=list)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Pixel place of a value."""
        return (
            LEFT + self.x.place(x) * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - self.y.place(y) * (HEIGHT - TOP - BOTTOM),
        )

    def bars(self, edges: Sequence[float], values: Sequence[float], series: str) -> None:
        """A histogram: values[i] between edges[i] and edges[i + 1]."""
        steps = []
        base = self.at(edges[0], self.y.low)[1]
        for left, right, value in zip(edges[:-1], edges[1:], values, strict=True):
            if value <= self.y.low or right <= self.x.low or left >= self.x.high:
                continue
            (x0, top), x1 = self.at(left, value), self.at(right, value)[0]
            steps.append(f"M{x0:.1f},{base:.1f}V{top:.1f}H{x1:.1f}V{base:.1f}Z")
        self._path("".join(steps), f"area {series}")

    def outline(self, edges: Sequence[float], values: Sequence[float], series: str) -> None:
        """The same histogram as a stepped line, to lie over another one."""
        points: list[tuple[float, float]] = []
        for left, right, value in zip(edges[:-1], edges[1:], values, strict=True):
            if right > self.x.low and left < self.x.high:
                points += [(left, value), (right, value)]
        self.line(points, series, dashed=True)

    def line(self, points: Sequence[tuple[float, float]], series: str, *, dashed: bool = False) -> None:
        """Straight lines from point to point."""
        places = [self.at(x, y) for x, y in points]
        steps = "".join(f"{'L' if index else 'M'}{x:.1f},{y:.1f}" for index, (x, y) in enumerate(places))
        self._path(steps, f"line {series}{' dashed' if dashed else ''}")

    def band(self, points: Sequence[tuple[float, float, float]], series: str) -> None:
        """The area between low and high, for points (x, low, high)."""
        there = [self.at(x, low) for x, low, _ in points]
        back = [self.at(x, high) for x, _, high in reversed(points)]
        steps = "".join(
            f"{'L' if index else 'M'}{x:.1f},{y:.1f}" for index, (x, y) in enumerate([*there, *back])
        )
        self._path(steps + ("Z" if steps else ""), f"band {series}")

    def whisker(self, x: float, low: float, high: float, series: str, *, shift: float = 0.0) -> None:
        """A vertical interval; shift: px to the side, so that two do not cover each other."""
        (place, bottom), top = self.at(x, low), self.at(x, high)[1]
        self._path(f"M{place + shift:.1f},{bottom:.1f}V{top:.1f}", f"whisker {series}")

    def marker(
        self,
        x: float,
        y: float,
        series: str,
        *,
        shift: float = 0.0,
        square: bool = False,
        hollow: bool = False,
    ) -> None:
        """One point large enough to be told by its shape."""
        place, level = self.at(x, y)
        style = f"marker {series}{' hollow' if hollow else ''}"
        if square:
            square_mark = Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="8" height="8"/>')
            self.parts.append(square_mark.format(style, place + shift - 4, level - 4))
        else:
            round_mark = Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="4"/>')
            self.parts.append(round_mark.format(style, place + shift, level))

    def dots(self, points: Sequence[Sequence[float]], series: str, *, square: bool = False) -> None:
        """Many small dots, as one path of segments without length whose ends are round or square."""
        places = [self.at(x, y) for x, y in points]
        steps = "".join(f"M{x:.1f},{y:.1f}h0" for x, y in places)
        self._path(steps, f"{'squares' if square else 'dots'} {series}")

    def cell(self, left: float, right: float, low: float, high: float, share: float, series: str) -> None:
        """A rectangle as dark as `share` (0 to 1) says."""
        (x0, y0), (x1, y1) = self.at(left, low), self.at(right, high)
        shape = Markup(
            '<rect class="density {}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" opacity="{:.2f}"/>'
        )
        self.parts.append(shape.format(series, x0, y1, x1 - x0, y0 - y1, 0.25 + 0.75 * share))

    def vertical(self, x: float, label: str, series: str, *, dashed: bool = False, row: int = 0) -> None:
        """A line over the whole height with its words beside it; row: how many lines of text from the top."""
        place, bottom = self.at(x, self.y.low)
        self._path(f"M{place:.1f},{bottom:.1f}V{TOP}", f"line {series}{' dashed' if dashed else ''}")
        left = place > WIDTH - RIGHT - 110
        text = Markup('<text class="label" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')
        self.parts.append(
            text.format(place + (-6 if left else 6), TOP + 12 + 16 * row, "end" if left else "start", label)
        )

    def draw(self) -> Markup:
        """The whole plot."""
        head = Markup(
            '<svg class="plot" viewBox="0 0 {} {}" role="img" aria-labelledby="{}-title {}-description">'
            '<title id="{}-title">{}</title><desc id="{}-description">{}</desc>'
        ).format(WIDTH, HEIGHT, self.name, self.name, self.name, self.title, self.name, self.description)
        return Markup("").join([head, self._grid(), *self.parts, self._axes(), Markup("</svg>")])

    def _path(self, steps: str, style: str) -> None:
        if steps:
            self.parts.append(Markup('<path class="{}" d="{}"/>').format(style, steps))

    def _grid(self) -> Markup:
        lines = [
            Markup('<path class="grid" d="M{},{:.1f}H{}"/>').format(
                LEFT, self.at(self.x.low, tick)[1], WIDTH - RIGHT
            )
            for tick in self.y.marks()
        ]
        return Markup("").join(lines)

    def _axes(self) -> Markup:
        bottom = HEIGHT - BOTTOM
        parts = [Markup('<path class="axis" d="M{},{}H{}"/>').format(LEFT, bottom, WIDTH - RIGHT)]
        for tick in self.x.marks():
            place = self.at(tick, self.y.low)[0]
            parts.append(
                Markup(
                    '<path class="axis" d="M{:.1f},{}v4"/><text class="tick" x="{:.1f}" y="{}" '
                    'text-anchor="middle">{}</text>'
                ).format(place, bottom, place, bottom + 18, self.x.show(tick))
            )
        for tick in self.y.marks():
            level = self.at(self.x.low, tick)[1]
            parts.append(
                Markup('<text class="tick" x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(
                    LEFT - 6, level + TICK_TEXT, self.y.show(tick)
                )
            )
        parts.append(
            Markup('<text class="name" x="{}" y="{}" text-anchor="middle">{}</text>').format(
                (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, self.x.label
            )
        )
        middle = (TOP + bottom) / 2
        parts.append(
            Markup(
                '<text class="name" x="13" y="{}" text-anchor="middle" '
                'transform="rotate(-90 13 {})">{}</text>'
            ).format(middle, middle, self.y.label)
        )
        return Markup("").join(parts)
