"""Making a study: pictures drawn, written blind, and the key that says where each comes from."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..conditions.vocabulary import Vocabulary
from ..dataset.admission import served_folder
from ..dataset.drawn import remember_place, set_names
from ..dataset.folder import NOTICE, erase, is_dataset
from ..dataset.photographs import photographs_in
from ..dataset.rating_consent import remember_study
from ..errors import UserError
from ..files import (
    explained,
    keep_from_git,
    private_dir,
    sha256_bytes,
    shown,
    write_jsonl,
    write_text,
)
from ..progress import progress
from .blind import largest_side, write_blind
from .choose import Drawn, Wanted, choose, pools_of, roles_of, unknown
from .design import REAL, Design
from .draw import generator, systematic
from .folder import (
    IMAGES,
    KEY,
    PRIVATE,
    SOURCES,
    Study,
    erase_unfinished,
    is_study,
    open_study,
    study_lock,
    unfinished,
    write_design,
)
from .items import Item, write_items
from .phantoms import refuse_people
from .sources import Source, by_condition, pictures_of

_NOTICE = """\
This folder holds pictures that were given for one study, and says where each comes from. Keep it private:
don't upload, share or commit it, and don't put it where a server shows it. 'diffusioncleft study close STUDY'
erases the pictures of photographs and keeps the ratings.
"""


def create_study(
    out: Path, design: Design, sources: Sequence[Source], vocabulary: Vocabulary, wanted: Wanted | None = None
) -> tuple[Study, list[str]]:
    """Draw the pictures of a study and write its folder; returns it, and sentences for the owner.

    It stands there whole or not at all.

    Args:
        out: a new or empty folder.
        design: its sets and counts are brought to what `sources` hold.
        sources: folders by origin; several may be of one.
        vocabulary: names the conditions, and tells faces apart.
        wanted: what is asked for beside the design.

    Raises:
        UserError: a source can't be used or holds no picture that may be shown, or `out` is taken.
    """
    wanted = wanted or Wanted()
    _refuse_place(out, sources)
    erase_unfinished(out.resolve())
    expanded = [part for source in sources for part in by_condition(source, vocabulary)]
    found = [(source, pictures_of(source, vocabulary, raw=wanted.raw)) for source in expanded]
    for source, held in found:
        if source.phantom and (source.role == REAL or photographs_in(source.folder)):
            refuse_people([picture.path for picture in held.pictures], source.folder)
    notices = [notice for _, held in found for notice in held.notices]
    pools = pools_of(found, notices)
    design, drawn, practice = choose(design, pools, roles_of(expanded), wanted, notices)
    phantoms = {source.origin for source, held in found if held.phantom}
    phantoms -= {source.origin for source, held in found if source.role == REAL and not held.phantom}
    design = replace(
        design, sets=tuple(replace(item, phantom=item.origin in phantoms) for item in design.sets)
    )
    for folder in {item.picture.folder for item in drawn if item.picture.photograph}:
        if is_dataset(folder):  # before a copy of its photographs is there
            remember_study(folder, out)
    shown_sets = {item.picture.folder for item in (*drawn, *practice) if not item.picture.photograph}
    remember_place(out, {name for folder in shown_sets for name in set_names(folder)})
    study = _write(out, design, expanded, drawn, practice)
    notices += unknown([item for item in study.rated if item.repeat_of is None])
    return study, notices


def _refuse_place(out: Path, sources: Sequence[Source]) -> None:
    if not sources:
        raise UserError("no set is given; give the folder of a run, or --set NAME=DIR")
    _refuse_taken(out)
    for source in sources:
        if out.resolve().is_relative_to(source.folder.resolve()):
            raise UserError(f"--out {shown(out)} lies in the set {shown(source.folder)}; choose it outside")
    if served := served_folder(out):
        raise UserError(
            f"--out {shown(out)} lies under ComfyUI's {served} folder, shown to all who reach its server; "
            "choose another"
        )


def _refuse_taken(out: Path) -> None:
    if is_study(out):
        raise UserError(f"{shown(out)} is a study already and was left as it is; give another --out")
    for place in (out, *out.parents):
        if place.exists() and not place.is_dir():
            raise UserError(f"{shown(place)} is a file; choose a new or empty folder as --out")
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{shown(out)} is not empty; choose a new or empty folder as --out")


def _write(
    out: Path, design: Design, sources: Sequence[Source], drawn: Sequence[Drawn], practice: Sequence[Drawn]
) -> Study:
    """Write the folder under another name beside `out`, and give it its own when it is whole.

    Locked meanwhile: so the next call knows what a killed one left from what is at work.
    """
    place = out.resolve()
    side = min([design.side, *(largest_side(item.picture.path) for item in (*drawn, *practice))])
    partial = place.with_name(f"{unfinished(place)}-{secrets.token_hex(8)}")
    try:
        with explained(out):
            partial.mkdir(parents=True)
        private_dir(partial / PRIVATE)
        with study_lock(partial):
            images = private_dir(partial / IMAGES)
            folders = {source.folder: number for number, source in enumerate(sources)}
            items = _write_images(images, side, design, folders, drawn, practice)
            write_items(partial / KEY, items)
            write_jsonl(partial / SOURCES, map(_recorded, sources))
            write_text(partial / PRIVATE / NOTICE, _NOTICE)
            keep_from_git(partial / PRIVATE)
            write_design(partial, replace(design, side=side))
        _refuse_taken(out)  # another call may have been faster
        with explained(out):
            if place.is_dir():
                place.rmdir()
            partial.replace(place)
    finally:
        erase(partial)
    return open_study(out)


def _write_images(
    folder: Path,
    side: int,
    design: Design,
    folders: Mapping[Path, int],
    drawn: Sequence[Drawn],
    practice: Sequence[Drawn],
) -> list[Item]:
    """Write the pictures in the order of their ids, which are random, so that no date tells anything."""
    counting = [(item, secrets.token_hex(8), False) for item in drawn]
    rng = generator(design.seed, "repeats")
    again = systematic([(item, name) for item, name, _ in counting], design.repeats, rng)
    all_items = [
        *((item, name, None, False) for item, name, _ in counting),
        *((item, secrets.token_hex(8), name, False) for item, name in again),
        *((item, secrets.token_hex(8), None, True) for item in practice),
    ]
    items = []
    for item, name, repeat_of, is_practice in progress(
        sorted(all_items, key=lambda entry: entry[1]), "pictures"
    ):
        picture = item.picture
        data = write_blind(folder / f"{name}.png", picture.path, side, picture.region)
        items.append(
            Item(
                id=name,
                origin=item.origin,
                condition=picture.condition,
                groups=picture.groups,
                repeat_of=repeat_of,
                practice=is_practice,
                width=side,
                height=side,
                sha256=sha256_bytes(data),
                photograph=picture.photograph,
                source=folders.get(picture.folder) if picture.photograph else None,
                lora=picture.lora,
            )
        )
    return items


def _recorded(source: Source) -> dict[str, object]:
    return {"origin": source.origin, "role": source.role, "folder": str(source.folder.resolve())}


def counts_of(study: Study) -> list[str]:
    """A line for each set: how many pictures it has of each condition."""
    lines = []
    for item in study.design.sets:
        mine = [entry for entry in study.rated if entry.origin == item.origin and entry.repeat_of is None]
        parts = Counter(entry.condition or "condition not known" for entry in mine)
        said = ", ".join(f"{n} {name}" for name, n in sorted(parts.items()))
        lines.append(f"{item.origin}: {len(mine)} ({said}){', phantoms' if item.phantom else ''}")
    return lines
