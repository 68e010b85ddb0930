"""The report's `sets` and `figures`: what the generated sets are worth beside the training photographs.

`measure_sets` returns {"sets": ..., "figures": ...}; JSON values only, nothing that names a photograph.

sets.<pre_op|post_op|all>.<metric>.<profile>.<variant> is a Figure, or a list of sweep rows:

    metric           profile  variant        what
    fir_pairs        paper    raw, filtered  share of generated x training pairs of the condition at or above
                                             the threshold ("all": of every condition)
    fir_images       paper    raw, filtered  share of generated images with such a pair
    fir_images_any   paper    raw, filtered  the same against the training images of every condition
    fir_sweep        paper    raw, filtered  list of {"threshold": 0.3, "pairs": {"value", "ci95", "k", "n"},
                                             "images": {...}} for 0.30, 0.35 ... 0.70
    fid              paper    raw, filtered  Frechet distance to the training images
    lpips            paper    raw, filtered  mean over 2,000 random pairs
    lpips_all_pairs  robust   raw, filtered  mean over all pairs, exact
    lpips_reference  robust   real           the training images' own LPIPS, over all pairs
    fid_floor        robust   real           training images against training images, mean over random halves
    fir_control_pairs, fir_control_images
                     robust   holdout        hold-out photographs against the training images: what faces of
                                             other people score

`filtered` is there only when the set went through the filters. A Figure:

    value         float, a proportion from 0 to 1 for fir_*; null where it could not be measured
    ci95          [low, high] or null (Clopper-Pearson for fir_*)
    k             fir_* only: how many were at or above the threshold
    n             what the value is a mean or a share of: pairs (fir_pairs, lpips*), images (the others)
    n_images      images of the set that entered
    n_reference   training photographs that entered (with a face for fir_*), null where none are needed
    n_unreadable  images set aside because they are damaged
    n_no_face, n_several
                  fir_* only: images without a face (they did not enter) and with several (the largest did)
    threshold     fir_* only
    image_size    lpips* only: [width, height] in px at which images were compared; n_resized: how many were
                  brought to it
    range         fid_floor only: [smallest, largest] of the halvings
    extractor     {"name", "sha256", "phantom": bool, "licence"}; phantom: the figure says nothing about
                  photographs, and whoever shows it must say so
    note          one sentence for the reader, or absent

figures.similarity.<pre_op|post_op|all>.<raw|filtered> = {"edges": [n + 1 cosines from -1 to 1],
    "counts": [n], "mean": float, "threshold": 0.6, "n_pairs": int, "extractor": {...}}; counts and mean are
    null with fewer than 5 training photographs.
figures.pca = null, or {
    "explained": [a, b]             shares of the variance,
    "edges_x": [m + 1], "edges_y": [m + 1],
    "real": {condition: [m][m] counts, first index x; every cell under 5 photographs is null},
    "n_real": {condition: n}        (n under 5 is null),
    "generated": {condition: [[x, y], ...]}, the raw set,
    "control": [[x, y], ...] or null (points of a synthetic control set only; photographs never),
    "control_counts": [m][m] counts as in "real", or null,
    "n_control": n                  (photographs under 5: null),
    "spread": {"real" | "generated" | "control": {condition ("control" for the control): float}}, root mean
        square distance from the group's own mean in all 512 dimensions (0: one face, towards 1: all differ),
    "overlap": {condition: float}, shared area of the real and the generated histogram on the grid, 0 to 1,
    "extractor": {...}, "note": str}
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..dataset.folder import SETTINGS, require_dataset
from ..errors import UserError
from ..files import read_json
from ..ranges import COSINE, COUNT
from .extractors import INCEPTION_DIMENSIONS
from .faces import measure_identity
from .features import Extractors
from .fid import frechet_distance, split_floor
from .fir import NO_REFERENCE, PAPER_THRESHOLD
from .groups import Group
from .kept import Perceptual
from .lpips import PAPER_PAIRS
from .sides import Side, Warn, generated_side, with_features

if TYPE_CHECKING:
    from ..faces.analyzer import FaceAnalyzer

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


def measure_sets(
    generated: Mapping[str, Path],
    references: Sequence[Path],
    analyzer: FaceAnalyzer | None,
    extractors: Extractors,
    *,
    cache_dir: Path | None = None,
    control: Path | None = None,
    threshold: float = PAPER_THRESHOLD,
    pairs: int = PAPER_PAIRS,
    seed: int = 0,
    warn: Warn = lambda message: None,
) -> dict[str, Any]:
    """Measure generated sets beside the training photographs; the result is described above.

    generated: folder by condition ("all": images of no one condition); references: dataset folders, whose
    conditions their manifests name, none when there are no photographs; analyzer: None leaves FIR and the
    face figures out; extractors: what is None in it leaves FID or LPIPS out.
    cache_dir: private folder for what is computed from the generated images (default: `.measure` in each
    set, for faces the filters' own folder in each); what comes from photographs stays in their datasets,
    each in its own. control: a folder of other faces for the plane.
    Raises UserError for folders that are none, and when every set is empty.
    """
    COSINE.check(threshold, "the threshold")
    COUNT.check(pairs, "the number of pairs")
    refuse_photographs(references, extractors)
    warn = functools.cache(warn)  # both passes meet the same damaged images
    side = generated_side(generated, warn)
    figures: dict[str, Any] = {"similarity": {}, "pca": None}
    sets: dict[str, Any] = {group.name: {} for group in side.groups}
    if analyzer is not None:
        identity = measure_identity(side, references, analyzer, cache_dir, control, threshold, warn)
        for name, metrics in identity["sets"].items():
            sets[name] |= metrics
        figures = identity["figures"]
    if extractors.inception is None and extractors.perceptual is None:
        return {"sets": sets, "figures": figures}
    side, real = with_features(side, references, extractors, cache_dir, pairs, seed, warn)
    for group in side.groups:
        if extractors.inception is not None:
            sets[group.name] |= frechet_figures(group, side, real, extractors.inception.info.as_json(), seed)
        if extractors.perceptual is not None:
            info = extractors.perceptual.info.as_json()
            sets[group.name] |= perceptual_figures(group, side, real, info, pairs)
    return {"sets": sets, "figures": figures}


def refuse_photographs(references: Sequence[Path], extractors: Extractors) -> None:
    """Raise UserError where networks without real weights would measure photographs."""
    networks = [network for network in (extractors.inception, extractors.perceptual) if network is not None]
    if not any(network.info.phantom for network in networks):
        return
    for folder in references:
        described = read_json(folder / SETTINGS) if (require_dataset(folder) / SETTINGS).is_file() else {}
        if not described.get("settings", {}).get("phantom", False):
            raise UserError(
                f"{folder} holds photographs, and seeded-random networks are for phantoms alone; "
                "leave --phantom out (diffusioncleft weights list shows what is then needed)"
            )
