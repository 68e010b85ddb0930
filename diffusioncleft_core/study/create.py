"""Making a study: pictures drawn, written blind, and the key that says where each comes from."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..conditions.vocabulary import GROUPS, Vocabulary
from ..dataset.admission import served_folder
from ..dataset.folder import erase, is_dataset
from ..dataset.rating_consent import remember_study
from ..errors import UserError
from ..files import TEMPORARY_PREFIX, explained, private_dir, sha256_bytes, shown, write_jsonl, write_text
from ..imageset.places import named
from ..progress import progress
from .blind import FEWEST, is_decodable, largest_side, write_blind
from .design import GENERATED, REAL, Design, SetDesign, written_design
from .draw import generator, one_a_person, shares, stratified, systematic
from .folder import DESIGN, IMAGES, KEY, PRIVATE, SOURCES, Study, is_study, open_study
from .items import Item, write_items
from .phantoms import refuse_people
from .sources import Found, Picture, Source, by_condition, pictures_of

NOTICE = "PRIVATE.txt"
_NOTICE = """\
This folder holds pictures that were given for one study, and says where each comes from. Keep it private:
don't upload, share or commit it, and don't put it where a server shows it. 'diffusioncleft study close STUDY'
erases the pictures of photographs and keeps the ratings.
"""


@dataclass(frozen=True)
class Wanted:
    """What the design leaves to whoever makes the study.

    Attributes:
        counts: pictures by origin, instead of the design's; then so many must be there.
        raw: generated images as first drawn, accepted or not.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    raw: bool = False


@dataclass(frozen=True)
class _Drawn:
    """A picture that was chosen, and of which set."""

    origin: str
    picture: Picture


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
    expanded = [part for source in sources for part in by_condition(source, vocabulary)]
    found = [(source, pictures_of(source, vocabulary, raw=wanted.raw)) for source in expanded]
    for source, held in found:
        if source.phantom and source.role == REAL:
            refuse_people([picture.path for picture in held.pictures], source.folder)
    notices = [notice for _, held in found for notice in held.notices]
    pools = _pools(found, notices)
    design, drawn, practice = _choose(design, pools, _roles(expanded), wanted, notices)
    phantoms = {source.origin for source, held in found if held.phantom}
    design = replace(
        design, sets=tuple(replace(item, phantom=item.origin in phantoms) for item in design.sets)
    )
    study = _write(out, design, expanded, drawn, practice)
    notices += _unknown([item for item in study.rated if item.repeat_of is None])
    for place in {item.source for item in study.items if item.source is not None}:
        if is_dataset(expanded[place].folder):
            remember_study(expanded[place].folder, out)
    return study, notices


def _refuse_place(out: Path, sources: Sequence[Source]) -> None:
    if not sources:
        raise UserError("no set is given; give the folder of a run, or --set NAME=DIR")
    if is_study(out):
        raise UserError(f"{shown(out)} is a study already and was left as it is; give another --out")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{shown(out)} is not empty; choose a new or empty folder as --out")
    for source in sources:
        if out.resolve().is_relative_to(source.folder.resolve()):
            raise UserError(f"--out {shown(out)} lies in the set {shown(source.folder)}; choose it outside")
    if served := served_folder(out):
        raise UserError(
            f"--out {shown(out)} lies under ComfyUI's {served} folder, shown to all who reach its server; "
            "choose another"
        )


def _roles(sources: Sequence[Source]) -> dict[str, str]:
    """`generated` or `real`, by origin. UserError where folders of one origin differ."""
    roles: dict[str, str] = {}
    for source in sources:
        if roles.setdefault(source.origin, source.role) != source.role:
            raise UserError(f"the set {source.origin} is given as {REAL} and as {GENERATED}; name two sets")
    return roles


def _pools(found: Sequence[tuple[Source, Found]], notices: list[str]) -> dict[str, list[Picture]]:
    """The pictures of each origin; what has no size, or is too small to judge, is named and left out."""
    pools: dict[str, list[Picture]] = {}
    for source, held in found:
        sides = [largest_side(picture.path) for picture in held.pictures]
        unfit = [
            picture.path.name for picture, side in zip(held.pictures, sides, strict=True) if side < FEWEST
        ]
        if unfit:
            notices.append(
                f"pictures in {shown(source.folder)} that can't be read or are too small were left out "
                f"({len(unfit)}): {named(unfit)}"
            )
        fit = [picture for picture, side in zip(held.pictures, sides, strict=True) if side >= FEWEST]
        pools.setdefault(source.origin, []).extend(fit)
    return pools


def _choose(
    design: Design,
    pools: dict[str, list[Picture]],
    roles: Mapping[str, str],
    wanted: Wanted,
    notices: list[str],
) -> tuple[Design, list[_Drawn], list[_Drawn]]:
    """The design as it can be held, what counts, and what is for practice."""
    asked = _asked(design, {origin: roles[origin] for origin in pools}, wanted)
    sets: list[SetDesign] = []
    drawn: list[_Drawn] = []
    spare: list[_Drawn] = []
    for item in asked:
        chosen = _draw_set(design, item, pools[item.origin], notices)
        if item.origin in wanted.counts and len(chosen) < item.n:
            raise UserError(
                f"{item.n} pictures of the set {item.origin} were asked for and {len(chosen)} may be shown; "
                f"ask for fewer, or {_remedy(item)}"
            )
        if not chosen:
            notices.append(
                f"the set {item.origin} is left out: no picture of it may be shown; {_remedy(item)}"
            )
            continue
        if len(chosen) < item.n:
            notices.append(f"the set {item.origin} has {len(chosen)} pictures to show, not {item.n}")
        sets.append(replace(item, n=len(chosen)))
        drawn += [_Drawn(item.origin, picture) for picture in chosen]
        if item.role == GENERATED:  # photographs are shown where they count
            spare += [_Drawn(item.origin, picture) for picture in pools[item.origin] if picture not in chosen]
    if not drawn:
        raise UserError(f"there is no picture to show: {'; '.join(notices)}")
    rng = generator(design.seed, "practice")
    practice = [spare[place] for place in rng.permutation(len(spare))[: design.practice]]
    practice = [item for item in practice if is_decodable(item.picture.path)]
    if len(practice) < design.practice:
        notices.append(f"pictures left for practice: {len(practice)}, not {design.practice}")
    if len({item.role for item in sets}) < 2:
        notices.append(f"all pictures are {sets[0].role}: nothing is compared with anything")
    conditions = tuple(
        name for name in design.conditions if any(item.picture.condition == name for item in drawn)
    )
    repeats = min(design.repeats, len(drawn))
    design = replace(design, sets=tuple(sets), conditions=conditions, repeats=repeats, practice=len(practice))
    return design, drawn, practice


def _asked(design: Design, roles: Mapping[str, str], wanted: Wanted) -> list[SetDesign]:
    """The sets that are given, those of the design first.

    One that the design lacks has as many pictures as the design's first of its role.
    """
    unknown = sorted(set(wanted.counts) - set(roles))
    if unknown:
        raise UserError(f"--n names the set {unknown[0]!r}; there are: {', '.join(roles)}")
    known = {item.origin: item for item in design.sets}
    usual = {item.role: item.n for item in reversed(design.sets)}
    asked = [known[origin] for origin in known if origin in roles]
    asked += [
        SetDesign(origin, usual.get(role, design.sets[0].n), role)
        for origin, role in roles.items()
        if origin not in known
    ]
    return [
        replace(item, n=wanted.counts.get(item.origin, item.n), role=roles[item.origin]) for item in asked
    ]


def _draw_set(design: Design, item: SetDesign, pool: list[Picture], notices: list[str]) -> list[Picture]:
    """The pictures of a set that are shown; one that can't be decoded is named and replaced."""
    while True:
        chosen = _draw(design, item, pool)
        damaged = [picture for picture in chosen if not is_decodable(picture.path)]
        if not damaged:
            return chosen
        names = named([picture.path.name for picture in damaged])
        notices.append(f"damaged pictures of the set {item.origin} were left out: {names}")
        pool[:] = [picture for picture in pool if picture not in damaged]


def _draw(design: Design, item: SetDesign, pool: Sequence[Picture]) -> list[Picture]:
    by_condition = {
        name: [picture for picture in pool if picture.condition == name] for name in design.conditions
    }
    held = {name: pictures for name, pictures in by_condition.items() if pictures}
    if not held:  # what the set does not know can't be drawn by
        held = {"": list(pool)}
    counts = shares(item.n, list(held), [len(pictures) for pictures in held.values()])
    chosen = []
    for (name, pictures), n in zip(held.items(), counts, strict=True):
        rng = generator(design.seed, item.origin, name)
        chosen += stratified(one_a_person(pictures, n, rng), n, rng)
    return chosen


def _remedy(item: SetDesign) -> str:
    if item.role == GENERATED:
        return "draw more (or take rejected ones too with --raw)"
    return "ask those who are shown, and write yes under consent_rating in the table"


def _unknown(items: Sequence[Item]) -> list[str]:
    """Sentences on what the sets do not know of their pictures."""
    told = []
    for origin in dict.fromkeys(item.origin for item in items):
        mine = [item for item in items if item.origin == origin]
        unknown = {"condition": sum(item.condition is None for item in mine)}
        unknown |= {name: sum(item.groups.get(name) is None for item in mine) for name in GROUPS}
        words = [
            f"{name.replace('_', ' ')} of {'all' if n == len(mine) else n}"
            for name, n in unknown.items()
            if n
        ]
        if words:
            told.append(f"of its {len(mine)} pictures the set {origin} does not know: {', '.join(words)}")
    return told


def _write(
    out: Path, design: Design, sources: Sequence[Source], drawn: Sequence[_Drawn], practice: Sequence[_Drawn]
) -> Study:
    """Write the folder under a temporary name beside `out`, and give it its name when it is whole."""
    place = out.resolve()
    side = min([design.side, *(largest_side(item.picture.path) for item in (*drawn, *practice))])
    partial = place.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}")
    try:
        with explained(out):
            partial.mkdir(parents=True)
        private_dir(partial / PRIVATE)
        images = private_dir(partial / IMAGES)
        folders = {source.folder: number for number, source in enumerate(sources)}
        items = _write_images(images, side, design, folders, drawn, practice)
        write_items(partial / KEY, items)
        write_jsonl(partial / SOURCES, map(_recorded, sources))
        write_text(partial / PRIVATE / NOTICE, _NOTICE)
        write_text(partial / PRIVATE / ".gitignore", "*\n")
        write_text(partial / DESIGN, written_design(replace(design, side=side)))
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
    drawn: Sequence[_Drawn],
    practice: Sequence[_Drawn],
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
