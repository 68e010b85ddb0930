"""FID and LPIPS of a group of images, as the figures of the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .frechet import frechet_distance, split_floor
from .identity import NO_REFERENCE
from .image_sets import Group
from .kept import Perceptual
from .networks import INCEPTION_DIMENSIONS
from .sides import Side

SPLITS = 10
FEWEST_FOR_A_SPLIT = 20
SEEDED = "A seeded-random network computed this: the value says nothing about photographs."
PAPER_FID = "To the training images, as in the paper: copies of them would lower it."
SMALL_FID = "Fewer images than Inception has dimensions: the distance is biased upwards, more so the fewer."
TOO_FEW = "It takes two images that can be read on each side."
NOT_PAIRED = "It takes two images that can be read."
FLOOR = "Random halves of the training images against each other; smaller sets than the others, so larger."
REFERENCE_SIZE = "The training images at the generated images' size, over all pairs."


def frechet_figures(
    group: Group, side: Side, real: Side, extractor: dict[str, Any], seed: int
) -> dict[str, Any]:
    """`fid` of a group against its training photographs, and `fid_floor`."""
    photographs = rows_of(real, group.name)
    figures: dict[str, Any] = {"fid": {"paper": {}}}
    for variant, mask in group.variants().items():
        images = finite(side, mask)
        value = None
        if len(images) >= 2 and len(photographs) >= 2:
            value = frechet_distance(images, photographs)
        figures["fid"]["paper"][variant] = {
            "value": value,
            "ci95": None,
            "n": len(images),
            "n_images": len(images),
            "n_reference": len(photographs),
            "n_unreadable": side.unreadable(mask),
            "extractor": extractor,
            "note": frechet_note(value, len(images), len(photographs), extractor),
        }
    if len(photographs) >= FEWEST_FOR_A_SPLIT:
        values = split_floor(photographs, SPLITS, seed)
        figures["fid_floor"] = {
            "robust": {
                "real": {
                    "value": float(np.mean(values)),
                    "ci95": None,
                    "range": [min(values), max(values)],
                    "n": len(photographs) // 2,
                    "n_images": len(photographs),
                    "n_reference": len(photographs),
                    "n_unreadable": 0,
                    "extractor": extractor,
                    "note": noted(extractor, FLOOR),
                }
            }
        }
    return figures


def frechet_note(value: float | None, n: int, n_reference: int, extractor: Mapping[str, Any]) -> str:
    if value is None:
        return TOO_FEW if n_reference else NO_REFERENCE
    said = [PAPER_FID]
    if min(n, n_reference) < INCEPTION_DIMENSIONS:
        said.append(SMALL_FID)
    return noted(extractor, " ".join(said))


def perceptual_figures(
    group: Group, side: Side, real: Side, extractor: dict[str, Any], pairs: int
) -> dict[str, Any]:
    """`lpips`, `lpips_all_pairs` and, where there are photographs, `lpips_reference`."""
    figures: dict[str, Any] = {"lpips": {"paper": {}}, "lpips_all_pairs": {"robust": {}}}
    for variant in group.variants():
        found, shared = perceptual_of(side, f"{group.name}.{variant}", extractor)
        figures["lpips"]["paper"][variant] = {"value": found.pairs_mean, "n": found.n_pairs, **shared}
        n = found.n_images * (found.n_images - 1) // 2
        figures["lpips_all_pairs"]["robust"][variant] = {"value": found.all_pairs_mean, "n": n, **shared}
    if real.features is not None and group.name in real.features.lpips:
        found, shared = perceptual_of(real, group.name, extractor)
        n = found.n_images * (found.n_images - 1) // 2
        shared["note"] = noted(extractor, REFERENCE_SIZE)
        shared["n_reference"] = found.n_images
        figures["lpips_reference"] = {"robust": {"real": {"value": found.all_pairs_mean, "n": n, **shared}}}
    return figures


def perceptual_of(side: Side, name: str, extractor: dict[str, Any]) -> tuple[Perceptual, dict[str, Any]]:
    """LPIPS of one set, and what its figures have in common."""
    features = side.features
    assert features is not None
    found = features.lpips.get(name, Perceptual(None, 0, None, 0))
    mask = next(m for g in side.groups for v, m in g.variants().items() if name in (g.name, f"{g.name}.{v}"))
    shared = {
        "ci95": None,
        "n_images": found.n_images,
        "n_reference": None,
        "n_unreadable": int(mask.sum()) - found.n_images,
        "image_size": list(features.size) if features.size else None,
        "n_resized": features.n_resized.get(name, 0),
        "extractor": extractor,
        "note": noted(extractor, "") if found.n_images >= 2 else NOT_PAIRED,
    }
    if not shared["note"]:
        del shared["note"]
    return found, shared


def noted(extractor: Mapping[str, Any], note: str) -> str:
    """`note`, after the warning that a seeded-random network computed the value."""
    return " ".join(filter(None, [SEEDED if extractor["phantom"] else "", note]))


def rows_of(side: Side, name: str) -> NDArray[np.float32]:
    """Inception's features [n, 2048] of one condition's photographs, or of all."""
    masks = {group.name: group.raw for group in side.groups}
    if name not in masks:
        return np.zeros((0, INCEPTION_DIMENSIONS), np.float32)
    return finite(side, masks[name])


def finite(side: Side, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Inception's features [n, 2048] of the images of `mask` that could be decoded."""
    assert side.features is not None
    assert side.features.inception is not None
    rows = side.features.inception[mask]
    return rows[~np.isnan(rows[:, 0])]
