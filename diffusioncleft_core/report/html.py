"""The report's page: sections in order, rendered to one self-contained HTML file."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from markupsafe import Markup, escape

from ..files import private_dir, shown, write_text
from ..filters.decisions import REVIEW_KIND, REVIEW_SCHEMA, SAID
from ..filters.verdicts import content_key, file_digest
from ..imageset.places import name_of
from ..ranges import PAPER_SIMILARITY
from .audit import audit_section
from .blocks import Gallery, Labels, Photo, Plots, Section, Text, labels_of
from .downstream import downstream_section
from .drawing import Drawing, save_drawings
from .face_map import embedding_section
from .loras import PAGE_LORAS, report_loras
from .measured import measured_section
from .nearest import NearestPair, earlier_reviews, generated_place, set_folders
from .pictures import Panel, ReportPictures, thumbnail
from .plain_words import plain_words_section
from .rejections import rejections_section
from .similarity import similarity_section
from .study import study_sections
from .training import oracle_section, provenance_section, training_section

if TYPE_CHECKING:
    from jinja2 import Environment

COMPARED = (
    "A face recogniser compared each with the training photographs and found no similarity that reaches the "
    "filter’s threshold; a likeness that it misses, or to people in no training photograph, is not ruled out."
)
LEARNED_FROM_DRAWINGS = "The models behind them learned from rendered phantoms, and from no photograph."
UNLIKE = (AttributeError, IndexError, KeyError, TypeError, ValueError, ZeroDivisionError)
"""What reading a part raises that is not as this version writes it."""
UNREADABLE = "This part of report.json is not as this version writes it, so it is left out."


LEAD = (
    "Synthetic faces from FLUX.1 LoRAs. Its pictures come from sets that models drew; the run’s own "
    "photographs, their names and their hashes are kept out of it."
)


@dataclass(frozen=True)
class Page:
    """All that the template needs. facts: (label, value) pairs under the heading; banners: (loud, plain);
    loras: see `report_loras`."""

    title: str
    phantom: bool
    facts: Sequence[tuple[str, str]]
    sections: Sequence[Section]
    lead: str = LEAD
    banners: Sequence[tuple[str, str]] = ()
    loras: Sequence[str] = ()

    @property
    def navigation(self) -> list[tuple[str, list[Section]]]:
        """The sections by their group in the page's order; "" for those without one."""
        return [(group, list(found)) for group, found in groupby(self.sections, lambda each: each.group)]

    @property
    def drawings(self) -> list[Drawing]:
        """Every plot of the page."""
        blocks = (block for section in self.sections for block in section.blocks)
        plots = (plot for block in blocks if isinstance(block, Plots) for plot in block.plots)
        return [plot.drawing for plot in plots if plot.drawing is not None]


def page_of(document: Mapping[str, Any], pictures: ReportPictures) -> Page:
    """The page of a report document; a part that can't be read costs that part alone."""
    sections = [
        part("plain-words", "In plain words", lambda: plain_words_section(document)),
        *([notes] if (notes := notes_section(document)).blocks else []),
        part("figures", "Figures", lambda: measured_section(document)),
        part("audit", "Leak audit", lambda: audit_section(document)),
        *(
            [part("downstream", "What the images are good for", lambda: downstream_section(document))]
            if document.get("downstream")
            else []
        ),
        part("similarity", "Likeness to the training faces", lambda: similarity_section(document)),
        part("embedding", "Face embeddings", lambda: embedding_section(document)),
        part("samples", "Samples", lambda: samples_section(document, pictures)),
        part("zero-shot", "Zero-shot", lambda: zero_shot_section(document, pictures)),
        part("rejections", "Rejected images", lambda: rejections_part(document, pictures)),
        part("oracle", "What the oracle saw", lambda: oracle_section(document)),
        *study_part(document),
        part("training", "Training", lambda: training_part(document, pictures)),
        part("provenance", "Provenance", lambda: provenance_section(document)),
    ]
    phantom = bool(document.get("phantom"))
    title = "DiffusionCleft: report of a run" + (" on phantoms" if phantom else "")
    loras = tuple(dict.fromkeys(report_loras(document)))
    return Page(title, phantom, facts_of(document), sections, loras=loras)


def notes_section(document: Mapping[str, Any]) -> Section:
    """What a reader must know before the figures."""
    notes = [str(note) for note in document.get("notes") or []]
    return Section("notes", "Before you read on", blocks=[Text(notes, listed=True)] if notes else [])


def study_part(document: Mapping[str, Any]) -> list[Section]:
    """The rater study's sections, where the document has one."""
    study = document.get("study")
    if not study:
        return []
    try:
        whose = "Rater study, simulated raters" if study["simulated"] else "Rater study"
        return [replace(section, group=whose) for section in study_sections(study)]
    except UNLIKE:
        return [Section("study", "The rater study", missing=UNREADABLE)]


def part(name: str, title: str, build: Callable[[], Section]) -> Section:
    try:
        return build()
    except UNLIKE:
        return Section(name, title, missing=UNREADABLE)


def facts_of(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the run was, in a few words."""
    made, preset = str(document.get("created") or ""), str(document.get("preset") or "")
    found = [("Made", made), ("Preset of the training", preset)]
    generation = document.get("generation") or {}
    labels = labels_of(document)
    images = [f"{labels.name(name).lower()} {facts['images']:,}" for name, facts in generation.items()]
    found.append(("Generated images", ", ".join(images)))
    provenance = document.get("provenance") or {}
    found.append(("Version", str((provenance.get("versions") or {}).get("diffusioncleft", ""))))
    hardware = provenance.get("hardware") or {}
    found.append(("Machine", str(hardware.get("gpu") or hardware.get("cpu") or "")))
    return [(label, value) for label, value in found if value]


def gallery(panel: Panel, title: str, *, wide: bool = False) -> Gallery:
    """A panel as thumbnails; pictures that can't be read are counted in the note."""
    photos: list[Photo] = []
    damaged = 0
    for picture in panel.pictures:
        photo = thumbnail(picture)
        if photo is None:
            damaged += 1
        else:
            photos.append(photo)
    lost = f" {damaged} can’t be read and are left out." if damaged else ""
    return Gallery(title, photos, panel.note + lost, wide)


def samples_section(document: Mapping[str, Any], pictures: ReportPictures) -> Section:
    title = "Samples"
    labels = labels_of(document)
    galleries = [gallery(panel, labels.name(name)) for name, panel in pictures.samples.items()]
    if not any(each.photos or each.note for each in galleries):
        return Section(
            "samples",
            title,
            missing="There are no pictures in this report: make it from the run’s folder to see them.",
        )
    checked = LEARNED_FROM_DRAWINGS if document.get("phantom") else COMPARED
    lead = (
        f"Every picture here is synthetic: a model drew it. {checked} Under each stands the prompt that made "
        "it (Figures 5 and 6 of the paper). They come in the plan’s order, not chosen."
    )
    return Section("samples", title, lead, galleries)


def zero_shot_section(document: Mapping[str, Any], pictures: ReportPictures) -> Section:
    title = "Zero-shot"
    galleries = [gallery(panel, panel.title) for panel in pictures.zero_shot]
    if not any(each.photos for each in galleries):
        return Section(
            "zero-shot",
            title,
            missing="There is no zero-shot panel: `diffusioncleft report RUN --zero-shot DIR` adds one.",
        )
    lead = (
        "What models draw for the vocabulary's probes without our LoRAs"
        f"{f' ({note})' if (note := labels_of(document).zero_shot_note) else ''}."
    )
    if document.get("phantom"):
        lead += " On a phantom run the base model is the embedded one, which knows drawings alone."
    return Section("zero-shot", title, lead, galleries)


def rejections_part(document: Mapping[str, Any], pictures: ReportPictures) -> Section:
    return rejections_section(document, [gallery(panel, panel.title) for panel in pictures.rejected])


def training_part(document: Mapping[str, Any], pictures: ReportPictures) -> Section:
    previews = [gallery(panel, panel.title) for panel in pictures.previews]
    missing = "" if previews else "There are no previews: this training drew none, or they lie elsewhere."
    return training_section(document, previews, missing)


TEMPLATES = Path(__file__).resolve().parent / "templates"


def write_shared(document: Mapping[str, Any], pictures: ReportPictures | None, path: Path) -> list[Path]:
    """Write the page (`write_html`) and its plots into a folder beside it; return all files, the page first.

    All of it may be shared.
    """
    page = page_of(document, pictures or ReportPictures())
    write_text(path, rendered(page, path))
    return [path, *save_drawings(page.drawings, figures_folder(path))]


def write_html(document: Mapping[str, Any], pictures: ReportPictures | None, path: Path) -> Path:
    """Write the page of a report document (schema 1) alone.

    pictures: None for a document alone. Parts that are missing are said to be missing.
    """
    write_text(path, rendered(page_of(document, pictures or ReportPictures()), path))
    return path


def rendered(page: Page, path: Path) -> str:
    return (
        environment()
        .get_template("report.html")
        .render(page=page, figures=figures_folder(path).name, loras_name=PAGE_LORAS)
    )


def figures_folder(path: Path) -> Path:
    """Where the plots of a page lie: `figures` beside report.html and study.html, else `NAME.figures`."""
    return path.with_name("figures" if path.stem in ("report", "study") else f"{path.stem}.figures")


def write_private_html(
    pairs: Sequence[NearestPair],
    root: Path,
    path: Path,
    *,
    phantom: bool = False,
    threshold: float = PAPER_SIMILARITY,
    labels: Labels | None = None,
) -> Path:
    """Write the pairs side by side for human review, readable by its owner alone.

    What a person saw in each is saved by the page as a file, which `decisions.read_review` reads. The page
    points to the pictures and holds none: a photograph that is withdrawn or purged is gone from it too, and a
    copy of the page elsewhere has no pictures.

    Args:
        pairs: the most alike first.
        root: the run's folder, from which the pairs' paths count.
        path: in the run's private folder, which gets mode 0700.
        phantom: whether all pictures are phantoms.
        threshold: cosine from which a face counts as a training face's.
        labels: titles of the conditions.
    """
    private_dir(path.parent)
    earlier = earlier_reviews(root, pairs)
    entries = [
        {
            "pair": pair,
            "generated": link(generated_place(root, pair), path.parent),
            "photograph": link(root / pair.photograph, path.parent),
            "image": name_of(pair.generated),
            "content": content_key(file_digest(generated_place(root, pair))),
            "seen": earlier.get(pair.generated),
        }
        for pair in pairs
    ]
    script = (TEMPLATES / "review.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    sets = [shlex.quote(shown(folder)) for folder in set_folders(root, pairs)]
    text = (
        environment()
        .get_template("private.html")
        .render(
            pairs=entries,
            phantom=phantom,
            threshold=threshold,
            condition_name=(labels or labels_of({})).name,
            verdicts={verdict: words.capitalize() for verdict, words in SAID.items()},
            review_kind=REVIEW_KIND,
            review_schema=REVIEW_SCHEMA,
            commands=[f"diffusioncleft filter {folder} --review review.json" for folder in sets],
            script=Markup(script),  # noqa: S704 (our own file)
            script_sha256=digest,
        )
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
