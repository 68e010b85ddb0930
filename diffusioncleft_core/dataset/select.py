"""From examined photographs to those that enter, which of them are held out, and where the finding lies."""

import hashlib
import hmac
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..conditions.vocabulary import LANDMARKS, Region
from ..faces.records import FaceRecord
from ..imageset.copies import Pair
from ..imageset.decode import SetAside
from .admission import Candidate
from .examine import Examination, near_duplicates
from .folder import dataset_rows, keyed_hash, read_embeddings


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
    duplicates and were both taken all the same; `replaced`: by the source of each duplicate and near
    duplicate that does not enter, the sources of `entered` that show its picture."""

    entered: tuple[Selected, ...]
    set_aside: tuple[SetAside, ...]
    same_picture: tuple[tuple[int, int], ...]
    replaced: Mapping[str, frozenset[str]]


def select(
    examined: Sequence[Selected],
    min_side: int,
    overruled: Mapping[str, Collection[str]],
    near_copies: Callable[[Sequence[Selected]], Sequence[Pair]],
) -> Selection:
    """Decide on every examined photograph. `overruled`: the reasons a person overruled, by source hash;
    `near_copies`: finds pairs among photographs.

    Of equal pictures the first by name enters; of nearly equal ones the one with the most pixels, then by
    name.
    """
    aside: list[SetAside] = []
    sound: list[Selected] = []
    first: dict[str, Selected] = {}
    doubles: list[Selected] = []
    for item in sorted(examined, key=lambda entry: entry.candidate.file):
        candidate, found = item.candidate, item.examined
        rejection = found.rejection(min_side, overruled.get(found.source, ()))
        if rejection is None and found.record.embedding is None and candidate.subject is None:
            rejection = (
                "no_face",
                "taken back without a face it needs a subject_id, for the hold-out's sake",
            )
        if rejection is None and item.pixels in first:
            rejection = ("duplicate", f"the same picture as {first[item.pixels].candidate.file}")
            doubles.append(item)
        if rejection is not None:
            aside.append(SetAside(candidate.file, *rejection, source=found.source))
            continue
        first[item.pixels] = item
        sound.append(item)
    entered, nearly, pairs, replaced = _without_near_duplicates(sound, overruled, near_copies)
    for item in doubles:
        shown = first[item.pixels].examined.source
        replaced[item.examined.source] = replaced.get(shown, frozenset({shown}))
    return Selection(tuple(entered), tuple(aside + nearly), tuple(pairs), replaced)


def _without_near_duplicates(
    items: list[Selected],
    overruled: Mapping[str, Collection[str]],
    near_copies: Callable[[Sequence[Selected]], Sequence[Pair]],
) -> tuple[list[Selected], list[SetAside], list[tuple[int, int]], dict[str, frozenset[str]]]:
    signatures = [item.examined.signature for item in items]
    assert all(entry is not None for entry in signatures)
    alike = near_duplicates(
        [entry for entry in signatures if entry is not None], [i.examined.record.embedding for i in items]
    )
    pairs = list({pair[:2]: pair for pair in (*near_copies(items), *alike)}.values())
    near: dict[int, set[int]] = {}
    mirrored = {frozenset(pair[:2]) for pair in pairs if pair.mirrored}
    for i, j, _ in pairs:
        near.setdefault(i, set()).add(j)
        near.setdefault(j, set()).add(i)
    kept: set[int] = set()
    aside: list[SetAside] = []
    replaced: dict[str, frozenset[str]] = {}
    for i in sorted(range(len(items)), key=lambda k: (-_area(items[k]), items[k].candidate.file)):
        twins = sorted(near.get(i, set()) & kept)
        source = items[i].examined.source
        if twins and "near_duplicate" not in overruled.get(source, ()):
            what = "mirror image of" if frozenset((i, twins[0])) in mirrored else "same picture as"
            detail = f"nearly the {what} {items[twins[0]].candidate.file}"
            aside.append(SetAside(items[i].candidate.file, "near_duplicate", detail, source))
            replaced[source] = frozenset(items[k].examined.source for k in twins)
        else:
            kept.add(i)
    number = {old: new for new, old in enumerate(sorted(kept))}
    return (
        [items[i] for i in sorted(kept)],
        aside,
        [(number[i], number[j]) for i, j, _ in pairs if i in kept and j in kept],
        replaced,
    )


def earlier_roles(selection: Selection, recorded: Mapping[str, str]) -> list[set[str]]:
    """The roles that each photograph that enters has had, and those whose picture it shows in their place.

    recorded: roles of an earlier build, by source.
    """
    roles = {item.examined.source: set[str]() for item in selection.entered}
    shown = {source: frozenset({source}) for source in roles}
    for source, places in {**selection.replaced, **shown}.items():
        for place in places if source in recorded else ():
            roles[place].add(recorded[source])
    return [roles[item.examined.source] for item in selection.entered]


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


Array = np.ndarray[Any, np.dtype[Any]]

# Cosine above which two faces without subject ids count as one person. Low on purpose: merging two people
# only makes the split coarser, splitting one would leak. Recognition is weaker on children, another reason
# for a low one.
SAME_PERSON = 0.40
# The embedded recogniser, chosen on 250 phantoms with a cleft and again repaired, in two photographs each
# as `phantom render` writes them: at most one pair of strangers in 20,000 reaches it. On 250 others it was
# one in 10,000, and 0.6 % of second photographs stayed below.
SAME_PERSON_PHANTOM = 0.65


def group_subjects(
    subjects: Sequence[str | None],
    embeddings: Sequence[Array | None],
    same_picture: Sequence[tuple[int, int]],
    threshold: float = SAME_PERSON,
) -> list[int]:
    """Number the subject of each photograph: [n] group indices, by first appearance.

    Photographs are of one subject when they share a subject id, when at least one of the two has no id and
    their embeddings [512] (L2-normalised) reach `threshold` (single linkage), or when they are near
    duplicates.
    """
    parent = list(range(len(subjects)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    def join(i: int, j: int) -> None:
        low, high = sorted((root(i), root(j)))
        parent[high] = low

    first: dict[str, int] = {}
    for i, subject in enumerate(subjects):
        if subject is not None:
            join(first.setdefault(subject, i), i)
    for i, j in same_picture:
        join(i, j)
    seen = [i for i, embedding in enumerate(embeddings) if embedding is not None]
    if any(subjects[i] is None for i in seen):
        matrix = np.stack([np.asarray(embeddings[i], dtype=np.float32) for i in seen])
        for row, i in enumerate(seen):
            for column in np.flatnonzero(matrix[:row] @ matrix[row] >= threshold):
                j = seen[int(column)]
                if subjects[i] is None or subjects[j] is None:
                    join(i, j)
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(i), len(numbers)) for i in range(len(subjects))]


def choose_holdout(
    groups: Sequence[int],
    names: Sequence[str],
    fraction: float,
    seed: int,
    recorded: Sequence[Collection[str]],
) -> list[str]:
    """The role of each photograph: `train` or `holdout`, by subject.

    `groups` [n] numbers the subjects, `names` [n] are subject ids or else file hashes, `recorded` [n] the
    roles each photograph has had (in an earlier build, or its subject in the other condition's dataset). A
    subject with a photograph that was trained on stays in training, one that was held out stays out; the rest
    fill the quota of round(fraction * subjects), at least one of two subjects or more, in the order of
    HMAC-SHA256(seed, the subject's smallest name). Subjects with more than twice their share of all
    photographs are passed over while a smaller one is there. Deterministic, whatever the order of the
    photographs.
    """
    members: dict[int, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    earlier = {group: {role for i in items for role in recorded[i]} for group, items in members.items()}
    held = {group for group, roles in earlier.items() if roles == {"holdout"}}
    quota = max(1, round(fraction * len(members))) if fraction > 0 and len(members) > 1 else 0
    bound = max(2 * fraction * len(groups), min(map(len, members.values()), default=0))
    smallest = {group: min(names[i] for i in items) for group, items in members.items()}
    free = sorted(
        (group for group in members if not earlier[group]), key=lambda group: _rank(seed, smallest[group])
    )
    for group in free:
        if len(held) < quota and len(members[group]) <= bound:
            held.add(group)
    return ["holdout" if group in held else "train" for group in groups]


def _rank(seed: int, name: str) -> bytes:
    return hmac.new(f"diffusioncleft hold-out {seed}".encode(), name.encode(), hashlib.sha256).digest()


@dataclass(frozen=True, eq=False)
class Absent:
    """A photograph that had a role in an earlier build and is set aside in this one; its subject and face."""

    role: str
    subject: str | None
    embedding: Array | None


def roles_of_absent(
    entered: Sequence[Selected], absent: Sequence[Absent], threshold: float
) -> list[set[str]]:
    """The roles of absent photographs of each photograph's subject, known as in `group_subjects`."""
    return [
        {
            item.role
            for item in absent
            if _same_subject(
                (item.subject, mine.candidate.subject),
                (item.embedding, mine.examined.record.embedding),
                threshold,
            )
        }
        for mine in entered
    ]


def _same_subject(
    subjects: tuple[str | None, str | None], faces: tuple[Array | None, Array | None], threshold: float
) -> bool:
    if None not in subjects:
        return subjects[0] == subjects[1]
    one, other = faces
    return one is not None and other is not None and float(one @ other) >= threshold


def roles_elsewhere(
    entered: Sequence[Selected], datasets: Sequence[Path], threshold: float
) -> list[set[str]]:
    """The roles that each photograph's subject has in other datasets, usually the other condition's.

    Args:
        entered: a photograph with a subject id is compared by it, one without by its face.
        datasets: folders of other datasets.
        threshold: cosine from which two faces are one subject's.

    Raises:
        UserError: a folder is no dataset.
    """
    roles: list[set[str]] = [set() for _ in entered]
    for folder in datasets:
        rows = dataset_rows(folder, "train", "holdout")
        labels = {row.subject: str(row.role) for row in rows}
        embeddings = read_embeddings(folder)
        faces = [(embeddings[row.sha256], str(row.role)) for row in rows if row.sha256 in embeddings]
        known = np.stack([face for face, _ in faces]) if faces else np.zeros((0, 512))
        for index, item in enumerate(entered):
            subject, embedding = item.candidate.subject, item.examined.record.embedding
            if subject is not None:
                label = keyed_hash(folder, f"id {subject}")[:12]
                if label in labels:
                    roles[index].add(labels[label])
            elif embedding is not None:
                roles[index] |= {faces[int(j)][1] for j in np.flatnonzero(known @ embedding >= threshold)}
    return roles
