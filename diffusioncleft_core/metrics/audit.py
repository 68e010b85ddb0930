"""The leak audit of all measured sets: threshold, attacks, controls and residual risk, by group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..dataset.references import ReferenceSet
from ..faces.analyzer import FacePack
from ..statistics import Proportion, residual
from .faces import MeasuredFaces
from .fir import share_as_json
from .gallery import Gallery, gallery_of, side_by_side
from .leak import NO_CONTROL, bounded_by_unassessed, leak_figures
from .sets import ALL, Group, Mask, Population
from .threshold import FALSE_MATCH_RATE, AuditThreshold, audit_threshold

AUDIT_VERSION = 2
"""Raised whenever a figure of the audit changes: sets that a run has measured are then measured again."""


def audit_figures(
    population: Population,
    faces: MeasuredFaces,
    pack: FacePack,
    rate: float = FALSE_MATCH_RATE,
    suffix: str = "",
) -> dict[str, Any]:
    """The leak audit of every group, at the threshold of this false-match rate a pair: see `leak`.

    suffix: of the metrics' names, for a second recogniser.
    """
    known = faces.references
    if known is None:
        return {"sets": {}, "threshold": None}
    threshold = threshold_of(faces, known, pack, rate)
    sets: dict[str, Any] = {}
    for group in population.groups:
        found: dict[str, Any] = {}
        for variant, mask in group.variants().items():
            generated, gallery = compared(population, group, mask & faces.generated.found, faces, known)
            counts = entered(mask, faces)
            figures = leak_figures(generated, gallery, threshold, counts, filtered=variant == "filtered")
            for metric, figure in figures.items():
                if metric == "residual_risk":
                    figure = bounded_by_unassessed(figure)
                variants = figure if metric == "leak_control" else {variant: figure}
                found.setdefault(f"{metric}{suffix}", {"robust": {}})["robust"] |= variants
        sets[group.name] = found
    return {"sets": sets, "threshold": threshold.as_json() | {"extractor": faces.extractor}}


def threshold_of(
    faces: MeasuredFaces, known: ReferenceSet, pack: FacePack, rate: float = FALSE_MATCH_RATE
) -> AuditThreshold:
    """The audit's threshold. Pairs are of the condition with the most photographs alone: two datasets may
    show the same people under other names.
    """
    names = list(dict.fromkeys(known.conditions))
    largest = max(names, key=lambda name: len(known.index(name)))
    gallery = gallery_of(largest, known, faces.holdout, None)
    both = np.concatenate([gallery.train.faces, gallery.holdout.faces])
    people = [*gallery.train.subjects, *(f"held out {name}" for name in gallery.holdout.subjects)]
    return audit_threshold(pack, faces.extractor["sha256"], (both, people), faces.control, rate)


def compared(
    population: Population, group: Group, mask: Mask, faces: MeasuredFaces, known: ReferenceSet
) -> tuple[NDArray[np.float32], Gallery]:
    """The faces [M, D] of some images of a group, and their gallery: each condition's images are compared
    with its own photographs.
    """
    conditions = [
        part.name for part in population.groups if part.name in known.conditions and part.name != ALL
    ]
    names = conditions if group.name == ALL and conditions else [group.shows]
    shown = np.array([image.condition for image in population.images], object)
    parts = [
        (
            faces.generated.embeddings[mask & ((shown == name) | (len(names) == 1))],
            gallery_of(name, known, faces.holdout, faces.control),
        )
        for name in names
    ]
    return side_by_side(parts) if len(parts) > 1 else parts[0]


def entered(mask: Mask, faces: MeasuredFaces) -> dict[str, Any]:
    """How many images [N] stand behind a figure, and how many could not enter."""
    found = faces.generated
    return {
        "n_images": int((mask & found.found).sum()),
        "n_unreadable": int((mask & found.unreadable).sum()),
        "n_no_face": int((mask & ~found.found & ~found.unreadable).sum()),
        "n_several": int((mask & found.found & found.several).sum()),
        "extractor": faces.extractor,
    }


def copies_risk(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """`residual_copies` of a group: near copies beyond those among hold-out photographs; see `copies`."""
    found: dict[str, Any] = {}
    control = metrics.get("near_copies_control", {}).get("robust", {}).get("holdout")
    for variant, figure in metrics.get("near_copies", {}).get("robust", {}).items():
        kept = {key: value for key, value in figure.items() if key not in ("value", "ci95", "k", "note")}
        if control is None or figure["value"] is None:
            attack = {key: figure[key] for key in ("value", "ci95", "k", "n")}
            alone = {"value": None, "ci95": None, "k": None, "attack": attack, "note": NO_CONTROL}
            found[variant] = kept | alone
            continue
        shares = [
            Proportion(item["value"], (item["ci95"][0], item["ci95"][1]), item["k"], item["n"])
            for item in (figure, control)
        ]
        beside = {
            "attack": share_as_json(shares[0]),
            "control": {"name": "holdout", **share_as_json(shares[1])},
        }
        note = {"note": figure["note"]} if figure.get("note") else {}
        found[variant] = {**kept, **share_as_json(residual(*shares)), **beside, **note}
    return {"residual_copies": {"robust": found}} if found else {}
