"""One pass over the images of a group: Inception's features, kept, and LPIPS from the same decoded pixels."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..files import append_jsonl, atomic_path, private_dir, read_jsonl
from ..progress import progress
from .networks import (
    SMALLEST_SIDE,
    InceptionFeatures,
    PerceptualFeatures,
    check_packages,
    inception,
    perceptual,
)
from .perceptual import PAPER_PAIRS, Mask, Pairs, draw_pairs, perceptual_pass

if TYPE_CHECKING:
    import torch

    from .image_sets import MeasuredImage

BATCH = 16
RESULTS = "lpips.jsonl"
Size = tuple[int, int]


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
    from ..weights import require_file

    def weights(name: str) -> Path | None:
        return None if phantom else require_file(name, own)

    return Extractors(
        inception(weights("inception-fid"), device) if fid else None,
        perceptual(weights("lpips-alexnet"), device) if lpips else None,
    )


def check_extractors(*, phantom: bool, fid: bool = True, lpips: bool = True) -> None:
    """Raise the UserError that `load_extractors` would, as far as it shows without building a network."""
    from ..weights import require_file

    check_packages(fid=fid, lpips=lpips)
    for name, wanted in (("inception-fid", fid), ("lpips-alexnet", lpips)):
        if wanted and not phantom:
            require_file(name)


@dataclass(frozen=True)
class Perceptual:
    """LPIPS of one set of images."""

    pairs_mean: float | None
    n_pairs: int
    all_pairs_mean: float | None
    n_images: int


@dataclass(frozen=True)
class GroupFeatures:
    """What a pass found. Rows of `inception` that are NaN belong to images that could not be decoded."""

    inception: NDArray[np.float32] | None
    """[N, 2048]."""
    lpips: dict[str, Perceptual]
    size: Size | None
    """(width, height) in px at which LPIPS compared."""
    n_resized: dict[str, int]


class FeatureStore:
    """Features by content hash in a private folder: a file for each batch, so that a pass can be resumed."""

    def __init__(self, folder: Path | None, extractor: str) -> None:
        self._folder = None if folder is None else private_dir(folder)
        self._prefix = f"features-{extractor[:16]}-"
        self._known: dict[str, NDArray[np.float32]] = {}
        for path in sorted(self._folder.glob(f"{self._prefix}*.npz")) if self._folder else ():
            try:
                with np.load(path, allow_pickle=False) as data:
                    self._known |= dict(zip(data["sha256"].tolist(), data["features"], strict=True))
            except Exception:  # a damaged file raises nearly anything; what it held is computed again
                path.unlink(missing_ok=True)

    def get(self, sha256: str | None) -> NDArray[np.float32] | None:
        return None if sha256 is None else self._known.get(sha256)

    def add(self, hashes: Sequence[str], features: NDArray[np.float32]) -> None:
        """features: [n, D], the rows in the order of `hashes`."""
        self._known |= dict(zip(hashes, features, strict=True))
        if self._folder is None:
            return
        name = hashlib.sha256("".join(hashes).encode()).hexdigest()[:16]
        with atomic_path(self._folder / f"{self._prefix}{name}.npz") as temporary:
            np.savez(temporary, sha256=np.array(hashes), features=features)


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
    cache: Path | None,
    wanted_pairs: int = PAPER_PAIRS,
    seed: int = 0,
    description: str = "features",
) -> GroupFeatures:
    """Inception's features of `images`, and LPIPS of the sets `members` (masks [N] over the images).

    size: (width, height) to which LPIPS brings images of another one (bicubic, Pillow); cache: a private
    folder; wanted_pairs: pairs a set, 0 for the mean over all pairs alone.
    """
    worker = _Pass(images, extractors, size, cache, description)
    pairs = draw_pairs(members, wanted_pairs, seed) if wanted_pairs else {}
    lpips: dict[str, Perceptual] = {}
    with worker.bar:
        if extractors.perceptual is not None and size is not None:
            key = _result_key(images, members, extractors.perceptual, size, wanted_pairs, seed)
            lpips = _kept_result(cache, key) or _measured(worker, members, pairs, cache, key)
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
        cache: Path | None,
        description: str,
    ) -> None:
        self.images, self.extractors, self.size = images, extractors, size
        self.bar = progress(len(images), description)
        network = extractors.inception
        self._store = FeatureStore(cache, network.info.sha256) if network else None
        self._queue: dict[str, torch.Tensor] = {}
        self._seen: set[int] = set()

    def pending(self) -> list[int]:
        """Images whose Inception features are still missing."""
        if self._store is None:
            return []
        return [
            place
            for place, image in enumerate(self.images)
            if place not in self._seen and image.sha256 and self._store.get(image.sha256) is None
        ]

    def load(self, place: int) -> NDArray[np.uint8] | None:
        """Pixels [H, W, 3] of an image, None when it can't be decoded; Inception gets them the first time."""
        pixels = read_pixels(self.images[place])
        if place not in self._seen:
            self._seen.add(place)
            self.bar.update()
            self._enqueue(self.images[place].sha256, pixels)
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
        if not self._queue or network is None or self._store is None:
            return
        found = network(torch.stack(list(self._queue.values()))).numpy()
        self._store.add(list(self._queue), found)
        self._queue.clear()

    def features(self) -> NDArray[np.float32] | None:
        from .networks import INCEPTION_DIMENSIONS

        if self._store is None:
            return None
        matrix = np.full((len(self.images), INCEPTION_DIMENSIONS), np.nan, np.float32)
        for place, image in enumerate(self.images):
            found = self._store.get(image.sha256)
            if found is not None:
                matrix[place] = found
        return matrix

    def _enqueue(self, sha256: str | None, pixels: NDArray[np.uint8] | None) -> None:
        network = self.extractors.inception
        if pixels is None or sha256 is None or network is None or self._store is None:
            return
        if self._store.get(sha256) is None and sha256 not in self._queue:
            self._queue[sha256] = network.prepare(pixels)
        if len(self._queue) >= BATCH:
            self.flush()


def read_pixels(image: MeasuredImage) -> NDArray[np.uint8] | None:
    """[H, W, 3] uint8 sRGB, upright, transparency on white, at most 2048 px a side; None if undecodable."""
    from ..dataset.reasons import Rejected
    from ..faces.records import read_image

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


def _measured(
    worker: _Pass, members: Mapping[str, Mask], pairs: Mapping[str, Pairs], cache: Path | None, key: str
) -> dict[str, Perceptual]:
    wanted = sorted({(i, j) for item in pairs.values() for i, j in item.tolist()})
    places = np.flatnonzero(np.logical_or.reduce(list(members.values())))
    found = perceptual_pass(worker.phi, members, wanted, order=places.tolist())
    lpips = {}
    for name in members:
        mean, n_pairs = found.pairs_mean(pairs[name]) if name in pairs else (None, 0)
        lpips[name] = Perceptual(mean, n_pairs, found.all_pairs[name], found.n_images[name])
    if cache is not None:
        row = {"key": key, "sets": {name: asdict(item) for name, item in lpips.items()}}
        append_jsonl(private_dir(cache) / RESULTS, row)
    return lpips


def _kept_result(cache: Path | None, key: str) -> dict[str, Perceptual]:
    """LPIPS of the same images, sets and pairs from an earlier call; empty when there was none."""
    if cache is None or not (cache / RESULTS).is_file():
        return {}
    try:
        rows = [row for row in read_jsonl(cache / RESULTS) if row.get("key") == key]
        return {name: Perceptual(**item) for name, item in rows[-1]["sets"].items()} if rows else {}
    except (UserError, KeyError, TypeError):
        (cache / RESULTS).unlink(missing_ok=True)
        return {}


def _result_key(
    images: Sequence[MeasuredImage],
    members: Mapping[str, Mask],
    network: PerceptualFeatures,
    size: Size,
    wanted_pairs: int,
    seed: int,
) -> str:
    facts: Any = [network.info.sha256, size, wanted_pairs, seed, [image.sha256 for image in images]]
    facts.append({name: np.flatnonzero(mask).tolist() for name, mask in members.items()})
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
