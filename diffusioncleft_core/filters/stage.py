"""The filters as a stage of a run: sets filtered and refilled, and what is counted of them."""

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..cluster.work import HERE, Engine
from ..conditions.loader import load_vocabulary
from ..conditions.plan import made_again
from ..conditions.plan_rows import Plan, PlanRow
from ..dataset.folder import dataset_cache
from ..dataset.references import FACES_CACHE, dataset_records
from ..imageset.cache import ContentCache, entry_key
from ..imageset.decode import Rejected, read_image
from ..imageset.manifest import ImageRow, Reread, filtered, filtered_rows, image_set_rows
from ..imageset.places import first_index
from ..progress import progress
from ..ranges import whole
from ..small_counts import FEWEST, told
from .apply import FilterResult, filter_set
from .artifacts import ARTIFACTS, NO_FACE, UNREADABLE, ArtifactFilter
from .decisions import review_counts
from .identity import IDENTITY_LEAK, LEAKS, NEAR_COPY_LEAK
from .verdicts import PERSON, READMISSION, REVIEW, Filters

REASONS = {
    NO_FACE: "No face (unassessed)",
    **{kind.name: kind.title for kind in ARTIFACTS.values()},
    IDENTITY_LEAK: "Too like a training face",
    NEAR_COPY_LEAK: "Near copy of a training photograph",
    UNREADABLE: "Damaged file",
    PERSON: "A person’s decision",
}
"""Every reason for which an image is rejected, and its title in reports."""


def filter_summary(rows: Collection[ImageRow] | Reread) -> dict[str, Any]:
    """Counts of one set's manifest rows.

    `n`, `accepted` and `rejected` are of the raw set (attempt 0), and so are `by_kind` (an image can have
    several reasons), `by_skin` and `by_age` ({value: {n, rejected}}); `unassessed` are rows that no filter
    has seen, `readmitted` those a person took back; `reviewed` counts the pairs a person looked at, by what
    was seen. `refill`: {made, accepted, attempts, filtered, missing},
    of the images made in place of rejected ones: `filtered` is the size of the filtered set, `missing` how
    many of the plan's rows have no accepted image. None when there are none.
    """
    groups_of = load_vocabulary().groups_of
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    reviewed: list[ImageRow] = []
    by_skin: dict[str, dict[str, int]] = {}
    by_age: dict[str, dict[str, int]] = {}
    for row in rows:
        counts["readmitted"] += READMISSION in row.verdicts
        reviewed += [row] if REVIEW in row.verdicts else []
        if not row.is_raw:
            counts["again"] += 1
            continue
        counts["n"] += 1
        counts["accepted"] += row.accepted is True
        counts["rejected"] += row.accepted is False
        reasons.update(row.reasons if row.accepted is False else ())
        groups = groups_of(row.attributes)
        _add(by_skin, groups["skin_tone"], row)
        _add(by_age, groups["age_group"], row)
    return {
        **{name: counts[name] for name in ("n", "accepted", "rejected")},
        "unassessed": counts["n"] - counts["accepted"] - counts["rejected"],
        "readmitted": counts["readmitted"],
        "reviewed": review_counts(reviewed),
        "by_kind": {kind: reasons[kind] for kind in [*REASONS, *sorted(set(reasons) - set(REASONS))]},
        "by_skin": dict(sorted(by_skin.items())),
        "by_age": dict(sorted(by_age.items())),
        "refill": _refill(rows, counts["n"]) if counts["again"] else None,
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


def _add(cells: dict[str, dict[str, int]], value: str | None, row: ImageRow) -> None:
    if value is not None:
        cell = cells.setdefault(value, {"n": 0, "rejected": 0})
        cell["n"] += 1
        cell["rejected"] += row.accepted is False


def _refill(rows: Collection[ImageRow] | Reread, raw: int) -> dict[str, int]:
    extra = [row for row in rows if not row.is_raw]
    whole = sum(1 for _ in filtered(rows))
    return {
        "made": len(extra),
        "accepted": len(filtered_rows(extra)),
        "attempts": max(row.attempt for row in extra),
        "filtered": whole,
        "missing": max(0, raw - whole),
    }


Generate = Callable[[Plan], None]
"""Draws the rows of a plan that the set does not hold yet."""
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
    generate: Generate,
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
    made, result, rows = 0, None, Reread(partial(image_set_rows, folder))
    for _ in range(attempts):
        wanted = rows_to_refill(rows, attempts)
        if not wanted:
            break
        whole = Plan(row.plan_row() for row in rows)
        for again in wanted:
            whole.append(again)
        generate(whole)
        made += len(wanted)
        result = check()
    return RefillResult(made, len(unfilled(rows)), result)


def rows_to_refill(rows: Collection[ImageRow] | Reread, attempts: int) -> list[PlanRow]:
    """The next attempt of every row of the plan without an accepted image, up to `attempts` of each."""
    wanting = unfilled(rows)
    tried = dict.fromkeys((row.index for row in wanting), 0)
    for row in rows:
        index = first_index(row.plan_row().index)
        if index in tried:
            tried[index] = max(tried[index], row.attempt)
    return [made_again(row, tried[row.index] + 1) for row in wanting if tried[row.index] < attempts]


def unfilled(rows: Collection[ImageRow] | Reread) -> list[PlanRow]:
    """Rows of the plan of which no attempt was accepted. Rows that no filter has seen count as filled.

    UserError for a set that was not generated.
    """
    wanting = {row.index: row.plan_row() for row in rows if row.is_raw and row.accepted is False}
    for row in rows:
        if row.accepted is not False:
            wanting.pop(first_index(row.plan_row().index), None)
    return list(wanting.values())


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
            try:
                found = filters.judge(read_image(dataset / row.file), record)
            except Rejected:
                found = filters.unread
            known.keep_value(key, found)
        verdicts.append(found)
    return sorted(verdicts, key=json.dumps)


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
        found[name] = filter_summary(Reread(partial(image_set_rows, folder)))
        if name in datasets:
            verdicts = photograph_verdicts(datasets[name], filters.artifacts)
            found[name]["training_photographs"] = photographs_summary(verdicts)
    return found
