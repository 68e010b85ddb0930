"""Plots as a journal takes them: SVG, PDF and PNG of one drawing, with the numbers that it shows.

Sizes are those of a journal's columns, all text is at least 6.5 pt there, and colours are Okabe and Ito's
(Color Universal Design, 2008), darkened where they would be too faint on white. The same numbers give the
same bytes: no date, no random ids, no setting of the user's own matplotlib, and a font that comes with it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from ..files import inside, write_bytes
from ..spreadsheet import csv_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SINGLE, DOUBLE = 85.0, 175.0
"""Widths in mm of one and of two columns."""
INCH = 25.4
DPI = 300
SMALL = 6.5
"""Points of the smallest text."""
INK, FAINT, ALARM, CONTROL, UNION = "#000000", "#d5d9de", "#b3261e", "#5a5a5a", "#6f4a9e"
COLOURS: Mapping[str, str] = MappingProxyType(
    {"first": "#0072b2", "second": "#d55e00", "third": "#009e73", "fourth": "#b0568c", "union": UNION}
)
"""Of the conditions, in the vocabulary's order; a fifth one has the first's."""
PHANTOM_NOTE = "Phantom: made from drawings, not from photographs"
SUFFIXES = ("svg", "pdf", "png", "csv")
JOINS = "stroke-linejoin: round; stroke-linecap: butt"
"""What matplotlib says of every element of every SVG on the page."""
_NO_METADATA: Mapping[str, Mapping[str, None]] = MappingProxyType(
    {
        "svg": dict.fromkeys(("Creator", "Date", "Format", "Type")),
        "pdf": dict.fromkeys(("Creator", "Producer", "CreationDate")),
        "png": {"Software": None},
    }
)
_STYLE: Mapping[str, Any] = MappingProxyType(
    {
        "font.family": ["DejaVu Sans", "sans-serif"],
        "font.size": 7,
        "axes.labelsize": 7,
        "xtick.labelsize": SMALL,
        "ytick.labelsize": SMALL,
        "legend.fontsize": SMALL,
        "legend.frameon": False,
        "legend.handlelength": 1.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.6,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "axes.axisbelow": True,
        "lines.linewidth": 1.2,
        "lines.markersize": 4,
        "patch.linewidth": 0.6,
        "svg.fonttype": "none",
        "pdf.fonttype": 42,
        "figure.facecolor": "white",
        "savefig.facecolor": "white",
    }
)


@dataclass(frozen=True)
class Drawing:
    """One plot. name: of its files, unique in a report; title, description: what a screen reader says.

    size: width and height in mm; paint: fills a figure of that size; columns, rows: the numbers it shows;
    phantom: the figure itself says that it is of drawings; warnings: what else it says over the plot.
    """

    name: str
    title: str
    description: str
    size: tuple[float, float]
    paint: Callable[[Figure], None]
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    phantom: bool = False
    warnings: Sequence[str] = ()

    def render(self, *forms: str, dpi: int = DPI) -> list[bytes]:
        """The plot as `svg`, `pdf` or `png` (of so many dpi), in the order of `forms`."""
        with _own_style(self.name):
            return [_saved(self._figure, form, dpi) for form in forms]

    @cached_property
    def _figure(self) -> Figure:
        """The plot, laid out once: to do it for each form would take as long as drawing them."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(self.size[0] / INCH, self.size[1] / INCH), layout="constrained")
        self.paint(figure)
        warnings = [*([PHANTOM_NOTE] if self.phantom else []), *self.warnings]
        if warnings:
            figure.suptitle("\n".join(warnings), fontsize=SMALL, x=0.01, ha="left", color=ALARM)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        return figure

    @cached_property
    def svg(self) -> bytes:
        """The plot as SVG that says what it shows."""
        return self._described(self.render("svg")[0].decode("utf-8")).encode("utf-8")

    def inline(self) -> Markup:
        """The SVG as an element of a page."""
        text = self.svg.decode("utf-8")
        return Markup(text[text.index("<svg") :])  # noqa: S704 (what is put into it is escaped)

    def files(self) -> dict[str, bytes]:
        """What lies beside a report, by suffix: its numbers, and the plot in every form, the SVG last."""
        pdf, png = self.render("pdf", "png")
        return {"csv": self.numbers().encode("utf-8"), "pdf": pdf, "png": png, "svg": self.svg}

    def numbers(self) -> str:
        """What is plotted, as CSV."""
        return csv_text(self.columns, self.rows)

    def _described(self, svg: str) -> str:
        """With title and description, and with ids and styles that touch nothing else on a page."""
        text = re.sub(r"<!DOCTYPE.*?>\s*", "", svg, flags=re.DOTALL)
        text = re.sub(r'<style type="text/css">.*?</style>', "", text, flags=re.DOTALL)
        text = re.sub(r'\bid="', f'id="{self.name}-', text)
        text = re.sub(r'(url\(|href=")#', rf"\1#{self.name}-", text)
        title, description = f"{self.name}-title", f"{self.name}-description"
        head, rest = text.split("<svg ", 1)
        opening, inner = rest.split(">", 1)
        role = f'class="plot" role="img" aria-labelledby="{title} {description}" style="{JOINS}"'
        words = (
            f'<title id="{title}">{escape(self.title)}</title>\n'
            f'<desc id="{description}">{escape(self.description)}</desc>'
        )
        return f"{head}<svg {role} {opening}>\n{words}{inner}"


def _saved(figure: Figure, form: str, dpi: int) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=form, dpi=dpi, metadata=dict(_NO_METADATA[form]))
    return buffer.getvalue()


@contextmanager
def _own_style(name: str) -> Iterator[None]:
    """matplotlib's defaults with our style, whatever the user's own settings are."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        style: Any = {**_STYLE, "svg.hashsalt": f"diffusioncleft {name}"}
        matplotlib.rcParams.update(style)
        yield


def save_drawings(drawings: Iterable[Drawing], folder: Path) -> list[Path]:
    """Write each drawing into `folder` in every form and as CSV; return the files.

    A plot that is there already is left as it is: its numbers and its SVG, which is written last, are the
    same. One that an earlier report left there and this one does not have is deleted: it may show what was
    withdrawn since.
    """
    files: list[Path] = []
    drawings = list(drawings)
    if drawings:
        folder.mkdir(parents=True, exist_ok=True)
    for drawing in drawings:
        own = {suffix: inside(folder, f"{drawing.name}.{suffix}") for suffix in SUFFIXES}
        files += own.values()
        known = {"csv": drawing.numbers().encode("utf-8"), "svg": drawing.svg}
        if not all(file.is_file() for file in own.values()) or any(
            own[suffix].read_bytes() != content for suffix, content in known.items()
        ):
            for suffix, content in drawing.files().items():
                write_bytes(own[suffix], content)
    for kind in KINDS:
        for old in {path for suffix in SUFFIXES for path in folder.glob(f"{kind}.{suffix}")}:
            if inside(folder, old.name) not in files:
                old.unlink()
    return files


KINDS = (
    "similarity-*", "threshold-*", "face-map", "loss-*", "learning-curve-*", "reliability-*", "study-*"
)  # fmt: skip
"""Names of every drawing that a report may have."""


def file_name(kind: str, condition: str) -> str:
    """The name of a condition's drawing, which is a file's and an id's."""
    return f"{kind}-{re.sub(r'[^A-Za-z0-9_-]+', '_', condition)}"


def colour_of(series: str) -> str:
    """The colour of a condition's series."""
    return COLOURS.get(series, UNION)


def plain_axes(figure: Figure) -> Any:
    """One pair of axes with a faint grid in y."""
    axes = figure.add_subplot()
    axes.grid(axis="y", color=FAINT, linewidth=0.5)
    return axes


def legend_below(figure: Figure, axes: Any, columns: int = 2) -> None:
    """The axes' legend under the plot, where it hides nothing."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=columns, borderaxespad=0.2)
