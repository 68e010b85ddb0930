"""The rater study nodes' work: the core's studies in the server's private folder, by name."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import folder_paths

from ..diffusioncleft_core import environment
from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.files import sha256_bytes, sha256_file
from ..diffusioncleft_core.imageset.places import MANIFEST
from . import places
from .common import ImageSetHandle, blocked, core_progress
from .metric_work import PHANTOM_NOTE, Measured
from .opened import DatasetHandle, withdrawn_notes
from .words import without_private_paths

if TYPE_CHECKING:
    from ..diffusioncleft_core.study.design import Design
    from ..diffusioncleft_core.study.ratings import RatingTable

OTHER = "other"
STATISTICS = ("scipy", "statsmodels")
DATABASE = ("alembic", "itsdangerous", "sqlalchemy")
_SERVING = """\
Nobody sees it yet. On the server's own machine, in the folder {place}:
diffusioncleft study serve {name}
It prints the link of a first rater, http://127.0.0.1:8377/…, and others are made by
diffusioncleft study invite {name} "Dr. Garcia"
(docs/study-page.md)"""


@dataclass(frozen=True)
class Plan:
    """What Rater Study is asked for.

    counts: pictures by origin; changes: to the design, by its fields' names.
    """

    design: str
    counts: Mapping[str, int]
    changes: Mapping[str, Any]
    raw: bool
    generated: tuple[ImageSetHandle, ...]
    photographs: tuple[DatasetHandle, ...]
    other: ImageSetHandle | None = None

    @property
    def sets(self) -> list[tuple[str, ImageSetHandle | DatasetHandle]]:
        """Each set with its origin."""
        found: list[tuple[str, ImageSetHandle | DatasetHandle]] = [
            ("generated", item) for item in self.generated
        ]
        found += [("real", item) for item in self.photographs]
        return found + ([(OTHER, self.other)] if self.other is not None else [])


def make(name: str, plan: Plan) -> tuple[str, int, str]:
    """The study's whole name, how many of its pictures count, and words; one made before is found."""
    from ..diffusioncleft_core.conditions.loader import load_vocabulary
    from ..diffusioncleft_core.study.choose import Wanted
    from ..diffusioncleft_core.study.consent import erase_withdrawn
    from ..diffusioncleft_core.study.create import counts_of, create_study
    from ..diffusioncleft_core.study.design import GENERATED, REAL
    from ..diffusioncleft_core.study.design_file import load_design
    from ..diffusioncleft_core.study.folder import is_study, open_study
    from ..diffusioncleft_core.study.sources import Source

    check_kind([item.phantom for _, item in plan.sets])
    if notes := withdrawn_notes(item.folder for _, item in plan.sets if isinstance(item, ImageSetHandle)):
        raise UserError(notes[0])
    design = load_design(plan.design)
    sets = tuple(replace(item, n=plan.counts[item.origin]) for item in design.sets)
    design = replace(design, sets=sets, **plan.changes)
    made = f"{name.strip()}-{_digest(plan)}"
    folder = places.study_path(made)
    if is_study(folder):
        study = open_study(folder)
        notices = erase_withdrawn(study)
    else:
        roles = {"real": REAL}
        sources = [
            Source(origin, item.folder, roles.get(origin, GENERATED), item.condition or None)
            for origin, item in plan.sets
        ]
        with core_progress():
            study, notices = create_study(folder, design, sources, load_vocabulary(), Wanted(raw=plan.raw))
    lines = [
        f"{made}: {len(study.rated)} pictures of {study.design.side} px, practice: {len(study.practice)}",
        *counts_of(study),
        *map(_shown, notices),
        _SERVING.format(place=places.STUDIES, name=made),
        *([PHANTOM_NOTE] if study.design.of_phantoms else []),
    ]
    return made, len(study.rated), "\n".join(lines)


def results(name: str, design: str | None) -> Measured:
    """Plots, number of raters, words and figures. Before the first rating the words alone."""
    from ..diffusioncleft_core.report.study_page import study_page
    from ..diffusioncleft_core.study.design_file import load_design
    from ..diffusioncleft_core.study.folder import open_study
    from ..diffusioncleft_core.study.statistics.document import study_document
    from ..diffusioncleft_core.study.web.store import stored_ratings
    from .pictures import tensors_of
    from .plots import drawn

    path = places.rated_path(name)
    if path.is_dir():
        study = open_study(path)
        asked: Design | None = study.design
        table = stored_ratings(study) if study.database.is_file() else None
        if table is None or not len(table):
            text = f"{name}: there is no rating yet.\n" + _SERVING.format(place=places.STUDIES, name=name)
            return Measured(([blocked()], 0, text, blocked()), text)
    else:
        asked = load_design(design) if design else None
        table = _read(path, asked)
    document = study_document(table, asked)
    words = [*table.notices, *document["words"]]
    for question, part in document["questions"].items():
        words += [f"{question.replace('_', ' ')}: {line}" for line in part["words"]]
    text = "\n".join([*words, *([PHANTOM_NOTE] if document["phantom"] else [])])
    plots = [drawn(drawing) for drawing in study_page(document).drawings]
    return Measured((tensors_of(plots) or [blocked()], document["raters"], text, document), text, plots)


def check_kind(phantom: Sequence[bool | None]) -> None:
    """Raise UserError when phantoms and others meet in one study; None: not known yet."""
    if True in phantom and False in phantom:
        raise UserError(
            "some of the sets are phantoms and others are not; make a study of images of one kind"
        )


def check_packages(name: Any) -> None:
    """Raise UserError when what reads ratings is not installed."""
    is_table = isinstance(name, str) and places.is_table(name)
    environment.check_packages(STATISTICS if is_table else (*STATISTICS, *DATABASE))


def _read(path: Path, design: Design | None) -> RatingTable:
    """A table of ratings; what is told of it is told without the path."""
    from ..diffusioncleft_core.files import shown
    from ..diffusioncleft_core.study.ratings_file import read_ratings

    def named(said: object) -> str:
        return str(said).replace(shown(path), path.name).replace(str(path), path.name)

    try:
        table = read_ratings(path, design)
    except UserError as error:
        message = named(error)
    else:
        return replace(table, notices=tuple(map(named, table.notices)))
    raise UserError(message)


def _digest(plan: Plan) -> str:
    """What a study was asked to be made of, so that the same is found again and another lies beside it."""
    asked = [plan.design, sorted(plan.counts.items()), sorted(plan.changes.items()), plan.raw]
    sets = [(origin, item.folder.name, sha256_file(item.folder / MANIFEST)) for origin, item in plan.sets]
    return sha256_bytes(repr((asked, sets)).encode())[:10]


def _shown(notice: str) -> str:
    """A sentence for every browser: no path of the server, no name of a photograph."""
    said = without_private_paths(notice)
    said = said.replace(f"{Path(folder_paths.get_output_directory())}/", "")
    logging.info("DiffusionCleft: %s", said)
    return said
