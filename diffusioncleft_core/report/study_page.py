"""What the analysis of a rater study writes: its page with the plots beside it, its figures, its ratings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..files import folder_lock, remove_leftovers, shown, write_json, write_text
from ..study.folder import FIGURES
from ..study.ratings import RatingTable
from ..study.ratings_file import write_ratings
from .drawing import save_drawings
from .html import Page, figures_folder, rendered
from .study import study_sections
from .study_marks import UNTOLD

PAGE, RATINGS = "study.html", "ratings.csv"
LEAD = (
    "People rated pictures without knowing where each was from. No picture, and no name of a rater or a "
    "file, is on this page."
)
SIMULATED = ("Simulated raters.", "No person judged a picture: the answers were drawn by a program.")
PHANTOM = ("Phantoms.", "The pictures are drawings; the real ones stand for photographs and are none.")


def write_study_results(document: Mapping[str, Any], table: RatingTable, out: Path) -> Path:
    """Write figures, ratings, page and plots of a study into a folder; returns the page.

    What a killed call left half-written there is removed. UserError while another call writes there.
    """
    with folder_lock(out, lambda owner: f"process {owner} writes results into {shown(out)}; wait for it"):
        for folder in (out, figures_folder(out / PAGE)):
            remove_leftovers(folder)
        return _written_results(document, table, out)


def _written_results(document: Mapping[str, Any], table: RatingTable, out: Path) -> Path:
    write_json(out / FIGURES, document)
    write_ratings(out / RATINGS, table)
    write_study_page(document, out / PAGE)
    return out / PAGE


def write_study_page(document: Mapping[str, Any], path: Path) -> list[Path]:
    """Write the page of a study document and its plots into a folder beside it; return all files."""
    page = study_page(document)
    write_text(path, rendered(page, path))
    return [path, *save_drawings(page.drawings, figures_folder(path))]


def study_page(document: Mapping[str, Any]) -> Page:
    """The page of a study document."""
    banners = [
        *([SIMULATED] if document["simulated"] else []),
        *([PHANTOM] if document["phantom"] else []),
    ]
    return Page(
        f"DiffusionCleft: {document['title']}",
        False,
        _facts(document),
        study_sections(document),
        lead=LEAD,
        banners=banners,
    )


def _facts(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    sets = ", ".join(
        f"{name.replace('_', ' ')} {UNTOLD if item['images'] is None else item['images']}"
        for name, item in document["sets"].items()
    )
    seconds = document["median_seconds"]
    return [
        ("Made", document["created"]),
        ("Raters", f"{document['raters']}{' (simulated)' if document['simulated'] else ''}"),
        ("Images", sets),
        ("Margin", f"±{document['margin']:g}, {document['margin_from']}"),
        *([("Seconds an image", f"{seconds:.0f} (median)")] if seconds is not None else []),
    ]
