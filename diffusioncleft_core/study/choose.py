"""Which pictures of what is there a study shows: the design brought to what the sets hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..conditions.vocabulary import GROUPS
from ..errors import UserError
from ..files import shown
from ..imageset.places import named
from .blind import FEWEST, is_decodable, largest_side
from .design import GENERATED, REAL, Design, SetDesign
from .draw import generator, one_a_person, shares, stratified
from .items import Item
from .sources import Found, Picture, Source


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
class Drawn:
    """A picture that was chosen, and of which set."""

    origin: str
    picture: Picture


def roles_of(sources: Sequence[Source]) -> dict[str, str]:
    """`generated` or `real`, by origin. UserError where folders of one origin differ."""
    roles: dict[str, str] = {}
    for source in sources:
        if roles.setdefault(source.origin, source.role) != source.role:
            raise UserError(f"the set {source.origin} is given as {REAL} and as {GENERATED}; name two sets")
    return roles


def pools_of(found: Sequence[tuple[Source, Found]], notices: list[str]) -> dict[str, list[Picture]]:
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


def choose(
    design: Design,
    pools: dict[str, list[Picture]],
    roles: Mapping[str, str],
    wanted: Wanted,
    notices: list[str],
) -> tuple[Design, list[Drawn], list[Drawn]]:
    """The design as it can be held, what counts, and what is for practice."""
    asked = _asked(design, {origin: roles[origin] for origin in pools}, wanted)
    sets: list[SetDesign] = []
    drawn: list[Drawn] = []
    spare: list[Drawn] = []
    for item in asked:
        pools[item.origin] = _of_conditions(design, item.origin, pools[item.origin], notices)
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
        drawn += [Drawn(item.origin, picture) for picture in chosen]
        if item.role == GENERATED:  # photographs are shown where they count
            spare += [Drawn(item.origin, picture) for picture in pools[item.origin] if picture not in chosen]
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


def _of_conditions(design: Design, origin: str, pool: list[Picture], notices: list[str]) -> list[Picture]:
    """The pictures that show a condition of the design; all of them where the set knows of none."""
    known = [picture for picture in pool if picture.condition is not None]
    fitting = [picture for picture in known if picture.condition in design.conditions]
    if not known or not design.conditions:
        return pool
    if len(fitting) < len(pool):
        notices.append(
            f"pictures of the set {origin} that show none of {', '.join(design.conditions)}, as far as is "
            f"known, were left out: {len(pool) - len(fitting)}"
        )
    return fitting


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


def unknown(items: Sequence[Item]) -> list[str]:
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
