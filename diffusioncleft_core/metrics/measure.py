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

from ..dataset.folder import SETTINGS, require_dataset
from ..errors import UserError
from ..files import read_json
from ..ranges import COSINE, COUNT
from .distances import frechet_figures, perceptual_figures
from .face_pass import measure_identity
from .features import Extractors
from .fir import PAPER_THRESHOLD
from .perceptual import PAPER_PAIRS
from .sides import Warn, generated_side, with_features

if TYPE_CHECKING:
    from ..faces.analyzer import FaceAnalyzer


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
