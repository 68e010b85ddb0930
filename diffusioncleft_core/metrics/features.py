"""One pass over the images of a group: Inception's features, kept, and LPIPS from the same decoded pixels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..progress import progress
from .extractors import (
    SMALLEST_SIDE,
    InceptionFeatures,
    PerceptualFeatures,
    check_packages,
    inception,
    perceptual,
)
from .kept import (
    NO_CACHES,
    Caches,
    FeatureStore,
    KeptResult,
    Perceptual,
    Size,
    moments_file,
    read_moments,
    write_moments,
)
from .lpips import NO_MOMENTS, PAPER_PAIRS, Mask, Pairs, draw_pairs, perceptual_pass

if TYPE_CHECKING:
    import torch

    from .groups import MeasuredImage

BATCH = 16


@dataclass(frozen=True)
class Extractors:
    """The networks of FID and LPIPS; None where the metric is not wanted."""

    inception: InceptionFeatures | None = None
    perceptual: PerceptualFeatures | None = None


def load_extractors(
    *,
    phantom: bool,
    device: torch.device,
    own: Path | None = None,
    fid: bool = True,
    lpips: bool = True,
) -> Extractors:
    """The networks with their weights from this machine (`own`: a folder searched first), or, on phantoms
    alone, drawn from a seed. Raises UserError when weights are missing or are not the pinned ones.
    """
    from ..weights.registry import require_file

    def weights(name: str) -> Path | None:
        return None if phantom else require_file(name, own)

    return Extractors(
        inception(weights("inception-fid"), device) if fid else None,
        perceptual(weights("lpips-alexnet"), device) if lpips else None,
    )


def check_extractors(*, phantom: bool, fid: bool = True, lpips: bool = True) -> None:
    """Raise the UserError that `load_extractors` would, as far as it shows without building a network."""
    from ..weights.registry import require_file

    check_packages(fid=fid, lpips=lpips)
    for name, wanted in (("inception-fid", fid), ("lpips-alexnet", lpips)):
        if wanted and not phantom:
            require_file(name)


@dataclass(frozen=True)
class GroupFeatures:
    """What a pass found. Rows of `inception` that are NaN belong to images that could not be decoded."""

    inception: NDArray[np.float32] | None
    """[N, 2048]."""
    lpips: dict[str, Perceptual]
    size: Size | None
    """(width, height) in px at which LPIPS compared."""
    n_resized: dict[str, int]


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


def group_features(
    images: Sequence[MeasuredImage],
    members: Mapping[str, Mask],
    extractors: Extractors,
    *,
    size: Size | None,
    caches: Caches = NO_CACHES,
    wanted_pairs: int = PAPER_PAIRS,
    seed: int = 0,
    description: str = "features",
) -> GroupFeatures:
    """Inception's features of `images`, and LPIPS of the sets `members` (masks [N] over the images).

    size: (width, height) to which LPIPS brings images of another one (bicubic, Pillow); wanted_pairs: pairs
    a set, 0 for the mean over all pairs alone.
    """
    worker = _Pass(images, extractors, size, caches, description)
    pairs = draw_pairs(members, wanted_pairs, seed) if wanted_pairs else {}
    lpips: dict[str, Perceptual] = {}
    with worker.bar:
        if extractors.perceptual is not None and size is not None and not wanted_pairs:
            lpips = _lpips_of_all_pairs(worker, members, extractors.perceptual, size, caches)
        elif extractors.perceptual is not None and size is not None:
            results = {
                name: KeptResult.of(images, mask, pairs.get(name), extractors.perceptual, size, caches)
                for name, mask in members.items()
            }
            lpips = _kept_or_measured(worker, members, pairs, results)
        for place in worker.pending():
            worker.load(place)
        worker.flush()
    return GroupFeatures(
        worker.features(),
        lpips,
        size,
        {
            name: sum(images[i].size not in (None, size) for i in np.flatnonzero(mask).tolist())
            for name, mask in members.items()
        },
    )


class _Pass:
    """Decodes images and feeds both networks; Inception's batches are stored as they fill."""

    def __init__(
        self,
        images: Sequence[MeasuredImage],
        extractors: Extractors,
        size: Size | None,
        caches: Caches,
        description: str,
    ) -> None:
        self.images, self.extractors, self.size = images, extractors, size
        self.bar = progress(len(images), description)
        network = extractors.inception
        folders = dict.fromkeys(image.folder for image in images)
        self._stores: dict[Path, FeatureStore] | None = None
        if network:
            places = {folder: caches.of(folder) for folder in folders}
            stores = {place: FeatureStore(place, network.info.sha256) for place in set(places.values())}
            self._stores = {folder: stores[place] for folder, place in places.items()}
        self._queue: dict[tuple[Path, str], torch.Tensor] = {}
        self._seen: set[int] = set()

    def pending(self) -> list[int]:
        """Images whose Inception features are still missing."""
        if self._stores is None:
            return []
        return [
            place
            for place, image in enumerate(self.images)
            if place not in self._seen
            and image.sha256
            and self._stores[image.folder].get(image.sha256) is None
        ]

    def load(self, place: int) -> NDArray[np.uint8] | None:
        """Pixels [H, W, 3] of an image, None when it can't be decoded; Inception gets them the first time."""
        pixels = read_pixels(self.images[place])
        if place not in self._seen:
            self._seen.add(place)
            self.bar.update()
            self._enqueue(self.images[place], pixels)
        return pixels

    def phi(self, place: int) -> torch.Tensor | None:
        """LPIPS features of an image at the common size."""
        pixels = self.load(place)
        assert self.size is not None
        assert self.extractors.perceptual is not None
        return None if pixels is None else self.extractors.perceptual(resized(pixels, self.size)).cpu()

    def flush(self) -> None:
        """Compute what waits in the queue."""
        import torch

        network = self.extractors.inception
        if not self._queue or network is None or self._stores is None:
            return
        found = network(torch.stack(list(self._queue.values()))).numpy()
        for folder in dict.fromkeys(folder for folder, _ in self._queue):
            places = [place for place, key in enumerate(self._queue) if key[0] == folder]
            hashes = [key[1] for key in self._queue if key[0] == folder]
            self._stores[folder].add(hashes, found[places])
        self._queue.clear()

    def features(self) -> NDArray[np.float32] | None:
        from .extractors import INCEPTION_DIMENSIONS

        if self._stores is None:
            return None
        matrix = np.full((len(self.images), INCEPTION_DIMENSIONS), np.nan, np.float32)
        for place, image in enumerate(self.images):
            found = self._stores[image.folder].get(image.sha256)
            if found is not None:
                matrix[place] = found
        return matrix

    def _enqueue(self, image: MeasuredImage, pixels: NDArray[np.uint8] | None) -> None:
        network = self.extractors.inception
        if pixels is None or image.sha256 is None or network is None or self._stores is None:
            return
        key = (image.folder, image.sha256)
        if self._stores[image.folder].get(image.sha256) is None and key not in self._queue:
            self._queue[key] = network.prepare(pixels)
        if len(self._queue) >= BATCH:
            self.flush()


def read_pixels(image: MeasuredImage) -> NDArray[np.uint8] | None:
    """[H, W, 3] uint8 sRGB, upright, transparency on white, at most 2048 px a side; None if undecodable."""
    from ..imageset.decode import Rejected, read_image

    try:
        return read_image(image.path)
    except (Rejected, UserError):
        return None


def resized(pixels: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """`pixels` [H, W, 3] at `size` (width, height), bicubic with Pillow's antialiasing; as they are if equal.

    The aspect ratio is not kept: LPIPS compares position by position.
    """
    from PIL import Image

    if (pixels.shape[1], pixels.shape[0]) == size:
        return pixels
    return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC), dtype=np.uint8)


def _kept_or_measured(
    worker: _Pass, members: Mapping[str, Mask], pairs: Mapping[str, Pairs], results: Mapping[str, KeptResult]
) -> dict[str, Perceptual]:
    kept = {name: result.read() for name, result in results.items()}
    left = {name: mask for name, mask in members.items() if kept[name] is None}
    lpips = {name: found for name, found in kept.items() if found is not None}
    if left:
        wanted = sorted({(i, j) for name in left if name in pairs for i, j in pairs[name].tolist()})
        places = np.flatnonzero(np.logical_or.reduce(list(left.values())))
        found = perceptual_pass(worker.phi, left, wanted, order=places.tolist())
        for name in left:
            mean, n_pairs = found.pairs_mean(pairs[name]) if name in pairs else (None, 0)
            lpips[name] = Perceptual(mean, n_pairs, found.all_pairs[name], found.n_images[name])
            results[name].write(lpips[name])
    return {name: lpips[name] for name in members}


def _lpips_of_all_pairs(
    worker: _Pass, members: Mapping[str, Mask], network: PerceptualFeatures, size: Size, caches: Caches
) -> dict[str, Perceptual]:
    """The mean over all pairs of each set, from sums kept by folder: sets of several folders add them up, so
    that nothing that comes from two is kept.
    """
    parts: dict[tuple[Path, tuple[bool, ...]], list[int]] = {}
    for place, image in enumerate(worker.images):
        inside = tuple(bool(mask[place]) for mask in members.values())
        if any(inside):
            parts.setdefault((image.folder, inside), []).append(place)
    files = {
        part: moments_file(caches.of(part[0]), [worker.images[i].sha256 for i in places], network, size)
        for part, places in parts.items()
    }
    moments = {part: found for part, file in files.items() if (found := read_moments(file)) is not None}
    left = {part: places for part, places in parts.items() if part not in moments}
    if left:
        masks = {
            str(i): np.isin(np.arange(len(worker.images)), places) for i, places in enumerate(left.values())
        }
        order = sorted(place for places in left.values() for place in places)
        measured = perceptual_pass(worker.phi, masks, [], order=order).moments
        for part, name in zip(left, masks, strict=True):
            moments[part] = measured[name]
            write_moments(files[part], measured[name])
    lpips = {}
    for index, name in enumerate(members):
        total = sum((moments[part] for part in parts if part[1][index]), NO_MOMENTS)
        lpips[name] = Perceptual(None, 0, total.all_pairs_mean(), total.n)
    return lpips
