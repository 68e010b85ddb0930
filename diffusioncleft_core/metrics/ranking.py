"""Several sets compared with the same photographs: their order, and which differences are beyond chance.

Distances and neighbourhoods of two sets share their photographs: the jackknife leaves the same ones out of
both, so what the choice of photographs does to both cancels out. (A bootstrap would repeat images, which
lowers a covariance's rank and makes an image its own neighbour: see `resampling`.) Shares of images, which
are counted against all photographs there are, and LPIPS, which needs none, differ as independent figures do.
How many differences are looked at is allowed for by Holm's method, a metric at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

from ..statistics import beyond_chance, chance_of, difference_interval
from .resampling import Estimate
from .sets import ALL

LOWER = {
    "fir_images": "paper",
    "leak_images": "robust",
    "fir_pairs": "robust",
    "near_copies": "robust",
    "fid": "paper",
    "fid_holdout": "robust",
    "kid": "robust",
    "kid_holdout": "robust",
}
"""Metrics of which less is better, with the profile that is compared."""
HIGHER = dict.fromkeys(("precision", "recall", "density", "coverage", "lpips_all_pairs"), "robust")
DISTANCES = ("", "_holdout", "_kid", "_kid_holdout")
"""What follows the name of a further extractor where less is better."""


def ranked_metrics(metrics: Mapping[str, Any]) -> dict[str, tuple[str, bool]]:
    """(profile, whether less is better) of the metrics of a set that can be ranked."""
    found = {name: (profile, True) for name, profile in LOWER.items() if name in metrics}
    found |= {name: (profile, False) for name, profile in HIGHER.items() if name in metrics}
    for name in metrics:
        if f"{name}_kid" in metrics and name not in found:  # a further extractor's Frechet distance
            for ending in DISTANCES:
                found[name + ending] = ("robust" if ending else "paper", True)
            for other in ("precision", "recall", "density", "coverage"):
                found[f"{name}_{other}"] = ("robust", False)
    return found


def rankings(
    sets: Mapping[str, Any], shows: Mapping[str, str], estimates: Mapping[str, Mapping[str, Estimate]]
) -> dict[str, Any]:
    """{condition: {metric: ranking}} of the raw sets that were compared with the same photographs.

    A ranking: {"profile", "lower_is_better", "sets": [{"name", "value", "ci95", "beside_best"}], the best
    first; "differences": [{"first", "second", "value", "ci95", "p", "beyond_chance"}]}. beside_best: whether
    the best set's lead over it could be chance.

    Args:
        sets: the figures, by set.
        shows: the condition whose photographs each set was compared with.
        estimates: by set and metric, where the jackknife made the interval.
    """
    found: dict[str, Any] = {}
    for condition in dict.fromkeys(shows.values()):
        names = [name for name in sets if shows.get(name) == condition]
        if condition == ALL and ALL in names and len(names) > 1:
            names.remove(ALL)  # the union of the others
        if len(names) < 2:
            continue
        metrics = ranked_metrics(sets[names[0]])
        ranked = {
            metric: ranking(
                {
                    name: figure
                    for name in names
                    if (figure := raw_figure(sets[name], metric, profile)) is not None
                },
                {name: estimates.get(name, {}).get(metric) for name in names},
                lower_is_better=lower,
            )
            | {"profile": profile}
            for metric, (profile, lower) in metrics.items()
        }
        found[condition] = {metric: part for metric, part in ranked.items() if len(part["sets"]) > 1}
    return found


def raw_figure(metrics: Mapping[str, Any], metric: str, profile: str) -> Mapping[str, Any] | None:
    """The figure of the raw set; None where there is no value."""
    figure: Mapping[str, Any] | None = metrics.get(metric, {}).get(profile, {}).get("raw")
    return figure if figure is not None and figure.get("value") is not None else None


def ranking(
    figures: Mapping[str, Mapping[str, Any]],
    estimates: Mapping[str, Estimate | None],
    *,
    lower_is_better: bool,
) -> dict[str, Any]:
    """The sets in order by one metric, and their differences; see `rankings`."""
    order = sorted(
        figures, key=lambda name: figures[name]["value"] if lower_is_better else -figures[name]["value"]
    )
    differences: list[dict[str, Any]] = []
    for first, second in combinations(order, 2):
        value, ci95 = difference(figures[first], figures[second], estimates.get(first), estimates.get(second))
        p = None if ci95 is None else chance_of(value, ci95)
        differences.append({"first": first, "second": second, "value": value, "ci95": ci95, "p": p})
    tested = [item for item in differences if item["p"] is not None]
    for item, beyond in zip(tested, beyond_chance([item["p"] for item in tested]), strict=True):
        item["beyond_chance"] = beyond
    behind = {item["second"] for item in tested if item["first"] == order[0] and item["beyond_chance"]}
    return {
        "lower_is_better": lower_is_better,
        "sets": [
            {
                "name": name,
                "value": figures[name]["value"],
                "ci95": figures[name].get("ci95"),
                "beside_best": name not in behind,
            }
            for name in order
        ],
        "differences": differences,
    }


def difference(
    first: Mapping[str, Any], second: Mapping[str, Any], one: Estimate | None, other: Estimate | None
) -> tuple[float, list[float] | None]:
    """`first` - `second` with its interval; None where one of them has no interval."""
    if one is not None and other is not None and len(one.photographs) == len(other.photographs):
        value, ends = one.less(other)
        return value, list(ends)
    value = first["value"] - second["value"]
    if not first.get("ci95") or not second.get("ci95"):
        return value, None
    return value, list(difference_interval(first["value"], first["ci95"], second["value"], second["ci95"]))
