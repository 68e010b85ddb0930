"""Counts of what the filters did: by kind, skin tone and age group; and of the training photographs."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..imageset.manifest import ImageRow, filtered_rows, raw_rows, rejected_rows
from .artifacts import ARTIFACTS, NO_FACE, UNREADABLE
from .identity import IDENTITY_LEAK

REASONS = {
    NO_FACE: "No face (unassessed)",
    **{kind.name: kind.title for kind in ARTIFACTS.values()},
    IDENTITY_LEAK: "Too like a training face",
    UNREADABLE: "Damaged file",
}
"""Every reason for which an image is rejected, and its title in reports."""
SMALLEST_CELL = 5
"""Counts of fewer real photographs than this are suppressed."""
AGE_GROUPS = {
    "baby": "baby",
    "girl": "child",
    "boy": "child",
    "kid": "child",
    "man": "adult",
    "woman": "adult",
}
"""Age group of the prompt's word for a person."""


def filter_summary(rows: Sequence[ImageRow]) -> dict[str, Any]:
    """Counts of one set's manifest rows.

    `n`, `accepted` and `rejected` are of the raw set (attempt 0), and so are `by_kind` (an image can have
    several reasons), `by_skin` and `by_age` ({value: {n, rejected}}); `unassessed` are rows that no filter
    has seen, `readmitted` those a person took back. `refill`: {made, accepted, attempts, filtered, missing},
    of the images made in place of rejected ones: `filtered` is the size of the filtered set, `missing` how
    many of the plan's rows have no accepted image. None when there are none.
    """
    raw = raw_rows(rows)
    rejected = rejected_rows(raw)
    counts = Counter(reason for row in rejected for reason in row.reasons)
    accepted = filtered_rows(raw)
    return {
        "n": len(raw),
        "accepted": len(accepted),
        "rejected": len(rejected),
        "unassessed": len(raw) - len(accepted) - len(rejected),
        "readmitted": sum("readmitted" in row.verdicts for row in rows),
        "by_kind": {kind: counts[kind] for kind in [*REASONS, *sorted(set(counts) - set(REASONS))]},
        "by_skin": _by_value(raw, lambda row: row.attributes.get("skin") or None),
        "by_age": _by_value(raw, lambda row: AGE_GROUPS.get(row.attributes.get("subject", ""))),
        "refill": _refill(rows),
    }


def photographs_summary(verdicts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts over training photographs: {n, by_kind}; a count of 1 to 4 photographs is None."""
    verdicts = list(verdicts)
    counts = Counter(reason for item in verdicts for reason in item.get("reasons", []))
    kinds = [kind for kind in REASONS if kind != IDENTITY_LEAK]
    return {
        "n": _suppressed(len(verdicts)),
        "by_kind": {kind: _suppressed(counts[kind]) for kind in kinds},
        "smallest_cell": SMALLEST_CELL,
    }


def _suppressed(count: int) -> int | None:
    return None if 0 < count < SMALLEST_CELL else count


def _by_value(rows: Sequence[ImageRow], value_of: Any) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        value = value_of(row)
        if value is None:
            continue
        cell = found.setdefault(value, {"n": 0, "rejected": 0})
        cell["n"] += 1
        cell["rejected"] += row.accepted is False
    return dict(sorted(found.items()))


def _refill(rows: Sequence[ImageRow]) -> dict[str, int] | None:
    extra = [row for row in rows if not row.is_raw]
    if not extra:
        return None
    filtered = len(filtered_rows(rows))
    return {
        "made": len(extra),
        "accepted": len(filtered_rows(extra)),
        "attempts": max(row.attempt for row in extra),
        "filtered": filtered,
        "missing": max(0, len(raw_rows(rows)) - filtered),
    }
