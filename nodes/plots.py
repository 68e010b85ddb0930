"""The report's plots as pictures for nodes, each under its title."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..diffusioncleft_core.report.drawing import Drawing

TOO_FEW = "too few to show"
_NARROWER, _LOWER = 0.8, 0.95
"""How much narrower and lower a page's plot is drawn around its text, which a node shows small."""


def similarity_plot(name: str, variants: Mapping[str, Any], document: Mapping[str, Any]) -> Any:
    """The histogram of one set's similarities, [H, W, 3] uint8; variants: `figures.similarity` of the set."""
    from ..diffusioncleft_core.report.blocks import labels_of
    from ..diffusioncleft_core.report.similarity import histogram

    labels = labels_of(document)
    plot = histogram(name, variants, labels) if variants else None
    return _picture(
        plot.drawing if plot else None,
        f"{labels.name(name)}: similarity of generated to training faces",
        TOO_FEW,
    )


def map_plot(document: Mapping[str, Any]) -> Any:
    """The face map of a document, [H, W, 3] uint8."""
    from ..diffusioncleft_core.report.blocks import labels_of
    from ..diffusioncleft_core.report.face_map import face_map, groups_of

    pca = document["figures"].get("pca")
    drawing = face_map(pca, groups_of(pca, labels_of(document))) if pca else None
    return _picture(drawing, "Faces of all groups in one plane", TOO_FEW)


def training_plot(name: str, losses: Path) -> Any:
    """The loss of a training over its steps, [H, W, 3] uint8; losses: its loss.jsonl."""
    from ..diffusioncleft_core.report.blocks import labels_of
    from ..diffusioncleft_core.report.training import loss_curve, loss_plot

    curve = loss_curve(losses) if losses.is_file() else {}
    plot = loss_plot(name, curve, labels_of({}), phantom=False)
    return _picture(plot.drawing if plot else None, f"{name}: loss over the steps", "nothing to show yet")


def reliability(name: str, task: Mapping[str, Any]) -> Any:
    """How far a classifier's scores can be taken at their word, [H, W, 3] uint8; task: of downstream.json."""
    from ..diffusioncleft_core.report.downstream import marks_of
    from ..diffusioncleft_core.report.downstream_plots import reliability_plot

    source, figures = next(iter(task["sources"].items()))
    plot = reliability_plot(name, task, source, figures, marks_of(task["test"]))
    return _picture(plot.drawing if plot else None, f"{task['title']}: reliability of the scores", TOO_FEW)


def drawn(drawing: Drawing) -> Any:
    """A plot of a study, [H, W, 3] uint8, under its own title."""
    return _picture(drawing, drawing.title, TOO_FEW)


def _picture(drawing: Drawing | None, title: str, instead: str) -> Any:
    """The drawing, or without one the words `instead`."""
    import io

    import numpy as np
    from PIL import Image

    from ..diffusioncleft_core.report.drawing import DPI, SINGLE, Drawing

    if drawing is None:
        drawing = Drawing("note", title, instead, (SINGLE, 55), lambda figure: _note(figure, instead), (), ())
    painted = drawing.paint
    narrow = drawing.size[0] <= SINGLE

    def paint(figure: Figure) -> None:
        painted(figure)
        lines = textwrap.wrap(title, 42 if narrow else 90)
        figure.axes[0].set_title("\n".join(lines), loc="left", fontsize="medium")

    size = (drawing.size[0] * _NARROWER, drawing.size[1] * _LOWER)
    (png,) = replace(drawing, paint=paint, size=size).render("png", dpi=round(DPI / _NARROWER))
    with Image.open(io.BytesIO(png)) as image:
        return np.array(image.convert("RGB"))


def _note(figure: Figure, words: str) -> None:
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.text(0.5, 0.5, words, ha="center", va="center")
