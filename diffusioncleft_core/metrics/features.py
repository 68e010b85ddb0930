"""One pass over the images of a population: each is decoded once, for all extractors that still need it.

What an earlier call computed is taken from the cache of the set that owns the image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..cluster.work import HERE, Engine, SetAside, Work, builder
from ..dataset.folder import is_dataset, owned_cache
from ..files import private_dir
from ..imageset.cache import ContentCache, entry_key
from ..imageset.decode import INGEST_VERSION
from ..outputs import can_write
from ..progress import progress
from .extractors import SMALLEST_SIDE, Extractors, PerceptualFeatures, resized
from .lpips import NO_MOMENTS, Moments, Pairs, Perceptual, draw_pairs, perceptual_pass
from .sets import Mask, MeasuredImage, Population

if TYPE_CHECKING:
    import torch

BATCH = 16
OWN_CACHE = ".measure"
"""In a generated set: what was computed from its images, for its owner alone."""
DATASET_CACHE = "features"
"""In a dataset's cache: erased with it, and whenever a photograph is withdrawn."""
VECTORS, LPIPS, MOMENTS = "vectors", "lpips", "moments"
_RESULT = 3
"""Version of what is kept of LPIPS' pairs."""
_KEPT_MOMENTS = 4
"""Sums of LPIPS' features that a folder keeps: each takes up to 50 MB at 768 px."""

Size = tuple[int, int]


@dataclass(frozen=True)
class FeatureCaches:
    """Where features are kept: with the set that owns the image.

    cache_dir: a private folder in the place of a generated set's own; a dataset's features never lie there.
    """

    cache_dir: Path | None = None

    def folder(self, owner: Path) -> Path | None:
        """The place for what comes from images of one set."""
        return owned_cache(owner, DATASET_CACHE, self.cache_dir or owner / OWN_CACHE)

    def shared(self, owners: Sequence[Path]) -> Path | None:
        """The place for what comes from images of all these sets; None as soon as a dataset is among them."""
        several = len(owners) > 1 and any(map(is_dataset, owners))
        return None if several or not owners else self.folder(owners[0])


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

    def decoded(self, metric: str, mask: Mask) -> NDArray[np.float32]:
        """Vectors [n, D] of the images of `mask` that could be decoded."""
        rows = self.vectors[metric][mask]
        return rows[~np.isnan(rows[:, 0])]

    def damaged(self) -> Mask:
        """[N]: images that could not be decoded."""
        for matrix in self.vectors.values():
            return np.isnan(matrix[:, 0])
        return np.array([image.pixels() is None for image in self.population.images], bool)


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
    worker = _Pass(images, extractors, size, caches, description)
    lpips: dict[str, Perceptual] = {}
    with worker.bar:
        if engine.elsewhere:
            worker.ask(engine)
        if extractors.perceptual is not None and size is not None:
            measure = _lpips_of_pairs if sampling.pairs else _lpips_of_all_pairs
            lpips = measure(worker, members, extractors.perceptual, sampling, caches)
        for place in worker.pending():
            worker.load(place)
        worker.flush()
    resized_ones = {
        name: sum(images[place].size not in (None, size) for place in np.flatnonzero(mask).tolist())
        for name, mask in members.items()
    }
    return PopulationFeatures(population, worker.vectors(), lpips, size, resized_ones)


class _Pass:
    """Decodes images and feeds the networks; vectors are kept as the batches fill."""

    def __init__(
        self,
        images: Sequence[MeasuredImage],
        extractors: Extractors,
        size: Size | None,
        caches: FeatureCaches,
        description: str,
    ) -> None:
        self.images, self.extractors, self.size = images, extractors, size
        self.bar = progress(len(images), description)
        folders = dict.fromkeys(image.folder for image in images)
        self._caches = {folder: ContentCache(caches.folder(folder), VECTORS) for folder in folders}
        self._found: dict[tuple[str, Path, str], NDArray[np.float32]] = {}
        self._queues: dict[str, dict[tuple[Path, str], torch.Tensor]] = {n: {} for n in extractors.vectors}
        self._seen: set[int] = set()

    def pending(self) -> list[int]:
        """Images of which a vector is still missing."""
        return [
            place
            for place, image in enumerate(self.images)
            if place not in self._seen
            and image.sha256
            and any(self._vector(name, image) is None for name in self.extractors.vectors)
        ]

    def ask(self, engine: Engine) -> None:
        """Let the workers of an engine compute what is missing; what they can't read is left for `load`."""
        first: dict[tuple[Path, str], int] = {}
        for place in self.pending():
            first.setdefault((self.images[place].folder, str(self.images[place].sha256)), place)
        places = list(first.values())
        jobs = [
            Sheet(tuple(part), tuple((self.images[place].folder, self.images[place].file) for place in part))
            for part in (places[start : start + BATCH] for start in range(0, len(places), BATCH))
        ]
        work = Work(
            Extracting(builder(engine, self.extractors, self.extractors.again)),
            block=len(jobs) or 1,
            size=lambda sheet: len(sheet.places),
        )
        for result in engine.run(work, jobs):
            if isinstance(result, SetAside):  # they count as images that can't be read
                self._seen.update(result.job.places)
                continue
            for place, vectors in zip(result.job.places, result.found, strict=True):
                for name, vector in vectors.items():
                    self._keep(name, self.images[place], vector)
                self._seen.update([place] if vectors else [])
            self.bar.set_postfix_str(engine.told(), refresh=False)
            self.bar.update(len(result.job.places))

    def _keep(self, name: str, image: MeasuredImage, vector: NDArray[np.float32]) -> None:
        import torch

        assert image.sha256 is not None
        kept = {"features": torch.tensor(vector)}  # what Ray gives can not be written
        self._caches[image.folder].keep_tensors(self._key(name, image.sha256), kept)
        self._found[name, image.folder, image.sha256] = vector

    def load(self, place: int) -> NDArray[np.uint8] | None:
        """Pixels [H, W, 3] of an image, None when it can't be decoded; what it lacks is queued once."""
        image = self.images[place]
        pixels = image.pixels()
        if place not in self._seen:
            self._seen.add(place)
            self.bar.update()
            for name, network in self.extractors.vectors.items():
                if pixels is not None and image.sha256 and self._vector(name, image) is None:
                    queue = self._queues[name]
                    if (image.folder, image.sha256) not in queue:
                        queue[image.folder, image.sha256] = network.prepare(pixels)
                    if len(queue) >= BATCH:
                        self.flush()
        return pixels

    def phi(self, place: int) -> torch.Tensor | None:
        """LPIPS features of an image at the common size."""
        pixels = self.load(place)
        assert self.size is not None
        assert self.extractors.perceptual is not None
        return None if pixels is None else self.extractors.perceptual(resized(pixels, self.size)).cpu()

    def flush(self) -> None:
        """Compute what waits in the queues."""
        import torch

        for name, queue in self._queues.items():
            if not queue:
                continue
            found = self.extractors.vectors[name](torch.stack(list(queue.values())))
            for (folder, sha256), vector in zip(queue, found, strict=True):
                self._caches[folder].keep_tensors(self._key(name, sha256), {"features": vector.clone()})
                self._found[name, folder, sha256] = vector.numpy()
            queue.clear()

    def vectors(self) -> dict[str, NDArray[np.float32]]:
        """[N, D] by extractor."""
        matrices = {}
        for name, network in self.extractors.vectors.items():
            matrix = np.full((len(self.images), network.dimensions), np.nan, np.float32)
            for place, image in enumerate(self.images):
                found = self._vector(name, image)
                if found is not None:
                    matrix[place] = found
            matrices[name] = matrix
        return matrices

    def _key(self, name: str, sha256: str) -> str:
        return entry_key(sha256, INGEST_VERSION, self.extractors.vectors[name].info.sha256)

    def _vector(self, name: str, image: MeasuredImage) -> NDArray[np.float32] | None:
        if image.sha256 is None:
            return None
        place = (name, image.folder, image.sha256)
        if place not in self._found:
            kept = self._caches[image.folder].tensors(self._key(name, image.sha256)) or {}
            if "features" in kept and len(kept["features"]) == self.extractors.vectors[name].dimensions:
                self._found[place] = kept["features"].numpy()
        return self._found.get(place)


@dataclass(frozen=True)
class Sheet:
    """Images whose vectors are computed together: their places in the population, and folder and file."""

    places: tuple[int, ...]
    images: tuple[tuple[Path, str], ...]


@dataclass(frozen=True)
class Extracting:
    """How the worker is built that computes vectors."""

    extractors: Callable[[], Extractors]

    def __call__(self) -> VectorComputer:
        return VectorComputer(self.extractors())


class VectorComputer:
    """Computes the vectors of images over all networks."""

    def __init__(self, extractors: Extractors) -> None:
        self._extractors = extractors

    def prepare(self, jobs: Sequence[Sheet]) -> None:
        """See `Worker.prepare`."""

    def do(self, job: Sheet) -> list[dict[str, NDArray[np.float32]]]:
        """The vector of each image by network, [D] float32; empty for one that can't be decoded."""
        import torch

        decoded = [MeasuredImage(folder, file, "").pixels() for folder, file in job.images]
        read = [place for place, pixels in enumerate(decoded) if pixels is not None]
        found: list[dict[str, NDArray[np.float32]]] = [{} for _ in decoded]
        for name, network in self._extractors.vectors.items() if read else ():
            batch = torch.stack([network.prepare(decoded[place]) for place in read])
            for place, vector in zip(read, network(batch), strict=True):
                found[place][name] = vector.clone().numpy()
        return found

    def close(self) -> None:
        """See `Worker.close`."""


def _lpips_of_pairs(
    worker: _Pass,
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
    worker: _Pass, mask: Mask, pairs: Pairs, network: PerceptualFeatures, caches: FeatureCaches
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
    worker: _Pass,
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
