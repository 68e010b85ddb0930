"""What a run needs before its first step: base model, images, latents and text embeddings."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..diffusioncleft_core.dataset.folder import is_dataset
from ..diffusioncleft_core.flux.components import load_text_encoders, load_vae
from ..diffusioncleft_core.flux.source import FluxSource, phantom_source
from ..diffusioncleft_core.imageset.cache import Tensors
from ..diffusioncleft_core.progress import Watcher
from ..diffusioncleft_core.recipe.recipe import Recipe, Subset
from . import memory
from .balance import attribute_names, check_balanced
from .buckets import BucketSides
from .cache import Caches, PrivateFolder, cached_latents, cached_text, private_folder
from .data import Collected, TrainImage, collect_held_out, collect_images
from .events import EVENT_SECONDS, Events
from .folders import held_out_folders, image_folders
from .interruption import Interruption
from .preview import PreviewPrompt, read_prompts
from .triggers import check_preserved, counterparts, known_trigger

EMPTY_CAPTION = ""
NO_HEALTHY_CAPTION = (
    "photographs of a dataset have no caption without the finding, so under healthy prompts the finding may "
    "show: build the dataset again, if an earlier version built it, or give captions the words of the "
    "vocabulary's healthy_face"
)


@dataclass(frozen=True)
class Prepared:
    """What a training takes its batches from.

    Attributes:
        latents: one [16, h, w] float32 an image.
        text: embeddings by caption, the empty one and previews included.
        trigger: empty if it is not known.
        key_id: tells which secret key made the fingerprints of images.
        held_out, held_out_latents: images to validate on, with one [16, h, w] float32 each.
    """

    collected: Collected
    latents: list[torch.Tensor]
    text: dict[str, Tensors]
    previews: list[PreviewPrompt]
    fingerprints: dict[str, str]
    trigger: str = ""
    key_id: str = ""
    held_out: tuple[TrainImage, ...] = ()
    held_out_latents: tuple[torch.Tensor, ...] = ()

    def held_out_images(self) -> Iterator[tuple[torch.Tensor, str, str]]:
        """Latents [16, h, w], caption and pixels' SHA-256 of each image to validate on."""
        for latents, image in zip(self.held_out_latents, self.held_out, strict=True):
            yield latents, image.caption, image.sha256

    def preserved(
        self, indices: tuple[int, ...], other: str | None, turn: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return text [B, T, D] and pooled text [B, P] of the captions under which the base model is held.

        other: another class's trigger. turn: counts through each image's `counterparts`, from 0.
        """
        every = [preserved_captions(self.collected.images[i], self.trigger, other) for i in indices]
        entries = [self.text[captions[turn % len(captions)]] for captions in every]
        return torch.stack([e["text"] for e in entries]), torch.stack([e["pooled"] for e in entries])

    def images(
        self, indices: tuple[int, ...], uncaptioned: tuple[bool, ...] = ()
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return latents [B, 16, h, w], text [B, T, D] and pooled text [B, P] of images of one bucket.

        Those that are `uncaptioned`, a value an image, stand under the empty caption.
        """
        captions = [self.collected.images[index].caption for index in indices]
        for at, bare in enumerate(uncaptioned):
            captions[at] = EMPTY_CAPTION if bare else captions[at]
        texts = [self.text[caption] for caption in captions]
        return (
            torch.stack([self.latents[index] for index in indices]),
            torch.stack([entry["text"] for entry in texts]),
            torch.stack([entry["pooled"] for entry in texts]),
        )


def preserved_captions(image: TrainImage, trigger: str, other: str | None) -> tuple[str, ...]:
    """The captions under which the base model's output for an image is preserved, in their turn."""
    return counterparts(image.caption, trigger, other, image.healthy_caption)


def base_model(recipe: Recipe) -> FluxSource:
    """Return the base model's files."""
    if recipe.model.phantom:
        return phantom_source()
    assert recipe.model.base is not None
    return FluxSource.from_arguments(
        recipe.model.base,
        vae=recipe.model.vae,
        clip_l=recipe.model.clip_l,
        t5xxl=recipe.model.t5xxl,
        tokenizer_clip=recipe.model.tokenizer_clip,
        tokenizer_t5=recipe.model.tokenizer_t5,
    )


def prepare(
    recipe: Recipe,
    source: FluxSource,
    device: torch.device,
    dtype: torch.dtype,
    events: Events,
    interruption: Interruption,
) -> Prepared:
    """Read the images; encode what the cache lacks, text first, one encoder on the device at a time, then
    free both.
    """
    previews = read_prompts(recipe)
    folders = image_folders(recipe)
    sides = BucketSides(recipe.data.bucket_step, recipe.data.bucket_min_side, recipe.data.bucket_max_side)
    collected = collect_images(
        folders,
        recipe.data.resolution,
        sides,
        interruption.raise_if_requested,
        every_base=recipe.data.multi_resolution,
        mirror=recipe.data.mirror,
    )
    left_out, held_out = collected.left_out, tuple[TrainImage, ...]()
    if kept_back := held_out_folders(recipe):
        found = collect_held_out(
            kept_back, collected, recipe.data.resolution, sides, interruption.raise_if_requested
        )
        left_out += tuple(message for message in found.left_out if message not in left_out)
        held_out = found.images[: recipe.validation.max_images or None]
    for message in left_out:
        events.emit("warning", message=message, private=True)
    trained = list(dict.fromkeys(image.caption for image in collected.train))
    trigger = known_trigger(recipe.data.trigger, folders, trained)
    preserves, other = bool(recipe.objective.output_preservation_weight), recipe.objective.other_trigger
    if preserves:
        healthy = {image.healthy_caption: None for image in collected.train if image.healthy_caption}
        check_preserved(trained, trigger, other, list(healthy))
        if any(not image.healthy_caption and is_dataset(image.folder) for image in collected.train):
            events.emit("warning", message=NO_HEALTHY_CAPTION)
    private = private_of(recipe, folders)
    caches = Caches(private.cache, read_only=recipe.data.cache_dir, on_disk=recipe.data.cache_on_disk)
    fingerprints = {
        "base model": source.fingerprint("transformer"),
        "autoencoder": source.fingerprint("vae"),
        "text encoders": source.fingerprint("clip_l") + source.fingerprint("t5xxl"),
        "images": private.fingerprint(collected.images),
        "regions": private.fingerprint_of_regions(collected.images),
    }
    if recipe.validation.early_stop:
        fingerprints["hold-out"] = private.fingerprint(held_out)
    if names := attribute_names(recipe.data.balance_by):
        check_balanced([image.attributes for image in collected.train], names)
        fingerprints["balanced"] = private.fingerprint_of_attributes(collected.images, names)
    if preserves and any(image.healthy_caption for image in collected.train):
        fingerprints["healthy captions"] = private.fingerprint_of_healthy_captions(collected.images)
    if recipe.objective.region_weight != 1 and not any(image.region for image in collected.train):
        events.emit("warning", message="no image says where its finding lies: --region_weight has no effect")
    number_format = str(dtype)
    preserved = [
        (caption, image.folder)
        for image in collected.train
        if preserves
        for caption in preserved_captions(image, trigger, other)
    ]
    text = cached_text(
        captions_by_folder(collected, held_out, previews, preserved),
        caches,
        fingerprints["text encoders"] + number_format,
        lambda: load_text_encoders(source, device, dtype),
        encoding_progress(events, interruption, "text embeddings"),
    )
    memory.release()
    latents = cached_latents(
        (*collected.images, *held_out),
        caches,
        fingerprints["autoencoder"] + number_format,
        lambda: load_vae(source, device, dtype),
        encoding_progress(events, interruption, "latents"),
    )
    memory.release()
    count = len(collected.images)
    return Prepared(
        collected,
        latents[:count],
        text,
        previews,
        fingerprints,
        trigger,
        private.key_id,
        held_out,
        tuple(latents[count:]),
    )


def captions_by_folder(
    collected: Collected,
    held_out: Iterable[TrainImage],
    previews: Sequence[PreviewPrompt],
    preserved: Iterable[tuple[str, Path]],
) -> dict[str, dict[Path | None, None]]:
    """All captions of a run, with the folders of the images they come from; None: from no image.

    preserved: captions under which the base model is held, each with its image's folder.
    """
    found: dict[str, dict[Path | None, None]] = {EMPTY_CAPTION: {None: None}}
    for image in (*collected.images, *held_out):
        found.setdefault(image.caption, {})[image.folder] = None
    for caption, folder in preserved:
        found.setdefault(caption, {})[folder] = None
    for preview in previews:
        found.setdefault(preview.prompt, {})[None] = None
    return found


def private_of(recipe: Recipe, folders: Iterable[Subset]) -> PrivateFolder:
    """The private folder of a run on `folders`, made if need be."""
    train_dirs = [folder.image_dir for folder in folders if not folder.is_reg]
    return private_folder(recipe.data.cache_dir, train_dirs, Path(recipe.output.folder))


def loading_progress(events: Events, interruption: Interruption) -> Watcher:
    """Sends `load` events of what is read before encoding and training, and stops when that was asked for."""
    last = 0.0

    def report(what: str, done: int, total: int) -> None:
        nonlocal last
        interruption.raise_if_requested()
        now = time.monotonic()
        if now - last >= EVENT_SECONDS:
            last = now
            events.emit("load", what=what, done=done, total=total)

    return report


def encoding_progress(events: Events, interruption: Interruption, what: str) -> Callable[[int, int], None]:
    """A function that sends `prepare` events, at most two a second, and stops when that was asked for."""
    last = 0.0

    def report(done: int, total: int) -> None:
        nonlocal last
        interruption.raise_if_requested()
        now = time.monotonic()
        if done == total or now - last >= EVENT_SECONDS:
            last = now
            events.emit("prepare", what=what, done=done, total=total)

    return report
