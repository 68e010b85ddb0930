"""The filters as a stage of a run: every condition's set, and the report's part `filters`."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ..faces.analyzer import FaceAnalyzer
from ..faces.references import read_references
from ..prompts import PlanRow
from .apply import filter_set
from .artifacts import ArtifactFilter
from .identity import THRESHOLD, IdentityFilter
from .photographs import photograph_verdicts
from .refill import ATTEMPTS, refill_set
from .sets import read_set_rows
from .summary import filter_summary, photographs_summary

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
        found[name] = filter_summary(read_set_rows(folder))
        if name in datasets:
            verdicts = photograph_verdicts(datasets[name], artifacts, analyzer)
            found[name]["training_photographs"] = photographs_summary(verdicts)
    return found
