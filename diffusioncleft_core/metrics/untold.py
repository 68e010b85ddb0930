"""What a measurement must not tell, because a count of fewer than five photographs would follow from it.

Such counts are of a condition's training photographs, and of those among them without a face. They follow
from the numbers of pairs, from what the pairs' shares are rounded to, and from the union's counts less
another condition's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..small_counts import is_small, told
from .sets import ALL

UNTOLD = (
    "Not told: how many training photographs there are, or how many without a face, would follow from it."
)
PER = 1000
"""A histogram whose number of pairs is untold has counts of so many."""
PAIRED = ("fir_pairs", "fir_control_pairs")
SECOND = "_second"
"""How the names of a second recogniser's metrics end."""
AGAINST_ALL = ("fir_images_any", "near_copies", "residual_copies")
"""How the names of metrics against the photographs of all conditions begin."""
AUDITED = ("leak_", "residual_risk", "distance_ratio", "authenticity")
"""How the names of the leak audit's metrics begin. Their controls count photographs in fives."""
UNSEEN = "unseen"
"""The control whose value tells how many people there are to be found."""


def without_small_counts(
    measured: dict[str, Any],
    photographs: Mapping[str, int],
    faces: Mapping[str, int],
    shows: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """`measured` (see `measure`) without the counts that would tell of fewer than five photographs.

    photographs, faces: how many training photographs a condition has, and how many of them with a face.
    shows: a set's condition, by its name, where these differ.
    """
    shows = shows or {}
    few, faceless = small_counts(photographs, faces)
    sets = {name: dict(metrics) for name, metrics in measured["sets"].items()}
    figures = dict(measured["figures"])
    for own, metrics in sets.items():
        name = shows.get(own, own)
        for metric in list(metrics):
            if metric.startswith("fir_"):
                hides = touches(ALL if metric.startswith(AGAINST_ALL) else name, few | faceless)
                metrics[metric] = mapped(metrics[metric], face_figure, metric) if hides else metrics[metric]
            elif metric.startswith(AUDITED):
                if touches(name, few | faceless):
                    metrics[metric] = mapped(without_unseen(metrics[metric]), audit_figure)
            elif touches(ALL if metric.startswith(AGAINST_ALL) else name, few):
                metrics[metric] = mapped(metrics[metric], feature_figure, metric, name in few)
            elif metric == "lpips_reference":
                metrics[metric] = mapped(metrics[metric], with_told_defects)
    figures["similarity"] = {
        name: mapped_variants(variants) if touches(shows.get(name, name), few | faceless) else variants
        for name, variants in figures["similarity"].items()
    }
    if figures.get("pca"):
        real = figures["pca"]["n_real"]
        hidden = {name: None if name in few | faceless else n for name, n in real.items()}
        figures["pca"] = {**figures["pca"], "n_real": hidden}
    return {"sets": sets, "figures": figures}


def small_counts(photographs: Mapping[str, int], faces: Mapping[str, int]) -> tuple[set[str], set[str]]:
    """The conditions with few photographs, and with few of them without a face."""
    few = {name for name, n in photographs.items() if is_small(n)}
    return few, {name for name, n in faces.items() if is_small(photographs.get(name, n) - n)}


def seen_by_both(
    photographs: Mapping[str, int], faces: Mapping[str, int], others: Mapping[str, int]
) -> dict[str, int]:
    """`faces`, and where a second recogniser left few photographs without a face, what that found."""
    return {
        name: others.get(name, 0) if is_small(photographs[name] - others.get(name, 0)) else n
        for name, n in faces.items()
    }


def hides_counts(name: str, photographs: Mapping[str, int], faces: Mapping[str, int]) -> bool:
    """Whether counts of what is compared with a condition's photographs stay untold."""
    return touches(name, set.union(*small_counts(photographs, faces)))


def touches(name: str, hidden: Iterable[str]) -> bool:
    """Whether a group's counts tell of one of the conditions: it is the condition, or the union, or the
    photographs are everybody's.
    """
    return bool(set(hidden)) if name == ALL else name in hidden or ALL in hidden


def mapped(profiles: Mapping[str, Any], change: Any, *arguments: Any) -> dict[str, Any]:
    """The figures of one metric, by profile and variant, each changed."""
    return {
        profile: {variant: change(figure, *arguments) for variant, figure in variants.items()}
        for profile, variants in profiles.items()
    }


def face_figure(figure: Any, metric: str) -> Any:
    """FIR: shares of pairs stay untold, shares of images lose the number of photographs."""
    if metric == "fir_sweep":
        return [{**row, "pairs": {**row["pairs"], **no_share()}} for row in figure]
    hidden: dict[str, Any] = {"n_reference": None}
    return {
        **figure,
        **hidden,
        **({**no_share(), "note": UNTOLD} if metric.removesuffix(SECOND) in PAIRED else {}),
    }


def without_unseen(profiles: Mapping[str, Any]) -> dict[str, Any]:
    return {
        profile: {variant: figure for variant, figure in variants.items() if variant != UNSEEN}
        for profile, variants in profiles.items()
    }


def audit_figure(figure: Mapping[str, Any]) -> dict[str, Any]:
    """A figure of the audit without the number of photographs, and untold where it rests on `unseen`."""
    hidden = {"n_reference": None} if "n_reference" in figure else {}
    if (figure.get("control") or {}).get("name") != UNSEEN:
        return {**figure, **hidden}
    derived = dict.fromkeys(("could_be_missed", "upper_of_all", "attack", "control"))
    return {**figure, **hidden, **derived, **no_share(), "note": UNTOLD}


def no_share() -> dict[str, Any]:
    return {"value": None, "ci95": None, "k": None, "n": None}


def feature_figure(figure: dict[str, Any], metric: str, few: bool) -> dict[str, Any]:
    """FID and LPIPS: without the number of photographs; few: nothing of fewer than five alone."""
    if not metric.endswith(("_reference", "_floor")):
        return {**figure, "n_reference": None} if figure.get("n_reference") is not None else figure
    counts = ("n", "n_images", "n_reference", "n_unreadable", "n_resized")
    hidden: dict[str, Any] = {key: None for key in counts if key in figure}
    return {**figure, **hidden, **({"value": None, "note": UNTOLD} if few else {})}


def with_told_defects(figure: dict[str, Any]) -> dict[str, Any]:
    """The photographs' own LPIPS: how few of them were resized, or could not be read, stays untold."""
    told_ones = {
        key: told(figure[key]) for key in ("n_resized", "n_unreadable") if figure.get(key) is not None
    }
    if is_small(figure["n_images"] - (figure.get("n_resized") or 0)):
        told_ones["n_resized"] = None
    return {**figure, **told_ones}


def mapped_variants(variants: Mapping[str, Any]) -> dict[str, Any]:
    """Histograms as shares of a thousand, without the number of pairs."""
    return {variant: {**found, "n_pairs": None, **scaled(found)} for variant, found in variants.items()}


def scaled(found: Mapping[str, Any]) -> dict[str, Any]:
    total = sum(found["counts"] or [])
    return {"counts": [round(PER * n / total) for n in found["counts"]]} if total else {}
