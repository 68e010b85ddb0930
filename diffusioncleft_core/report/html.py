"""report.html, which holds all it shows, and report.private.html, which points to it. No script in either."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from markupsafe import Markup, escape

from ..files import private_dir, write_text
from ..filters.identity import THRESHOLD
from .nearest import NearestPair
from .numbers import condition_name
from .pictures import ReportPictures
from .view import page_of

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).resolve().parent / "templates"


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
    mode 0700. The page points to the pictures and holds none: a photograph that is withdrawn or purged is
    gone from it too, and a copy of the page elsewhere has no pictures.
    """
    private_dir(path.parent)
    shown = [
        {
            "pair": pair,
            "generated": link(root / pair.generated, path.parent),
            "photograph": link(root / pair.photograph, path.parent),
        }
        for pair in pairs
    ]
    text = (
        environment()
        .get_template("private.html")
        .render(pairs=shown, phantom=phantom, threshold=threshold, condition_name=condition_name)
    )
    write_text(path, text)
    if os.name == "posix":
        path.chmod(0o600)
    return path


def link(target: Path, folder: Path) -> str:
    """The file as a link from a page in `folder`; "" when it is gone."""
    target = target.resolve()
    if not target.is_file():
        return ""
    try:
        return quote(Path(os.path.relpath(target, folder.resolve())).as_posix())
    except ValueError:  # another drive of Windows
        return target.as_uri()


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
