"""The features of a population: vectors, and LPIPS over random pairs and over all pairs of its sets.

Each image is decoded once, for all networks that still need it (`image_pass.py`). What an earlier call
computed is taken from the cache of the set that owns the image.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..cluster.work import HERE, Engine
from ..files import private_dir
from ..imageset.cache import ContentCache, entry_key
from ..imageset.decode import INGEST_VERSION
from ..outputs import can_write
from .extractors import SMALLEST_SIDE, Extractors, PerceptualFeatures
from .image_pass import FeatureCaches, ImagePass, Size
from .lpips import NO_MOMENTS, Moments, Pairs, Perceptual, draw_pairs, perceptual_pass
from .sets import Mask, MeasuredImage, Population

LPIPS, MOMENTS = "lpips", "moments"
_RESULT = 3
"""Version of what is kept of LPIPS' pairs."""
_KEPT_MOMENTS = 4
"""Sums of LPIPS' features that a folder keeps: each takes up to 50 MB at 768 px."""


@dataclass(frozen=True)
class PairSampling:
    """How LPIPS compares: size (width, height) in px; how many random pairs a set, 0: only the mean over all;
    the seed that draws them."""

    size: Size | None
    pairs: int
    seed: int = 0


@dataclass(frozen=True)
class PopulationFeatures:
    """What a pass found in a population."""

    population: Population
    vectors: Mapping[str, NDArray[np.float32]]
    """By extractor [N, D]; rows that are NaN belong to images that could not be decoded."""
    lpips: Mapping[str, Perceptual]
    """By set of images, as they were named in `members`."""
    size: Size | None
    """(width, height) in px at which LPIPS compared."""
    n_resized: Mapping[str, int]
    damaged: Mask
    """[N]: images that could not be decoded; of a population that nothing looks at none is tried."""

    def decoded(self, metric: str, mask: Mask) -> NDArray[np.float32]:
        """Vectors [n, D] of the images of `mask` that could be decoded."""
        rows = self.vectors[metric][mask]
        return rows[~np.isnan(rows[:, 0])]


def common_size(images: Sequence[MeasuredImage]) -> Size | None:
    """The most frequent (width, height), of ties the larger, scaled up to AlexNet's least where it is below.

    None when no image has a readable header.
    """
    sizes = Counter(image.size for image in images if image.size is not None)
    if not sizes:
        return None
    width, height = max(sizes, key=lambda size: (sizes[size], size))
    scale = max(1.0, SMALLEST_SIDE / min(width, height))
    return round(width * scale), round(height * scale)


def extract_features(
    population: Population,
    members: Mapping[str, Mask],
    extractors: Extractors,
    sampling: PairSampling,
    caches: FeatureCaches,
    description: str,
    engine: Engine = HERE,
) -> PopulationFeatures:
    """Vectors of all images, and LPIPS of the sets `members` (masks [N] over the images).

    engine: who computes the vectors: this process, or workers on Ray that see the same folders. LPIPS
    compares images with one another and stays in this process.
    """
    images, size = population.images, sampling.size
    worker = ImagePass(images, extractors, size, caches, description)
    lpips: dict[str, Perceptual] = {}
    with worker.bar, contextlib.closing(worker):
        if engine.elsewhere:
            worker.ask(engine)
        if extractors.perceptual is not None and size is not None:
            measure = _lpips_of_pairs if sampling.pairs else _lpips_of_all_pairs
            lpips = measure(worker, members, extractors.perceptual, sampling, caches)
        for place in worker.pending():
            worker.load(place)
        worker.flush()
        damaged = worker.damaged(members, lpips) if extractors else np.zeros(len(images), bool)
    resized_ones = {
        name: sum(images[place].size not in (None, size) for place in np.flatnonzero(mask).tolist())
        for name, mask in members.items()
    }
    return PopulationFeatures(population, worker.vectors, lpips, size, resized_ones, damaged)


def _lpips_of_pairs(
    worker: ImagePass,
    members: Mapping[str, Mask],
    network: PerceptualFeatures,
    sampling: PairSampling,
    caches: FeatureCaches,
) -> dict[str, Perceptual]:
    """The means over random pairs and over all pairs of each set, as kept or measured now."""
    pairs = draw_pairs(members, sampling.pairs, sampling.seed)
    kept = {name: _kept_result(worker, mask, pairs[name], network, caches) for name, mask in members.items()}
    lpips = {name: found for name, (cache, key) in kept.items() if (found := _read_result(cache, key))}
    left = {name: mask for name, mask in members.items() if name not in lpips}
    if left:
        wanted = sorted({(i, j) for name in left for i, j in pairs[name].tolist()})
        places = np.flatnonzero(np.logical_or.reduce(list(left.values())))
        owners = list(dict.fromkeys(worker.images[place].folder for place in places.tolist()))
        spill = caches.shared(owners)
        spill = private_dir(spill) if spill is not None and can_write(spill) else None
        measured = perceptual_pass(worker.phi, left, wanted, order=places.tolist(), spill=spill)
        for name in left:
            lpips[name] = measured.perceptual(name, pairs[name])
            cache, key = kept[name]
            cache.keep_value(key, asdict(lpips[name]))
    return {name: lpips[name] for name in members}


def _kept_result(
    worker: ImagePass, mask: Mask, pairs: Pairs, network: PerceptualFeatures, caches: FeatureCaches
) -> tuple[ContentCache, str]:
    """Where the LPIPS of one set is kept, and the key of all that it depends on."""
    inside = [worker.images[place] for place in np.flatnonzero(mask).tolist()]
    chosen = [[worker.images[i].sha256, worker.images[j].sha256] for i, j in pairs.tolist()]
    key = entry_key(_RESULT, [image.sha256 for image in inside], chosen, worker.size, *_depends_on(network))
    owners = list(dict.fromkeys(image.folder for image in inside))
    return ContentCache(caches.shared(owners), LPIPS), key


def _read_result(cache: ContentCache, key: str) -> Perceptual | None:
    try:
        value = cache.value(key)
        return None if value is None else Perceptual(**value)
    except TypeError:  # damaged
        return None


def _lpips_of_all_pairs(
    worker: ImagePass,
    members: Mapping[str, Mask],
    network: PerceptualFeatures,
    sampling: PairSampling,
    caches: FeatureCaches,
) -> dict[str, Perceptual]:
    """The mean over all pairs of each set, from sums kept by folder: sets of several folders add them up, so
    that nothing that comes from two is kept.
    """
    parts: dict[tuple[Path, tuple[bool, ...]], list[int]] = {}
    for place, image in enumerate(worker.images):
        inside = tuple(bool(mask[place]) for mask in members.values())
        if any(inside):
            parts.setdefault((image.folder, inside), []).append(place)
    kept = {part: ContentCache(caches.folder(part[0]), MOMENTS) for part in parts}
    keys = {
        part: entry_key([worker.images[i].sha256 for i in places], sampling.size, *_depends_on(network))
        for part, places in parts.items()
    }
    moments = {
        part: found
        for part, key in keys.items()
        if (found := Moments.from_tensors(kept[part].tensors(key))) is not None
    }
    left = {part: places for part, places in parts.items() if part not in moments}
    if left:
        everything = np.arange(len(worker.images))
        masks = {str(number): np.isin(everything, places) for number, places in enumerate(left.values())}
        order = sorted(place for places in left.values() for place in places)
        measured = perceptual_pass(worker.phi, masks, [], order=order).moments
        for part, name in zip(left, masks, strict=True):
            moments[part] = measured[name]
            kept[part].keep_tensors(keys[part], measured[name].to_tensors(), newest=_KEPT_MOMENTS)
    lpips = {}
    for index, name in enumerate(members):
        total = sum((moments[part] for part in parts if part[1][index]), NO_MOMENTS)
        lpips[name] = Perceptual(None, 0, total.all_pairs_mean(), total.n)
    return lpips


def _depends_on(network: PerceptualFeatures) -> tuple[int, str]:
    return INGEST_VERSION, network.info.sha256
