"""Small plots as pictures, drawn with Pillow alone."""

import math
from collections.abc import Sequence
from typing import Any

WIDTH, HEIGHT = 640, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 28, 40
_INK, _FAINT, _GRID = (30, 30, 30), (150, 185, 225), (225, 225, 225)
_BLUE, _RED = (25, 90, 170), (200, 60, 40)


def line_plot(x: Sequence[float], y: Sequence[float], title: str, x_name: str) -> Any:
    """A line with its running mean [HEIGHT, WIDTH, 3] uint8."""
    picture, draw = _canvas(title)
    if len(x) < 2:
        return _done(_note(picture, draw, "nothing to show yet"))
    low, high = _range(y)
    place = _placer((min(x), max(x)), (low, high))
    _axes(draw, place, (min(x), max(x)), (low, high), x_name)
    step = max(1, len(x) // 2000)
    draw.line([place(a, b) for a, b in zip(x[::step], y[::step], strict=True)], fill=_FAINT, width=1)
    mean, points = float(y[0]), []
    share = 1 / min(len(y), 100)
    for a, b in zip(x, y, strict=True):
        mean += share * (b - mean)
        points.append(place(a, mean))
    draw.line(points[::step], fill=_BLUE, width=2)
    return _done(picture)


def histogram(
    edges: Sequence[float], counts: Sequence[int] | None, title: str, x_name: str, mark: float | None = None
) -> Any:
    """Bars [HEIGHT, WIDTH, 3] uint8, with a red line at `mark`."""
    picture, draw = _canvas(title)
    if not counts or not any(counts):
        return _done(_note(picture, draw, "too few to show"))
    filled = [place for place, count in enumerate(counts) if count]
    first, last = max(0, filled[0] - 2), min(len(counts), filled[-1] + 3)
    low, high = edges[first], edges[last]
    if mark is not None:
        low, high = min(low, mark - 0.05), max(high, mark + 0.05)
    place = _placer((low, high), (0, max(counts)))
    _axes(draw, place, (low, high), (0, max(counts)), x_name)
    for index in range(first, last):
        left, top = place(edges[index], counts[index])
        right, bottom = place(edges[index + 1], 0)
        if counts[index]:
            draw.rectangle([left, min(top, bottom - 1), max(left, right - 1), bottom], fill=_BLUE)
    if mark is not None:
        draw.line([place(mark, 0), place(mark, max(counts))], fill=_RED, width=2)
    return _done(picture)


def face_map(figure: dict[str, Any], title: str) -> Any:
    """Generated faces as points over the training faces' density [HEIGHT, WIDTH, 3] uint8.

    The photographs are counts on a grid, in which small cells are already left out.
    """
    picture, draw = _canvas(title)
    x_edges, y_edges = figure["edges_x"], figure["edges_y"]
    limits = (x_edges[0], x_edges[-1]), (y_edges[0], y_edges[-1])
    place = _placer(*limits)
    cells = [grid for grid in figure["real"].values() if grid]
    top = max((count or 0 for grid in cells for row in grid for count in row), default=0)
    for grid in cells:
        for i, row in enumerate(grid):
            for j, count in enumerate(row):
                if count:
                    shade = 1 - 0.75 * count / top
                    colour = (255, int(150 + 90 * shade), int(110 + 130 * shade))
                    left, low = place(x_edges[i], y_edges[j])
                    right, high = place(x_edges[i + 1], y_edges[j + 1])
                    draw.rectangle([left, high, right, low], fill=colour)
    _axes(draw, place, *limits, "first component; photographs shaded, generated as points")
    for points in figure["generated"].values():
        for x, y in points:
            a, b = place(x, y)
            draw.ellipse([a - 2, b - 2, a + 2, b + 2], fill=_BLUE)
    return _done(picture)


def _canvas(title: str) -> tuple[Any, Any]:
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(picture)
    draw.text((_LEFT, 8), title, fill=_INK)
    return picture, draw


def _note(picture: Any, draw: Any, text: str) -> Any:
    draw.text((WIDTH // 2 - 60, HEIGHT // 2), text, fill=_INK)
    return picture


def _done(picture: Any) -> Any:
    import numpy as np

    return np.array(picture, np.uint8)


def _placer(x: tuple[float, float], y: tuple[float, float]) -> Any:
    wide, high = (x[1] - x[0]) or 1.0, (y[1] - y[0]) or 1.0

    def place(a: float, b: float) -> tuple[float, float]:
        return (
            _LEFT + (WIDTH - _LEFT - _RIGHT) * (a - x[0]) / wide,
            HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * (b - y[0]) / high,
        )

    return place


def _axes(draw: Any, place: Any, x: tuple[float, float], y: tuple[float, float], name: str) -> None:
    for value in _ticks(*x):
        a, b = place(value, y[0])
        draw.line([(a, _TOP), (a, b)], fill=_GRID)
        draw.text((a - 12, b + 4), f"{value:g}", fill=_INK)
    for value in _ticks(*y):
        a, b = place(x[0], value)
        draw.line([(a, b), (WIDTH - _RIGHT, b)], fill=_GRID)
        draw.text((6, b - 6), f"{value:g}", fill=_INK)
    draw.text((_LEFT, HEIGHT - 18), name, fill=_INK)


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers between the two."""
    span = (high - low) or 1.0
    step = 10 ** math.floor(math.log10(span / 5))
    step = next(step * factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 6)
    first = math.ceil(low / step)
    return [round(step * index, 10) for index in range(first, math.floor(high / step) + 1)]


def _range(values: Sequence[float]) -> tuple[float, float]:
    """The range of all but the highest hundredth: one wild step must not flatten the rest."""
    ordered = sorted(values)
    high = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    return min(0.0, ordered[0]), high or 1.0
