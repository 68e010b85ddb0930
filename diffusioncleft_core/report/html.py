"""report.html and report.private.html: one file each, without a script, a font or a picture of its own."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from ..files import private_dir, write_text
from .nearest import THRESHOLD, NearestPair
from .numbers import condition_name
from .pictures import Picture, ReportPictures, thumbnail
from .view import page_of

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).resolve().parent / "templates"
PRIVATE_SIDE = 320


def write_html(document: Mapping[str, Any], pictures: ReportPictures | None, path: Path) -> Path:
    """Write the page of a report document (schema 1), which may be shared.

    pictures: None for a document alone. Parts that are missing are said to be missing.
    """
    page = page_of(document, pictures or ReportPictures())
    write_text(path, environment().get_template("report.html").render(page=page))
    return path


def write_private_html(
    pairs: Sequence[NearestPair],
    root: Path,
    path: Path,
    *,
    phantom: bool = False,
    threshold: float = THRESHOLD,
) -> Path:
    """Write the pairs side by side for human review, readable by its owner alone.

    root: the run's folder, from which the pairs' paths count; path: in the run's private folder, which gets
    mode 0700. The page holds photographs: nothing serves or copies it.
    """
    private_dir(path.parent)
    shown = []
    for pair in pairs:
        title = f"{condition_name(pair.photograph_condition)} training photograph"
        left = thumbnail(
            Picture(
                root / pair.generated, f"Generated face, {condition_name(pair.condition)}", pair.generated
            ),
            PRIVATE_SIDE,
        )
        right = thumbnail(
            Picture(root / pair.photograph, title, pair.photograph), PRIVATE_SIDE, synthetic=False
        )
        shown.append({"pair": pair, "generated": left, "photograph": right})
    text = (
        environment()
        .get_template("private.html")
        .render(pairs=shown, phantom=phantom, threshold=threshold, condition_name=condition_name)
    )
    write_text(path, text)
    if os.name == "posix":
        path.chmod(0o600)
    return path


def environment() -> Environment:
    """Templates of this folder; everything that is put into them is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["prose"] = prose
    return made


def prose(text: str) -> Markup:
    """Text whose `commands` between backticks are set as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 (escaped above)
