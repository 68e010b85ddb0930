"""The filters as a stage of a run: sets filtered and refilled, and what is counted of them."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..cluster.work import HERE, Engine
from ..conditions.loader import load_vocabulary
from ..conditions.plan import made_again
from ..conditions.plan_rows import PlanRow
from ..dataset.folder import dataset_cache
from ..dataset.references import FACES_CACHE, dataset_records
from ..imageset.cache import ContentCache, entry_key
from ..imageset.manifest import ImageRow, filtered_rows, raw_rows, read_image_set, rejected_rows
from ..imageset.places import first_index
from ..progress import progress
from ..ranges import whole
from ..small_counts import FEWEST, told
from .apply import PERSON, FilterResult, Filters, filter_set
from .artifacts import ARTIFACTS, NO_FACE, UNREADABLE, ArtifactFilter
from .decisions import review_counts
from .identity import IDENTITY_LEAK, LEAKS, NEAR_COPY_LEAK

REASONS = {
    NO_FACE: "No face (unassessed)",
    **{kind.name: kind.title for kind in ARTIFACTS.values()},
    IDENTITY_LEAK: "Too like a training face",
    NEAR_COPY_LEAK: "Near copy of a training photograph",
    UNREADABLE: "Damaged file",
    PERSON: "A person’s decision",
}
"""Every reason for which an image is rejected, and its title in reports."""


def filter_summary(rows: Sequence[ImageRow]) -> dict[str, Any]:
    """Counts of one set's manifest rows.

    `n`, `accepted` and `rejected` are of the raw set (attempt 0), and so are `by_kind` (an image can have
    several reasons), `by_skin` and `by_age` ({value: {n, rejected}}); `unassessed` are rows that no filter
    has seen, `readmitted` those a person took back; `reviewed` counts the pairs a person looked at, by what
    was seen. `refill`: {made, accepted, attempts, filtered, missing},
    of the images made in place of rejected ones: `filtered` is the size of the filtered set, `missing` how
    many of the plan's rows have no accepted image. None when there are none.
    """
    raw = raw_rows(rows)
    vocabulary = load_vocabulary()
    rejected = rejected_rows(raw)
    counts = Counter(reason for row in rejected for reason in row.reasons)
    accepted = filtered_rows(raw)
    return {
        "n": len(raw),
        "accepted": len(accepted),
        "rejected": len(rejected),
        "unassessed": len(raw) - len(accepted) - len(rejected),
        "readmitted": sum("readmitted" in row.verdicts for row in rows),
        "reviewed": review_counts(rows),
        "by_kind": {kind: counts[kind] for kind in [*REASONS, *sorted(set(counts) - set(REASONS))]},
        "by_skin": _by_value(raw, lambda row: vocabulary.groups_of(row.attributes)["skin_tone"]),
        "by_age": _by_value(raw, lambda row: vocabulary.groups_of(row.attributes)["age_group"]),
        "refill": _refill(rows),
    }


def photographs_summary(verdicts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts over training photographs: {n, by_kind}; a count of 1 to 4 photographs is None."""
    verdicts = list(verdicts)
    counts = Counter(reason for item in verdicts for reason in item.get("reasons", []))
    kinds = [kind for kind in REASONS if kind not in (*LEAKS, PERSON)]
    return {
        "n": told(len(verdicts)),
        "by_kind": {kind: told(counts[kind]) for kind in kinds},
        "smallest_cell": FEWEST,
    }


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


ATTEMPTS = 3
ATTEMPTS_RANGE = whole(1, 20)


@dataclass(frozen=True)
class RefillResult:
    """`made`: images made again; `missing`: rows of the plan that still have no accepted image."""

    made: int
    missing: int
    filtered: FilterResult | None


def refill_set(
    folder: Path,
    generate: Callable[[list[PlanRow]], None],
    check: Callable[[], FilterResult],
    *,
    attempts: int = ATTEMPTS,
) -> RefillResult:
    """Fill the gaps that the filters left, round by round.

    An interrupted refill goes on: rows that were asked for and are not there are asked for again.

    Args:
        folder: a generated and filtered set.
        generate: draws rows into the set; it is given the set's whole plan with the new rows at its end,
            because a generation writes the manifest of what it was asked for.
        check: filters the set again.
        attempts: at most so many for a row.
    """
    ATTEMPTS_RANGE.check(attempts, "attempts")
    made, result = 0, None
    for _ in range(attempts):
        rows = read_image_set(folder)
        wanted = rows_to_refill(rows, attempts)
        if not wanted:
            break
        generate([*(row.plan_row() for row in rows), *wanted])
        made += len(wanted)
        result = check()
    return RefillResult(made, len(unfilled(read_image_set(folder))), result)


def rows_to_refill(rows: Sequence[ImageRow], attempts: int) -> list[PlanRow]:
    """The next attempt of every row of the plan without an accepted image, up to `attempts` of each."""
    wanting = unfilled(rows)
    tried: dict[int, int] = {}
    for row in rows:
        index = first_index(row.plan_row().index)
        tried[index] = max(tried.get(index, 0), row.attempt)
    return [made_again(row, tried[row.index] + 1) for row in wanting if tried[row.index] < attempts]


def unfilled(rows: Sequence[ImageRow]) -> list[PlanRow]:
    """Rows of the plan of which no attempt was accepted. Rows that no filter has seen count as filled.

    UserError for a set that was not generated.
    """
    filled = {first_index(row.plan_row().index) for row in rows if row.accepted is not False}
    return [row.plan_row() for row in rows if row.is_raw and row.index not in filled]


VERDICTS = "artifacts"


def photograph_verdicts(dataset: Path, artifacts: ArtifactFilter) -> list[dict[str, Any]]:
    """The verdicts on the training photographs of `dataset`, in no order that means anything.

    Nothing is moved or changed. Verdicts are kept in the dataset's private cache, by the image's pixels and
    the filter's settings. What may be shown is `summary.photographs_summary` of them.
    """
    filters = Filters(artifacts)
    if filters.analyzer is None:
        raise ValueError("photographs are judged by a filter that looks for faces")
    rows, records = dataset_records(dataset, filters.analyzer)
    known = ContentCache(dataset_cache(dataset, FACES_CACHE), VERDICTS)
    verdicts = []
    for row, record in progress(zip(rows, records, strict=True), "photographs", total=len(rows)):
        key = entry_key(row.sha256, filters.key)
        found = known.value(key)
        if found is None:
            found = filters.judge(dataset / row.file, record)
            known.keep_value(key, found)
        verdicts.append(found)
    return sorted(verdicts, key=json.dumps)


Generate = Callable[[list[PlanRow]], None]
"""Draws the rows of a plan that the set does not hold yet."""


@dataclass(frozen=True)
class Refill:
    """How images are made in place of rejected ones: by condition, at most `attempts` times for a row."""

    draw: Mapping[str, Generate]
    attempts: int = ATTEMPTS


def filter_sets(
    sets: Mapping[str, Path],
    datasets: Mapping[str, Path],
    filters: Filters,
    *,
    cache: Path | None = None,
    refill: Refill | None = None,
    warn: Callable[[str], None] = lambda message: None,
    engine: Engine = HERE,
) -> dict[str, dict[str, Any]]:
    """Filter the generated set of each condition.

    Args:
        sets: folders of generated images by condition.
        datasets: folders of training photographs by condition.
        filters: the same for every set; identity leaks are looked for among the photographs of ALL datasets.
        cache: private folder for the face records of generated images.
        refill: how images are made in place of rejected ones; None: none are.
        warn: told what can't be read or was not judged.
        engine: who looks and judges.

    Returns:
        By condition what `filter_summary` counts, and `training_photographs`: the same artifact filter over
        that condition's photographs, counts below five suppressed.
    """
    found = {}
    for name, folder in sets.items():
        check = partial(filter_set, folder, filters, cache=cache, engine=engine)
        for message in check().notices:
            warn(message)
        if refill and name in refill.draw:
            refill_set(folder, refill.draw[name], check, attempts=refill.attempts)
        found[name] = filter_summary(read_image_set(folder))
        if name in datasets:
            verdicts = photograph_verdicts(datasets[name], filters.artifacts)
            found[name]["training_photographs"] = photographs_summary(verdicts)
    return found
