"""What a run needs before its first step: base model, images, latents and text embeddings."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..diffusioncleft_core.flux.components import load_text_encoders, load_vae
from ..diffusioncleft_core.flux.source import FluxSource, phantom_source
from . import memory
from .cache import Caches, PrivateFolder, Tensors, cached_latents, cached_text, private_folder
from .config import TrainSettings, image_folders
from .data import Collected, collect_images
from .events import Events
from .interruption import Interruption
from .preview import PreviewPrompt, read_prompts
from .triggers import check_preserved, counterpart, known_trigger

EMPTY_CAPTION = ""


@dataclass(frozen=True)
class Prepared:
    """`latents`: one [16, h, w] float32 an image; `text`: embeddings by caption, the empty one and previews
    included; `trigger`: empty if it is not known.
    """

    collected: Collected
    latents: list[torch.Tensor]
    text: dict[str, Tensors]
    previews: list[PreviewPrompt]
    fingerprints: dict[str, str]
    trigger: str = ""

    def counterparts(self, indices: tuple[int, ...], other: str | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return text [B, T, D] and pooled text [B, P] of the captions without their trigger, or under
        `other`.
        """
        images = self.collected.images
        captions = [counterpart(images[index].caption, self.trigger, other) for index in indices]
        entries = [self.text[caption] for caption in captions]
        return torch.stack([e["text"] for e in entries]), torch.stack([e["pooled"] for e in entries])

    def images(self, indices: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return latents [B, 16, h, w], text [B, T, D] and pooled text [B, P] of images of one bucket."""
        texts = [self.text[self.collected.images[index].caption] for index in indices]
        return (
            torch.stack([self.latents[index] for index in indices]),
            torch.stack([entry["text"] for entry in texts]),
            torch.stack([entry["pooled"] for entry in texts]),
        )


def preserved_triggers(settings: TrainSettings) -> tuple[str | None, ...]:
    """The triggers under which the base model's output is preserved, in the turn they are taken; None: none
    at all.
    """
    if not settings.output_preservation_weight:
        return ()
    return (None, settings.other_trigger) if settings.other_trigger else (None,)


def base_model(settings: TrainSettings) -> FluxSource:
    """Return the base model's files."""
    if settings.phantom:
        return phantom_source()
    assert settings.pretrained_model_name_or_path is not None
    return FluxSource.from_arguments(
        settings.pretrained_model_name_or_path,
        vae=settings.ae,
        clip_l=settings.clip_l,
        t5xxl=settings.t5xxl,
        tokenizer_clip=settings.tokenizer_clip,
        tokenizer_t5=settings.tokenizer_t5,
    )


def prepare(
    settings: TrainSettings,
    source: FluxSource,
    device: torch.device,
    dtype: torch.dtype,
    events: Events,
    interruption: Interruption,
) -> Prepared:
    """Read the images; encode what the cache lacks, text first, one encoder on the device at a time, then
    free both.
    """
    tell = _Teller(events, interruption)
    previews = read_prompts(settings)
    folders = image_folders(settings)
    collected = collect_images(
        folders, settings.resolution, settings.bucket_reso_steps, interruption.raise_if_requested
    )
    for message in collected.left_out:
        events.emit("warning", message=message)
    trained = list(dict.fromkeys(image.caption for image in collected.train))
    trigger = known_trigger(settings.trigger, folders, trained)
    preserved = preserved_triggers(settings)
    check_preserved(trained, trigger, preserved)
    private = _private(settings, folders)
    caches = Caches(private.cache, on_disk=settings.cache_latents_to_disk)
    fingerprints = {
        "base model": source.fingerprint("transformer"),
        "autoencoder": source.fingerprint("vae"),
        "text encoders": source.fingerprint("clip_l") + source.fingerprint("t5xxl"),
        "images": private.fingerprint(collected.images),
        "regions": private.fingerprint_of_regions(collected.images),
    }
    if settings.region_weight != 1 and not any(image.region for image in collected.train):
        events.emit("warning", message="no image says where its finding lies: --region_weight has no effect")
    number_format = str(dtype)
    text = cached_text(
        captions_by_folder(collected, previews, trigger, preserved),
        caches,
        fingerprints["text encoders"] + number_format,
        lambda: load_text_encoders(source, device, dtype),
        tell("text embeddings"),
    )
    memory.release()
    latents = cached_latents(
        collected.images,
        caches,
        fingerprints["autoencoder"] + number_format,
        lambda: load_vae(source, device, dtype),
        tell("latents"),
    )
    memory.release()
    return Prepared(collected, latents, text, previews, fingerprints, trigger)


def captions_by_folder(
    collected: Collected,
    previews: Sequence[PreviewPrompt],
    trigger: str,
    preserved: Sequence[str | None],
) -> dict[str, dict[Path | None, None]]:
    """All captions of a run, with the folders of the images they come from; None: from no image."""
    found: dict[str, dict[Path | None, None]] = {EMPTY_CAPTION: {None: None}}
    for image in collected.images:
        found.setdefault(image.caption, {})[image.folder] = None
    for image in collected.train:
        for other in preserved:
            found.setdefault(counterpart(image.caption, trigger, other), {})[image.folder] = None
    for preview in previews:
        found.setdefault(preview.prompt, {})[None] = None
    return found


def _private(settings: TrainSettings, folders: Any) -> PrivateFolder:
    train_dirs = [folder.image_dir for folder in folders if not folder.is_reg]
    return private_folder(settings.cache_dir, train_dirs, Path(settings.output_dir))


class _Teller:
    """Makes functions that send `prepare` events, at most two a second, and stop when that was asked for."""

    def __init__(self, events: Events, interruption: Interruption) -> None:
        self._events, self._interruption = events, interruption

    def __call__(self, what: str) -> Callable[[int, int], None]:
        last = 0.0

        def tell(done: int, total: int) -> None:
            nonlocal last
            self._interruption.raise_if_requested()
            now = time.monotonic()
            if done == total or now - last >= 0.5:
                last = now
                self._events.emit("prepare", what=what, done=done, total=total)

        return tell
