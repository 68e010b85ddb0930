"""From examined photographs to those that enter, and where in them the finding lies. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..conditions.vocabulary import Region
from ..faces.analyzer import LANDMARKS
from ..faces.records import FaceRecord
from ..imageset.decode import SetAside
from .admission import Candidate
from .duplicates import near_duplicates
from .examine import Examination


@dataclass(frozen=True, eq=False)
class Selected:
    """A photograph that enters, and what is known of it."""

    candidate: Candidate
    examined: Examination

    @property
    def pixels(self) -> str:
        """Hash of the normalised pixels."""
        assert self.examined.pixels is not None
        return self.examined.pixels


@dataclass(frozen=True)
class Selection:
    """`entered`, in the order of their names; `set_aside`; `same_picture`: pairs of `entered` that are near
    duplicates and were both taken all the same."""

    entered: tuple[Selected, ...]
    set_aside: tuple[SetAside, ...]
    same_picture: tuple[tuple[int, int], ...]


def select(
    examined: Sequence[Selected], min_side: int, overruled: Mapping[str, Collection[str]]
) -> Selection:
    """Decide on every examined photograph. `overruled`: the reasons a person overruled, by source hash.

    Of equal pictures the first by name enters; of nearly equal ones the one with the most pixels, then by
    name.
    """
    aside: list[SetAside] = []
    sound: list[Selected] = []
    first: dict[str, str] = {}
    for item in sorted(examined, key=lambda entry: entry.candidate.file):
        candidate, found = item.candidate, item.examined
        rejection = found.rejection(min_side, overruled.get(found.source, ()))
        if rejection is None and found.record.embedding is None and candidate.subject is None:
            rejection = (
                "no_face",
                "taken back without a face it needs a subject_id, for the hold-out's sake",
            )
        if rejection is None and item.pixels in first:
            rejection = ("duplicate", f"the same picture as {first[item.pixels]}")
        if rejection is not None:
            aside.append(SetAside(candidate.file, *rejection, source=found.source))
            continue
        first[item.pixels] = candidate.file
        sound.append(item)
    entered, nearly, pairs = _without_near_duplicates(sound, overruled)
    return Selection(tuple(entered), tuple(aside + nearly), tuple(pairs))


def _without_near_duplicates(
    items: list[Selected], overruled: Mapping[str, Collection[str]]
) -> tuple[list[Selected], list[SetAside], list[tuple[int, int]]]:
    signatures = [item.examined.signature for item in items]
    assert all(entry is not None for entry in signatures)
    pairs = near_duplicates(
        [entry for entry in signatures if entry is not None], [i.examined.record.embedding for i in items]
    )
    near: dict[int, set[int]] = {}
    mirrored = {frozenset(pair[:2]) for pair in pairs if pair.mirrored}
    for i, j, _ in pairs:
        near.setdefault(i, set()).add(j)
        near.setdefault(j, set()).add(i)
    kept: set[int] = set()
    aside: list[SetAside] = []
    for i in sorted(range(len(items)), key=lambda k: (-_area(items[k]), items[k].candidate.file)):
        twins = sorted(near.get(i, set()) & kept)
        source = items[i].examined.source
        if twins and "near_duplicate" not in overruled.get(source, ()):
            what = "mirror image of" if frozenset((i, twins[0])) in mirrored else "same picture as"
            detail = f"nearly the {what} {items[twins[0]].candidate.file}"
            aside.append(SetAside(items[i].candidate.file, "near_duplicate", detail, source))
        else:
            kept.add(i)
    number = {old: new for new, old in enumerate(sorted(kept))}
    return (
        [items[i] for i in sorted(kept)],
        aside,
        [(number[i], number[j]) for i, j, _ in pairs if i in kept and j in kept],
    )


def _area(item: Selected) -> int:
    return item.examined.original_width * item.examined.original_height


def region_box(region: Region | None, record: FaceRecord) -> list[float] | None:
    """[x0, y0, x1, y1] in px: the box around the region's landmarks with its margin, inside the image.

    None where the condition names no region or no face was found.
    """
    if region is None or record.landmarks is None:
        return None
    landmarks = np.round(record.landmarks.astype(np.float64), 2)  # as they were before they became float32
    points = landmarks[[LANDMARKS.index(name) for name in region.landmarks]]
    low, high = points.min(0), points.max(0)
    margin = region.margin * float((high - low).max())
    x0, y0 = np.clip(low - margin, 0, (record.width, record.height))
    x1, y1 = np.clip(high + margin, 0, (record.width, record.height))
    return [round(float(value), 1) for value in (x0, y0, x1, y1)] if x1 > x0 and y1 > y0 else None
