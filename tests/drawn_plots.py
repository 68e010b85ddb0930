"""Plots that many tests share are drawn once: a report's take seconds."""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest

from diffusioncleft.diffusioncleft_core.report.drawing import DPI, Drawing


class Kept(MutableMapping[str, bytes]):
    """Drawn plots in a folder, for processes of which each draws a few."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)

    def _file(self, key: str) -> Path:
        return self._folder / hashlib.sha256(key.encode()).hexdigest()

    def __getitem__(self, key: str) -> bytes:
        try:
            return self._file(key).read_bytes()
        except FileNotFoundError:
            raise KeyError(key) from None

    def __setitem__(self, key: str, data: bytes) -> None:
        with tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as file:
            file.write(data)
        os.replace(file.name, self._file(key))

    def __delitem__(self, key: str) -> None:
        self._file(key).unlink()

    def __iter__(self) -> Iterator[str]:
        return (path.name for path in self._folder.iterdir())

    def __len__(self) -> int:
        return sum(1 for _ in self)


def of_plots(plot: Drawing, form: str) -> Any:
    """What a plot says; the same numbers and words are taken to be the same plot."""
    said = (plot.name, plot.title, plot.description, plot.size, plot.phantom, list(plot.warnings))
    return said, plot.numbers()


def of_pages(plot: Drawing, form: str) -> Any:
    """The same of what a page holds, the SVG; a PDF or PNG beside it stands for all of its name."""
    return of_plots(plot, form) if form == "svg" else plot.name


def of_names(plot: Drawing, form: str) -> Any:
    """The first plot of a name stands for the others, whatever their numbers."""
    return plot.name


@contextlib.contextmanager
def drawn_once(kept: MutableMapping[str, bytes], what: Callable[[Drawing, str], Any]) -> Iterator[None]:
    """Within the block a plot is drawn in a form once for each `what(plot, form)`."""
    draw = Drawing.render

    def render(self: Drawing, *forms: str, dpi: int = DPI) -> list[bytes]:
        found = []
        for form in forms:
            key = repr((what(self, form), form, dpi))
            if key not in kept:
                (kept[key],) = draw(self, form, dpi=dpi)
            found.append(kept[key])
        return found

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Drawing, "render", render)
        yield
