"""What a person decides about images of a set, over the filters: taken back, rejected, reviewed.

Decisions stand in the verdicts of the image that the person saw, and a later filter run keeps them. A review
is of the pair that an image makes with its nearest photograph, as a run's private page shows it; the set is
told what the person saw, and not which photograph it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import read_json, shown
from ..imageset.manifest import ImageRow, image_set_rows
from ..imageset.places import REJECTED, current_place, move_all, name_of, set_lock
from ..imageset.spool import row_spool
from .apply import settle
from .verdicts import (
    READMISSION,
    REJECTION,
    REVIEW,
    content_key,
    file_digest,
    keep_verdicts,
    known_verdicts,
    with_decisions,
)

SAME, NOT_SAME, UNSURE = "same_person", "not_same", "unsure"
SAID = {SAME: "same person", NOT_SAME: "not the same", UNSURE: "unsure"}
"""What a person can say of a pair."""
REVIEW_KIND = "diffusioncleft review"
REVIEW_SCHEMA = 1
_BY = "a person"
_NO_REVIEW = "give the file that a run's report.private.html saved"
Decide = Callable[[ImageRow], Mapping[str, Any]]
"""The verdicts of a row after a decision."""


def readmit(folder: Path, files: Sequence[str]) -> list[ImageRow]:
    """Move rejected images back into the set; returns their rows.

    files: names with or without `rejected/`. The verdict stays readable: the filters' reasons and numbers are
    kept, and `readmitted` says when a person overruled which of them; a person's own rejection is undone.
    Raises UserError for a name that the set has not, and for an image that was not rejected; then nothing is
    changed.
    """

    def decide(row: ImageRow) -> Mapping[str, Any]:
        if row.accepted is not False:
            raise UserError(f"{shown(row.name)} was not rejected, so there is nothing to take back")
        left = _without_rejection(row.verdicts)
        if not left.get("reasons"):
            return left
        return with_decisions(left, {**left, READMISSION: {**_today(), "overruled": left["reasons"]}})

    return _decide(folder, dict.fromkeys(files, decide))


def reject(folder: Path, files: Sequence[str]) -> list[ImageRow]:
    """Set images aside because a person says so; returns their rows. `readmit` undoes it.

    Raises UserError for a name that the set has not, and for an image that is set aside already; then nothing
    is changed.
    """

    def decide(row: ImageRow) -> Mapping[str, Any]:
        if row.accepted is False:
            reasons = ", ".join(row.reasons)
            raise UserError(f"{shown(row.name)} is set aside already ({reasons}); there is nothing to do")
        return _rejected(row.verdicts, {})

    return _decide(folder, dict.fromkeys(files, decide))


@dataclass(frozen=True)
class ReviewedPair:
    """What a person saw in an image beside its nearest photograph.

    condition: of the image's set, None where it has none; image: its name; content: tells it from another
    image of that name; similarity: of the pair; verdict: `same_person`, `not_same` or `unsure`.
    """

    condition: str | None
    image: str
    content: str
    similarity: float
    verdict: str


@dataclass(frozen=True)
class ReviewResult:
    """`rows`: the images whose review was recorded; `elsewhere`: pairs whose image is not in this set, or has
    another content by now."""

    rows: tuple[ImageRow, ...]
    elsewhere: int

    @property
    def counts(self) -> dict[str, int]:
        """How many were seen as what."""
        return review_counts(self.rows)


def read_review(path: Path) -> list[ReviewedPair]:
    """Read a review that the private page saved. UserError for another file."""
    document = read_json(path, _NO_REVIEW)
    if not isinstance(document, dict) or document.get("kind") != REVIEW_KIND:
        raise UserError(f"{path} is no review; {_NO_REVIEW}")
    if document.get("schema") != REVIEW_SCHEMA or not isinstance(document.get("pairs"), list):
        raise UserError(f"{path} is a review of another version; make the page again with `report RUN`")
    return [_pair(pair, path) for pair in document["pairs"]]


def review(folder: Path, pairs: Sequence[ReviewedPair]) -> ReviewResult:
    """Record what a person saw; where it is the same person, the image is set aside.

    A later review of the image takes the place of an earlier one, and with it goes what that one set aside.
    Raises UserError when none of the pairs is of an image in the set.
    """
    known = {(pair.condition, pair.image): pair for pair in pairs}
    mine = {
        row.name: pair
        for row in image_set_rows(folder)
        if (pair := known.get((row.condition, row.name))) is not None
        and pair.content == content_key(file_digest(Path(folder) / row.file))
    }
    if not mine:
        raise UserError(f"no image of this review is in {folder}; give the set that the page shows")

    def decision(pair: ReviewedPair) -> Decide:
        seen = {**_today(), "verdict": pair.verdict, "similarity": round(pair.similarity, 2)}

        def decide(row: ImageRow) -> Mapping[str, Any]:
            before = row.verdicts
            if pair.verdict == SAME:
                return _rejected(before, {REVIEW: seen}, because=SAME)
            if before.get(REJECTION, {}).get("because") == SAME:
                before = _without_rejection(before)
            return with_decisions(before, {**before, REVIEW: seen}) if _judged(before) else {REVIEW: seen}

        return decide

    changed = _decide(folder, {name: decision(pair) for name, pair in mine.items()})
    return ReviewResult(tuple(changed), len(pairs) - len(mine))


def review_counts(rows: Iterable[ImageRow]) -> dict[str, int]:
    """How many images a person saw as what, and `pairs`, how many together."""
    seen = Counter(str(row.verdicts[REVIEW].get("verdict")) for row in rows if row.verdicts.get(REVIEW))
    return {"pairs": sum(seen.values()), **{verdict: seen[verdict] for verdict in SAID}}


def decisions_in(folder: Path) -> list[list[Any]]:
    """Every decision in a set, with the image's name; equal lists say that nobody decided anew."""
    return [
        [row.name, [row.verdicts.get(name) for name in (READMISSION, REJECTION, REVIEW)]]
        for row in image_set_rows(folder, may_be_empty=True)
        if any(row.verdicts.get(name) for name in (READMISSION, REJECTION, REVIEW))
    ]


def _decide(folder: Path, decisions: Mapping[str, Decide]) -> list[ImageRow]:
    """Apply a decision to each of these images, given by name, or to none when one raises."""
    folder = Path(folder)
    with set_lock(folder), row_spool(folder) as rows:
        places: dict[str, int] = {}
        for row in image_set_rows(folder):
            places[row.name] = len(rows)
            rows.append(replace(row, verdicts=known_verdicts(folder, row) or dict(row.verdicts)))
        chosen = {_named(folder, places, file): decide for file, decide in decisions.items()}
        changed = {}
        for name, decide in chosen.items():
            row = rows[places[name]]
            verdicts = {**decide(row), "image": content_key(file_digest(folder / row.file))}
            changed[name] = replace(row, verdicts=verdicts)
        for name, row in changed.items():
            keep_verdicts(folder, row, row.verdicts)
            rows[places[name]] = row
        move_all(folder, {row.name: True for row in changed.values() if row.accepted is None})
        settle(folder, rows)
    return [replace(row, file=current_place(folder, row.file)) for row in changed.values()]


def _rejected(before: Mapping[str, Any], more: Mapping[str, Any], **why: str) -> dict[str, Any]:
    """Verdicts with a person's rejection; an earlier readmission is over."""
    known = {name: value for name, value in before.items() if name != READMISSION}
    base = {"accepted": True, "reasons": [], **before}
    return with_decisions(base, {**known, **more, REJECTION: {**_today(), **why}})


def _without_rejection(before: Mapping[str, Any]) -> dict[str, Any]:
    """Verdicts without a person's rejection, and without the review that it came from."""
    gone = {REJECTION} | ({REVIEW} if before.get(REVIEW, {}).get("verdict") == SAME else set())
    left = {name: value for name, value in before.items() if name not in gone}
    return with_decisions(before, left) if _judged(before) else {}


def _judged(verdicts: Mapping[str, Any]) -> bool:
    """Whether a filter has seen the image; a person's decision alone is no verdict of a filter."""
    return bool({"artifacts", "identity"} & verdicts.keys())


def _today() -> dict[str, str]:
    return {"by": _BY, "date": datetime.now(UTC).date().isoformat()}


def _named(folder: Path, names: Collection[str], file: str) -> str:
    name = name_of(file)
    if name not in names:
        by_shown = {shown(known): known for known in names}
        name = by_shown.get(name, name_of(file.replace("\\", "/")))
    if name not in names:
        raise UserError(f"{folder} has no image {file!r}; its rejected ones lie in {folder / REJECTED}")
    return name


def _pair(pair: Any, path: Path) -> ReviewedPair:
    try:
        found = ReviewedPair(**pair)
        known = found.verdict in SAID and isinstance(found.image, str)
        similarity = float(found.similarity)
    except (TypeError, ValueError):
        known, similarity = False, 0.0
    if not known:
        raise UserError(f"a pair in {path} can't be read; {_NO_REVIEW}")
    return replace(found, similarity=similarity)
