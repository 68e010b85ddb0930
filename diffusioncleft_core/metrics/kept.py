"""What is kept of a pass over images, with their owner: features, LPIPS, and the sums it comes from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..files import append_jsonl, atomic_path, private_dir, read_jsonl
from ..imageset.decode import INGEST_VERSION
from .extractors import PerceptualFeatures
from .lpips import Mask, Moments, Pairs

if TYPE_CHECKING:
    from .groups import MeasuredImage

RESULTS = "lpips.jsonl"
_KEPT_MOMENTS = 4
"""Sums of LPIPS' features that a folder keeps: each takes up to 50 MB at 768 px."""
Size = tuple[int, int]


@dataclass(frozen=True)
class Caches:
    """Private folders for what is computed from images.

    of: by the image's folder, because what comes from an image lies with the set that owns it; shared: for
    what comes from images of several sets, None: it is not kept.
    """

    of: Callable[[Path], Path | None]
    shared: Path | None = None

    def of_all(self, folders: Sequence[Path]) -> Path | None:
        """The place for what comes from images of all these folders."""
        return self.of(folders[0]) if len(folders) == 1 else self.shared


NO_CACHES = Caches(lambda folder: None)


@dataclass(frozen=True)
class Perceptual:
    """LPIPS of one set of images."""

    pairs_mean: float | None
    n_pairs: int
    all_pairs_mean: float | None
    n_images: int


class FeatureStore:
    """Features by content hash in a private folder: a file for each batch, so that a pass can be resumed."""

    def __init__(self, folder: Path | None, extractor: str) -> None:
        self._folder = None if folder is None else private_dir(folder)
        self._prefix = f"features-{INGEST_VERSION}-{extractor[:16]}-"
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


@dataclass(frozen=True)
class KeptResult:
    """Where the LPIPS of one set is kept, and the key of what it depends on."""

    cache: Path | None
    key: str

    @classmethod
    def of(
        cls,
        images: Sequence[MeasuredImage],
        mask: Mask,
        pairs: Pairs | None,
        network: PerceptualFeatures,
        size: Size,
        caches: Caches,
    ) -> KeptResult:
        inside = [images[place] for place in np.flatnonzero(mask).tolist()]
        folders = list(dict.fromkeys(image.folder for image in inside))
        chosen = [] if pairs is None else [[images[i].sha256, images[j].sha256] for i, j in pairs.tolist()]
        facts: Any = [INGEST_VERSION, network.info.sha256, size, [image.sha256 for image in inside], chosen]
        key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
        return cls(caches.of_all(folders) if folders else None, key)

    def read(self) -> Perceptual | None:
        """What an earlier call kept; None when there was none."""
        if self.cache is None or not (self.cache / RESULTS).is_file():
            return None
        try:
            rows = [row for row in read_jsonl(self.cache / RESULTS) if row.get("key") == self.key]
            return Perceptual(**rows[-1]["set"]) if rows else None
        except (UserError, KeyError, TypeError):
            (self.cache / RESULTS).unlink(missing_ok=True)
            return None

    def write(self, found: Perceptual) -> None:
        if self.cache is not None:
            append_jsonl(private_dir(self.cache) / RESULTS, {"key": self.key, "set": asdict(found)})


def moments_file(
    cache: Path | None, hashes: Sequence[str | None], network: PerceptualFeatures, size: Size
) -> Path | None:
    key = hashlib.sha256(json.dumps([INGEST_VERSION, network.info.sha256, size, hashes]).encode()).hexdigest()
    return None if cache is None else cache / f"lpips-{key[:32]}.npz"


def read_moments(file: Path | None) -> Moments | None:
    if file is None or not file.is_file():
        return None
    try:
        with np.load(file, allow_pickle=False) as data:
            return Moments(int(data["n"]), data["total"] if data["n"] else None, float(data["squares"]))
    except Exception:  # a damaged file raises nearly anything; what it held is computed again
        file.unlink(missing_ok=True)
        return None


def write_moments(file: Path | None, found: Moments) -> None:
    if file is None:
        return
    total = np.zeros(0) if found.total is None else found.total
    with atomic_path(private_dir(file.parent) / file.name) as temporary:
        np.savez(temporary, n=found.n, total=total, squares=found.squares)
    kept = sorted(file.parent.glob("lpips-*.npz"), key=lambda path: path.stat().st_mtime_ns)
    for old in kept[:-_KEPT_MOMENTS]:
        old.unlink(missing_ok=True)
