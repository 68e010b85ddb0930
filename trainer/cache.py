"""Latents and text embeddings, computed once and kept in a private folder, keyed by content."""

import hashlib
import json
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..diffusioncleft_core.dataset import folder as dataset_folder
from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.files import private_dir, remove_leftovers, write_bytes
from ..diffusioncleft_core.flux.sampling import encode_images, encode_prompts
from ..diffusioncleft_core.imageset.cache import ContentCache, Tensors
from ..diffusioncleft_core.imageset.decode import Rejected, pixel_sha256
from ..diffusioncleft_core.outputs import can_write
from .balance import group_of
from .data import TrainImage, bucket_pixels, read_pixels

_VERSION = 1
_DATASET_CACHE = "training"
_LEFT_SECONDS = 86_400.0
_CHANGED = (
    "an image changed while the trainer was reading it; leave the folder alone and run the same command again"
)


def cache_key(*parts: Any) -> str:
    """The key of an entry: latents or text, what they come from, and the model that gave them."""
    return hashlib.sha256(json.dumps([_VERSION, *parts]).encode()).hexdigest()


class Caches:
    """The caches of a run: one in every built dataset, for what comes from its own images and captions, and
    one for the rest.

    Args:
        shared: the private folder for the rest.
        read_only: the private folder for what comes from a dataset that can't be written; None: that is read
            where the dataset holds it, and not kept.
        on_disk: False: nothing is kept.
    """

    def __init__(self, shared: Path, *, read_only: Path | None = None, on_disk: bool = True) -> None:
        self._shared = private_dir(shared) if on_disk else None
        self._read_only = read_only
        self._places: dict[Path | None, Path | None] = {None: self._shared}
        self._open: dict[tuple[Path | None, str], ContentCache] = {}

    def of(self, folder: Path | None, kind: str) -> ContentCache:
        """The cache of `latents` or `text` for what comes from an image in `folder`; None: from no image."""
        if folder not in self._places:
            self._places[folder] = self._place_of(folder)
        place = self._places[folder]
        if (place, kind) not in self._open:
            if place is not None:  # other runs may be writing into it
                remove_leftovers(place / kind, older_than=_LEFT_SECONDS)
            self._open[place, kind] = ContentCache(place, kind)
        return self._open[place, kind]

    def _place_of(self, folder: Path | None) -> Path | None:
        if self._shared is None or folder is None:
            return self._shared
        if self._read_only is not None and dataset_folder.is_dataset(folder) and not can_write(folder):
            return self._read_only
        return dataset_folder.owned_cache(folder, _DATASET_CACHE, self._shared)


@dataclass(frozen=True)
class PrivateFolder:
    """Where the cache of what belongs to no dataset lies, and the secret key that makes fingerprints of the
    images useless to others.
    """

    cache: Path
    key: bytes

    @property
    def key_id(self) -> str:
        """Tells one key from another, and nothing of it."""
        return hashlib.blake2b(b"which key", key=self.key, digest_size=8).hexdigest()

    def fingerprint(self, images: Iterable[TrainImage]) -> str:
        """Keyed BLAKE2b over what is trained on: pixels, captions, repeats and roles, in whatever order."""
        return self._digest([*_shown(i), i.caption, i.is_reg, i.repeats] for i in images)

    def fingerprint_of_regions(self, images: Iterable[TrainImage]) -> str:
        """The same over where the findings lie."""
        return self._digest([*_shown(i), i.region] for i in images)

    def fingerprint_of_healthy_captions(self, images: Iterable[TrainImage]) -> str:
        """The same over the training images' captions without the anomaly."""
        return self._digest([*_shown(i), i.healthy_caption] for i in images if not i.is_reg)

    def fingerprint_of_attributes(self, images: Iterable[TrainImage], names: Sequence[str]) -> str:
        """The same over what the training images' manifests say of the attributes `names`."""
        return self._digest([*_shown(i), group_of(i.attributes, names)] for i in images if not i.is_reg)

    def _digest(self, values: Iterable[list[Any]]) -> str:
        rows = sorted(map(json.dumps, values))
        return hashlib.blake2b("\n".join(rows).encode(), key=self.key, digest_size=32).hexdigest()


def _shown(image: TrainImage) -> list[Any]:
    """What of an image's pixels a step sees."""
    return [image.sha256, image.bucket, *(["mirrored"] if image.mirrored else [])]


def private_folder(cache_dir: Path | None, train_dirs: Sequence[Path], output_dir: Path) -> PrivateFolder:
    """Return the private folder: the one that was given, else one in the output folder.

    The key lies in the first built dataset, where there is one, and goes with it.
    """
    datasets = [folder for folder in train_dirs if dataset_folder.is_dataset(folder)]
    cache = private_dir(cache_dir or output_dir / "private")
    path = (datasets[0] if datasets else cache) / dataset_folder.KEY
    if not path.is_file() or len(path.read_bytes()) < 16:
        write_bytes(path, secrets.token_bytes(32))
    return PrivateFolder(cache, path.read_bytes()[:64])


def cached_latents(
    images: Sequence[TrainImage],
    caches: Caches,
    vae_fingerprint: str,
    load_vae: Callable[[], torch.nn.Module],
    each: Callable[[int, int], None] = lambda done, total: None,
) -> list[torch.Tensor]:
    """Return the normalised latents of every image, [16, h/8, w/8] float32; images of equal content share
    theirs.

    The autoencoder is loaded if anything is missing from the cache. `each` is called with (done, total) and
    may raise.
    """
    keys = [cache_key("latents", *_shown(image), vae_fingerprint) for image in images]
    found: dict[str, torch.Tensor] = {}
    missing: dict[str, TrainImage] = {}
    # By key, the caches that should hold it and don't: an image can be in two datasets.
    absent: dict[str, dict[ContentCache, None]] = {}
    for key, image in zip(keys, images, strict=True):
        cache = caches.of(image.folder, "latents")
        tensors = cache.tensors(key)
        if tensors is None:
            missing[key] = image
            absent.setdefault(key, {})[cache] = None
        else:
            found[key] = tensors["latents"]
    for key in missing.keys() & found.keys():
        for cache in absent[key]:
            cache.keep_tensors(key, {"latents": found[key]})
        del missing[key]
    vae = load_vae() if missing else None
    for done, (key, image) in enumerate(sorted(missing.items(), key=lambda item: item[1].bucket)):
        each(done, len(missing))
        found[key] = _encode(vae, image)
        for cache in absent[key]:
            cache.keep_tensors(key, {"latents": found[key]})
    if missing:
        each(len(missing), len(missing))
    return [found[key] for key in keys]


def _encode(vae: Any, image: TrainImage) -> torch.Tensor:
    """Encode an image: [16, h/8, w/8] float32 on the CPU.

    By itself: beside others the last bits depend on how many they are.
    """
    try:
        whole = read_pixels(image.path)
    except Rejected:
        raise UserError(_CHANGED) from None
    if pixel_sha256(whole) != image.sha256:
        raise UserError(_CHANGED)
    seen = bucket_pixels(whole, image.bucket)
    pixels = np.array(seen[:, ::-1] if image.mirrored else seen)
    one = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        return encode_images(vae, one).float().cpu().contiguous()[0]


def cached_text(
    captions: Mapping[str, Iterable[Path | None]],
    caches: Caches,
    text_fingerprint: str,
    load_encoders: Callable[[], Any],
    each: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Tensors]:
    """Return for every caption `text` [T, D] and `pooled` [P], on the CPU in the encoders' number format.

    Args:
        captions: with the folders of the images that have it, None for a prompt of no image.
        caches: of the run.
        text_fingerprint: of the encoders and their tokenizers.
        load_encoders: called when a caption is not known yet.
        each: called with (encoded, to encode) before every batch.
    """
    found: dict[str, Tensors] = {}
    absent: dict[str, list[ContentCache]] = {}
    for caption, folders in captions.items():
        key = cache_key("text", caption, text_fingerprint)
        for cache in dict.fromkeys(caches.of(folder, "text") for folder in folders):
            tensors = cache.tensors(key)
            if tensors is None:
                absent.setdefault(caption, []).append(cache)
            else:
                found[caption] = tensors
    for caption in absent.keys() & found.keys():
        for cache in absent[caption]:
            cache.keep_tensors(cache_key("text", caption, text_fingerprint), found[caption])
    missing = [caption for caption in absent if caption not in found]
    encoders: Any = load_encoders() if missing else None
    for at in range(0, len(missing), 16):
        part = missing[at : at + 16]
        each(at, len(missing))
        with torch.no_grad():
            encoded = encode_prompts(encoders, part, _device_of(encoders))
        for caption, embedding in zip(part, encoded, strict=True):
            tensors = {
                "text": embedding.prompt_embeds.cpu().clone(),
                "pooled": embedding.pooled.cpu().clone(),
            }
            found[caption] = tensors
            for cache in absent[caption]:
                cache.keep_tensors(cache_key("text", caption, text_fingerprint), tensors)
    if missing:
        each(len(missing), len(missing))
    return found


def _device_of(encoders: Any) -> torch.device:
    device: torch.device = next(encoders.text_encoder.parameters()).device
    return device
