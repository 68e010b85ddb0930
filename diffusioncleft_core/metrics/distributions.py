"""Figures over an extractor's vectors: how near a generated set is to photographs, and how varied.

Each entry of `measure` that these functions fill is described there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..small_counts import FEWEST
from .features import PopulationFeatures
from .fid import frechet_distance, matched_sizes, split_floor
from .fir import NO_REFERENCE
from .kid import FEWEST as FEWEST_FOR_KID
from .kid import kernel_distance
from .prdc import NEIGHBOURS, manifold_scores, vendi_score
from .resampling import Estimate, grouped_jackknife
from .sets import ALL, Group

SPLITS = 10
FEWEST_FOR_A_SPLIT = 20
FEWEST_FOR_AN_INTERVAL = 10
"""Images a side: each tenth of them is left out once."""
FID = "fid"
ESTIMATE = "estimate"
"""In a figure that is being made; it does not get into the report."""
SEEDED = "A seeded-random network computed this: the value says nothing about photographs."
TO_TRAINING = "To the training images, as in the paper: copies of them would lower it."
SMALL_FID = "Fewer images than Inception has dimensions: the distance is biased upwards, more so the fewer."
TOO_FEW = "It takes {} images that can be read on each side."
FLOOR = "Random halves of the training images against each other, of the size that fid_matched compares."
MATCHED = (
    "As many generated images as half of the training images, against that half: read it beside fid_floor."
)
TO_HOLDOUT = "To photographs that were not trained on: copying the training images does not lower it."
UNBIASED = "Unbiased: about 0 for equal distributions, at any number of images."
NEIGHBOURHOODS = f"Neighbourhoods of {NEIGHBOURS}, of the training images and of the generated ones."
HOLDOUT_FLOOR = "Hold-out photographs against the training images: what other photographs score."
EFFECTIVE = "How many wholly different images the set amounts to, of n."

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Sides:
    """The vectors that one extractor gave: of a group's photographs, and the extractor itself.

    training, holdout: [N, D] of the group's photographs that could be read; holdout None where too few.
    """

    metric: str
    training: Vectors
    holdout: Vectors | None
    extractor: dict[str, Any]
    seed: int

    def name(self, figure: str) -> str:
        """`kid` over Inception, `dinov2_kid` over another extractor, whose Fréchet distance is `dinov2`."""
        if figure.startswith(FID):
            return self.metric + figure.removeprefix(FID)
        return figure if self.metric == FID else f"{self.metric}_{figure}"


def sides_of(
    metric: str,
    group: Group,
    real: PopulationFeatures,
    held: PopulationFeatures,
    extractor: dict[str, Any],
    seed: int,
) -> Sides:
    """A group's photographs. Of the hold-out nothing is told where it, or a condition of it, is too small."""
    names = [each.name for each in held.population.groups if group.shows in (each.name, ALL)]
    parts = [held.decoded(metric, held.population.mask(name)) for name in names if name != ALL]
    parts = [part for part in parts if len(part)]
    holdout = None
    if parts and all(len(part) >= FEWEST for part in parts):
        holdout = np.concatenate(parts)
    return Sides(metric, real.decoded(metric, real.population.mask(group.shows)), holdout, extractor, seed)


@dataclass(frozen=True)
class Distributions:
    """Figures by name, profile and variant; and those of the raw set by name, for their differences."""

    figures: dict[str, Any]
    estimates: dict[str, Estimate]


def distribution_figures(group: Group, drawn: PopulationFeatures, sides: Sides) -> Distributions:
    """Every figure over one extractor's vectors of a group."""
    figures: dict[str, Any] = {}
    estimates: dict[str, Estimate] = {}

    def add(name: str, profile: str, variant: str, figure: dict[str, Any] | None) -> None:
        if figure is not None:
            estimate = figure.pop(ESTIMATE, None)
            if estimate is not None and variant == "raw":
                estimates[sides.name(name)] = estimate
            figures.setdefault(sides.name(name), {}).setdefault(profile, {})[variant] = figure

    for variant, mask in group.variants().items():
        images = drawn.decoded(sides.metric, mask)
        shared = {
            "n": len(images),
            "n_images": len(images),
            "n_unreadable": int(mask.sum()) - len(images),
            "extractor": sides.extractor,
        }
        add("fid", "paper", variant, {**shared, **frechet_to(images, sides.training, sides, TO_TRAINING)})
        add("fid_matched", "robust", variant, matched_figure(images, sides, shared))
        add("kid", "robust", variant, {**shared, **kernel_to(images, sides.training, sides, UNBIASED)})
        if sides.holdout is not None:
            to = frechet_to(images, sides.holdout, sides, TO_HOLDOUT)
            add("fid_holdout", "robust", variant, {**shared, **to})
            to = kernel_to(images, sides.holdout, sides, f"{TO_HOLDOUT} {UNBIASED}")
            add("kid_holdout", "robust", variant, {**shared, **to})
        for name, figure in manifold_figures(images, sides).items():
            add(name, "robust", variant, {**shared, **figure})
        add("vendi", "robust", variant, {**shared, **vendi_of(images, sides)})
    for name, figure in photograph_figures(images_in_all(group, drawn, sides), sides).items():
        add(name, "robust", "holdout" if name.startswith("kid") else "real", figure)
    return Distributions(figures, estimates)


def images_in_all(group: Group, drawn: PopulationFeatures, sides: Sides) -> int:
    """How many images of the raw set entered."""
    return len(drawn.decoded(sides.metric, group.raw))


def frechet_to(images: Vectors, photographs: Vectors, sides: Sides, said: str) -> dict[str, Any]:
    """The Fréchet distance, its interval (at these sizes, its bias included) and its note."""
    enough = min(len(images), len(photographs)) >= 2
    value = frechet_distance(images, photographs) if enough else None
    small = min(len(images), len(photographs)) < images.shape[1]
    note = noted(sides.extractor, f"{said} {SMALL_FID}" if small else said)

    def statistic(a: Vectors, b: Vectors) -> NDArray[np.float64]:
        return np.array([frechet_distance(a, b)])

    estimates = [] if value is None else estimates_of([value], statistic, images, photographs, sides)
    return {
        "value": value,
        **with_interval(next(iter(estimates), None)),
        "n_reference": len(photographs),
        "note": note if enough else missing(photographs, 2),
    }


def kernel_to(images: Vectors, photographs: Vectors, sides: Sides, said: str) -> dict[str, Any]:
    """The kernel distance with its interval and note."""
    if min(len(images), len(photographs)) < FEWEST_FOR_KID:
        return {
            "value": None,
            "ci95": None,
            "n_reference": len(photographs),
            "note": missing(photographs, FEWEST_FOR_KID),
        }
    found = kernel_distance(images, photographs)
    return {
        "value": found.value,
        "ci95": list(found.ci95),
        ESTIMATE: found.estimate,
        "n_reference": len(photographs),
        "note": noted(sides.extractor, said),
    }


def matched_figure(images: Vectors, sides: Sides, shared: Mapping[str, Any]) -> dict[str, Any] | None:
    """Generated images against halves of the training images, as many as `fid_floor` has on each side."""
    size = matched_sizes(len(images), len(sides.training))
    if len(sides.training) < FEWEST_FOR_A_SPLIT or size < 2:
        return None
    rng = np.random.default_rng(sides.seed)
    values = [
        frechet_distance(
            images[rng.permutation(len(images))[:size]],
            sides.training[rng.permutation(len(sides.training))[:size]],
        )
        for _ in range(SPLITS)
    ]
    return {
        **shared,
        "value": float(np.mean(values)),
        "ci95": None,
        "range": [min(values), max(values)],
        "n": size,
        "n_reference": len(sides.training),
        "note": noted(sides.extractor, MATCHED),
    }


def manifold_figures(images: Vectors, sides: Sides) -> dict[str, dict[str, Any]]:
    """Precision, recall, density and coverage beside the training images; a share for all but density."""
    names = ("precision", "recall", "density", "coverage")
    enough = min(len(images), len(sides.training)) > NEIGHBOURS
    if not enough:
        note = missing(sides.training, NEIGHBOURS + 1)
        empty = {"value": None, "ci95": None, "n_reference": len(sides.training), "note": note}
        return dict.fromkeys(names, empty)

    def statistic(a: Vectors, b: Vectors) -> NDArray[np.float64]:
        return manifold_scores(b, a).as_array()

    values = statistic(images, sides.training).tolist()
    estimates = estimates_of(values, statistic, images, sides.training, sides)
    return {
        name: {
            "value": value,
            **with_interval(estimate, top=None if name == "density" else 1.0),
            "n_reference": len(sides.training),
            "note": noted(sides.extractor, NEIGHBOURHOODS),
        }
        for name, value, estimate in zip(names, values, estimates, strict=True)
    }


def vendi_of(images: Vectors, sides: Sides) -> dict[str, Any]:
    """The Vendi score of a set of images."""
    return {
        "value": vendi_score(images) if len(images) else None,
        "ci95": None,
        "n_reference": None,
        "note": noted(sides.extractor, EFFECTIVE),
    }


def photograph_figures(n_generated: int, sides: Sides) -> dict[str, dict[str, Any]]:
    """What photographs score among themselves: without it no figure is good or bad."""
    training = sides.training
    shared = {"n_images": len(training), "n_unreadable": 0, "extractor": sides.extractor}
    figures: dict[str, dict[str, Any]] = {}
    size = matched_sizes(n_generated, len(training))
    if len(training) >= FEWEST_FOR_A_SPLIT and size >= 2:
        values = split_floor(training, SPLITS, sides.seed, size)
        figures["fid_floor"] = {
            **shared,
            "value": float(np.mean(values)),
            "ci95": None,
            "range": [min(values), max(values)],
            "n": size,
            "n_reference": len(training),
            "note": noted(sides.extractor, FLOOR),
        }
    if sides.holdout is not None and len(training) >= FEWEST_FOR_KID:
        figures["kid_floor"] = {
            **shared,
            "n": len(sides.holdout),
            **kernel_to(sides.holdout, training, sides, HOLDOUT_FLOOR),
        }
    if len(training) >= 2:
        figures["vendi_reference"] = {
            **shared,
            "n": len(training),
            **vendi_of(training, sides),
            "n_reference": len(training),
        }
    return figures


def estimates_of(
    values: list[float],
    statistic: Callable[..., NDArray[np.float64]],
    images: Vectors,
    photographs: Vectors,
    sides: Sides,
) -> list[Estimate | None]:
    """Each value with what the jackknife leaves of it, both sides' images left out by groups; None with too
    few for an interval.
    """
    if min(len(images), len(photographs)) < FEWEST_FOR_AN_INTERVAL:
        return [None] * len(values)
    left_out = grouped_jackknife(statistic, (images, photographs), sides.seed)
    return [Estimate(value, *without) for value, without in zip(values, left_out, strict=True)]


def with_interval(estimate: Estimate | None, top: float | None = None) -> dict[str, Any]:
    """The interval of a figure from 0 to `top`, and what its differences are taken from."""
    if estimate is None:
        return {"ci95": None}
    low, high = estimate.interval(low=0)
    return {"ci95": [low, high if top is None else min(high, top)], ESTIMATE: estimate}


def missing(photographs: Vectors, least: int) -> str:
    """Why there is no value."""
    return TOO_FEW.format(least) if len(photographs) else NO_REFERENCE


def noted(extractor: Mapping[str, Any], note: str) -> str:
    """`note`, after the warning that a seeded-random network computed the value."""
    return " ".join(filter(None, [SEEDED if extractor["phantom"] else "", note]))
