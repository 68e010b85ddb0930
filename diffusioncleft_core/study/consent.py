"""A consent that was withdrawn reaches the studies: the pictures go, the ratings stay."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..dataset.folder import erase, is_dataset
from ..dataset.folder_consent import TABLE
from ..dataset.rating_consent import out_of_reach, photographs_of, rating_consent, shown_to_raters
from ..dataset.withdrawn import SAID, known_withdrawals, withdrawal_of
from ..files import read_jsonl
from .folder import SOURCES, Study, erase_unfinished, is_study, open_study, study_lock
from .items import Item


def erase_withdrawn(study: Study) -> list[str]:
    """Erase the pictures that may not be shown any more; sentences on it for the owner.

    These are copies of photographs whose row does not say `consent_rating = yes` any more, and of images by a
    LoRA that learned from a photograph whose consent was withdrawn. What was rated stays rated. Called before
    a study is served, and whenever a dataset that it was drawn from is built anew, withdrawn or purged.
    """
    told = []
    with study_lock(study.root):
        photographs, missing = _without_consent(study)
        if n := erase_pictures(study, photographs):
            told.append(
                f"{n} pictures of the study {study.root.name} were erased: the people in these photographs "
                "do not agree any more, as their table says, that raters see them"
            )
        known = known_withdrawals()
        drawn = [item for item in study.items if withdrawal_of({item.lora or ""}, known) is not None]
        if n := erase_pictures(study, drawn):
            told.append(f"{n} pictures of the study {study.root.name} were erased: their LoRA {SAID}")
    return told + missing


def refresh_studies(studies: Iterable[Path]) -> list[str]:
    """`erase_withdrawn` in each of the studies that is still there; sentences on it.

    What a call that was killed left of a study is erased.
    """
    told: list[str] = []
    for place in studies:
        erase_unfinished(place)
        if is_study(place):
            told += erase_withdrawn(open_study(place))
    return told


def erase_pictures(study: Study, items: Iterable[Item]) -> int:
    """Erase the pictures of these items, as far as they are there; returns how many were."""
    there = [item for item in items if study.has_image(item.id)]
    for item in there:
        erase(study.image(item.id))
    return len(there)


def _without_consent(study: Study) -> tuple[list[Item], list[str]]:
    """Items whose photographs may not be shown any more; sentences on sets that can't be asked.

    These lie on another machine, on a drive that is not mounted, or were moved: what the study was made with,
    or the dataset's last build, counts.
    """
    sources = read_jsonl(study.root / SOURCES) if (study.root / SOURCES).is_file() else []
    withdrawn: list[Item] = []
    missing = []
    for place, row in enumerate(sources):
        items = [item for item in study.items if item.source == place]
        folder = Path(str(row.get("folder")))
        if not items:
            continue
        photos = photographs_of(folder) if is_dataset(folder) else folder
        why = out_of_reach(photos) if photos is not None else None
        if is_dataset(folder) or not why:
            allowed = _allowed_in(folder)
            withdrawn += [item for item in items if item.photograph not in allowed]
            items = [item for item in items if item.photograph in allowed]
        if why and items:
            missing.append(
                f"{why}, so nobody knows here whether a consent was withdrawn since the study was made; "
                "where somebody withdraws, close the study"
            )
    return withdrawn, missing


def _allowed_in(folder: Path) -> frozenset[str]:
    """Hashes of the photographs of a dataset, or of a folder with a table, that may be shown now."""
    if is_dataset(folder):
        return rating_consent(folder)
    return frozenset(shown_to_raters(folder, folder / TABLE).values())
