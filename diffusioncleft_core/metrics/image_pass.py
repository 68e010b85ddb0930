"""One pass over the images of a population: each is decoded once, for all extractors that still need it.

What an earlier call computed is taken from the cache of the set that owns the image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..cluster.work import Engine, SetAside, Work, builder
from ..dataset.folder import is_dataset, owned_cache
from ..imageset.cache import ContentCache, entry_key
from ..imageset.decode import INGEST_VERSION, decoder
from ..imageset.vectors import VectorStore
from ..progress import progress
from .extractors import Extractors, resized
from .lpips import Perceptual
from .sets import Mask, MeasuredImage

if TYPE_CHECKING:
    import torch

BATCH = 16
OWN_CACHE = ".measure"
"""In a generated set: what was computed from its images, for its owner alone."""
DATASET_CACHE = "features"
"""In a dataset's cache: erased with it, and whenever a photograph is withdrawn."""
VECTORS, UNDECODABLE = "vectors", "undecodable"

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


class ImagePass:
    """Decodes images and feeds the networks; vectors are kept as the batches fill.

    Attributes:
        vectors: by extractor, [N, D]; rows that are NaN are not known.
    """

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
        self._queues: dict[str, dict[int, torch.Tensor]] = {n: {} for n in extractors.vectors}
        self._seen: set[int] = set()
        self._lost = np.array([image.sha256 is None for image in images], bool)
        folders = dict.fromkeys(image.folder for image in images)
        self._cache = {folder: caches.folder(folder) for folder in folders}
        self._undecodable = {
            cache: ContentCache(cache, UNDECODABLE) for cache in dict.fromkeys(self._cache.values())
        }
        self._same: dict[tuple[Path | None, str], list[int]] = {}
        for place, image in enumerate(images):
            if image.sha256:
                self._same.setdefault((self._cache[image.folder], image.sha256), []).append(place)
        for (cache, sha256), places in self._same.items():
            self._lost[places] = self._undecodable[cache].value(_content(sha256)) == {"decoder": decoder()}
        self.vectors: dict[str, NDArray[np.float32]] = {}
        self._known: dict[str, Mask] = {}
        self._stores: dict[tuple[str, Path | None], VectorStore] = {}
        for name, network in extractors.vectors.items():
            self.vectors[name] = np.full((len(images), network.dimensions), np.nan, np.float32)
            self._known[name] = np.zeros(len(images), bool)
            for cache in self._undecodable:
                self._stores[name, cache] = store = VectorStore(
                    cache, VECTORS, network.info.sha256, (network.dimensions,)
                )
                places = [i for (owner, _), same in self._same.items() if owner == cache for i in same]
                keys = [self._key(name, images[place]) for place in places]
                self._known[name][places] = store.fill(self.vectors[name], places, keys)

    def pending(self) -> list[int]:
        """Images of which a vector is still missing, of several with one content the first."""
        missing = [places for places in self._same.values() if self._lacks(places[0])]
        return sorted(places[0] for places in missing if not self._seen.intersection(places))

    def ask(self, engine: Engine) -> None:
        """Let the workers of an engine compute what is missing; what they can't read is left for `load`."""
        places = self.pending()
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
                    self._keep(name, place, vector)
                self._seen.update([place] if vectors else [])
            self.bar.set_postfix_str(engine.told(), refresh=False)
            self.bar.update(len(result.job.places))

    def load(self, place: int) -> NDArray[np.uint8] | None:
        """Pixels [H, W, 3] of an image, None when it can't be decoded; what it lacks is queued once."""
        image = self.images[place]
        if self._lost[place]:
            return None
        pixels, refusal = image.decoded()
        if pixels is None:
            self._lost[self._alike(place)] = True
            if refusal == UNDECODABLE and image.sha256:
                known = self._undecodable[self._cache[image.folder]]
                known.keep_value(_content(image.sha256), {"decoder": decoder()})
        if place not in self._seen:
            self._seen.add(place)
            self.bar.update()
            if pixels is not None:
                self._queue(place, pixels)
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
            for place, vector in zip(queue, found, strict=True):
                self._keep(name, place, vector.numpy())
            queue.clear()

    def damaged(self, members: Mapping[str, Mask], lpips: Mapping[str, Perceptual]) -> Mask:
        """[N]: images that could not be decoded; tried for that is only what nothing else tells.

        members: the sets [N] of `lpips`, which counts the images that it could decode.
        """
        for known in self._known.values():
            return ~known
        told = self._lost.copy()
        told[list(self._seen)] = True
        for name, found in lpips.items():
            if found.n_images == int((members[name] & ~self._lost).sum()):
                told |= members[name]
        for place in np.flatnonzero(~told).tolist():
            self.load(place)
        return self._lost

    def close(self) -> None:
        """Write what is to be kept."""
        for store in self._stores.values():
            store.close()

    def _queue(self, place: int, pixels: NDArray[np.uint8]) -> None:
        alike = self._alike(place)
        for name, network in self.extractors.vectors.items():
            queue = self._queues[name]
            if not self._known[name][place] and queue.keys().isdisjoint(alike):
                queue[place] = network.prepare(pixels)
        if any(len(queue) >= BATCH for queue in self._queues.values()):
            self.flush()

    def _lacks(self, place: int) -> bool:
        """Whether a vector of an image is missing that may be had."""
        return not self._lost[place] and not all(known[place] for known in self._known.values())

    def _alike(self, place: int) -> list[int]:
        """The images of the same content in the same cache, itself included."""
        image = self.images[place]
        return self._same.get((self._cache[image.folder], str(image.sha256)), [place])

    def _keep(self, name: str, place: int, vector: NDArray[np.float32]) -> None:
        image, alike = self.images[place], self._alike(place)
        self.vectors[name][alike] = vector
        self._known[name][alike] = True
        self._stores[name, self._cache[image.folder]].keep(self._key(name, image), vector)

    def _key(self, name: str, image: MeasuredImage) -> str:
        return entry_key(image.sha256, INGEST_VERSION, self.extractors.vectors[name].info.sha256)


def _content(sha256: str) -> str:
    return f"{sha256} {INGEST_VERSION}"


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
