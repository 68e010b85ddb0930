"""The filters as a stage of a run: sets filtered and refilled, photographs counted."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..conditions.plan import PlanRow, made_again
from ..dataset.references import FACES_CACHE, dataset_records, read_references
from ..errors import UserError
from ..faces.analyzer import FaceAnalyzer
from ..files import private_dir, read_jsonl, write_jsonl
from ..imageset.decode import Rejected, read_image
from ..imageset.manifest import ImageRow, read_image_set
from ..imageset.places import first_index
from ..imageset.verdicts import combined
from ..progress import progress
from ..ranges import whole
from .apply import FilterResult, filter_set, settings_key
from .artifacts import ArtifactFilter, unreadable_verdict
from .identity import THRESHOLD, IdentityFilter
from .summary import filter_summary, photographs_summary

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
    """Fill the gaps that the filters left, round by round, at most `attempts` times for a row.

    generate: draws rows into the set; it is given the set's whole plan with the new rows at its end, because
    a generation writes the manifest of what it was asked for. check: filters the set again. An interrupted
    refill goes on: rows that were asked for and are not there are asked for again.
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


VERDICTS = "artifacts.jsonl"


def photograph_verdicts(
    dataset: Path, artifacts: ArtifactFilter, analyzer: FaceAnalyzer
) -> list[dict[str, Any]]:
    """The verdicts on the training photographs of `dataset`, in no order that means anything.

    Nothing is moved or changed. Verdicts are kept in the dataset's private cache, by the image's pixels and
    the filter's settings. What may be shown is `summary.photographs_summary` of them.
    """
    rows, records = dataset_records(dataset, analyzer)
    settings = settings_key(artifacts, None)
    place = private_dir(dataset / FACES_CACHE) / VERDICTS
    known = _known(place, settings)
    verdicts = []
    for row, record in progress(zip(rows, records, strict=True), "photographs", total=len(rows)):
        found = known.get(str(row.sha256))
        if found is None:
            try:
                image = read_image(dataset / row.file)
            except Rejected:
                found = combined(unreadable_verdict(), settings=settings)
            else:
                found = combined(artifacts.check(image, record), settings=settings)
            known[str(row.sha256)] = found
        verdicts.append(found)
    write_jsonl(place, ({"pixels": pixels, "verdicts": found} for pixels, found in known.items()))
    return sorted(verdicts, key=json.dumps)


def _known(place: Path, settings: str) -> dict[str, dict[str, Any]]:
    if not place.is_file():
        return {}
    try:
        rows = read_jsonl(place)
    except UserError:  # it can be made again
        return {}
    return {
        str(row["pixels"]): row["verdicts"]
        for row in rows
        if row.get("verdicts", {}).get("settings") == settings
    }


Generate = Callable[[list[PlanRow]], None]
"""Draws the rows of a plan that the set does not hold yet."""


def filter_sets(
    sets: Mapping[str, Path],
    datasets: Mapping[str, Path],
    analyzer: FaceAnalyzer,
    *,
    threshold: float = THRESHOLD,
    artifacts: ArtifactFilter | None = None,
    cache: Path | None = None,
    again: Mapping[str, Generate] | None = None,
    attempts: int = ATTEMPTS,
    warn: Callable[[str], None] = lambda message: None,
) -> dict[str, dict[str, Any]]:
    """Filter the generated set of each condition against the training photographs of ALL `datasets`.

    sets, datasets: folders by condition; cache: private folder for the face records of the generated images;
    again: by condition, how images are made in place of rejected ones (left out: none are), at most
    `attempts` times each; warn: told what can't be read or was not judged. Returns by condition what
    `summary.filter_summary` counts, and `training_photographs`: the same artifact filter over that
    condition's photographs, counts below five suppressed.
    """
    artifacts = artifacts or ArtifactFilter(analyzer)
    identity = IdentityFilter(read_references(list(datasets.values()), analyzer), threshold)
    found = {}
    for name, folder in sets.items():
        for message in filter_set(folder, artifacts, identity, analyzer, cache=cache).notices:
            warn(message)
        if again and name in again:
            check = partial(filter_set, folder, artifacts, identity, analyzer, cache=cache)
            refill_set(folder, again[name], check, attempts=attempts)
        found[name] = filter_summary(read_image_set(folder))
        if name in datasets:
            verdicts = photograph_verdicts(datasets[name], artifacts, analyzer)
            found[name]["training_photographs"] = photographs_summary(verdicts)
    return found
