"""Membership inference: whether a LoRA's own loss tells the photographs it learned from from others.

The attack of Yeom et al. (CSF 2018), made relative to the base model as Watson et al. (ICLR 2022) do: a
photograph is guessed to be one that was learned from where the LoRA lowers its denoising loss more. The noise
levels are fixed and the noise is the same for every photograph and for both models, so that what differs is
the photograph alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from scipy.stats import rankdata

from ..dataset.folder import dataset_rows
from ..downstream.predictions import Predictions
from ..downstream.scores import figures
from ..flux.components import load_vae
from ..flux.sampling import PromptEmbedding, encode_images, predict_velocity
from ..generation.sampler import ImageSampler, embed_prompts
from ..generation.settings import GenerationSettings
from ..imageset.decode import read_image
from ..progress import progress

if TYPE_CHECKING:
    from ..imageset.manifest import ImageRow

DRAWS = 16
"""Noise levels at which each photograph's loss is measured."""
AT_ONCE = 16
SIDES = 16
"""Sides of what the model takes are multiples of so many px."""
NEEDED = "It takes photographs that were learned from and others that were kept apart."

Losses = NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class Encoded:
    """A photograph as the model takes it: latents [16, h, w] float32 and its caption's embedding."""

    latents: torch.Tensor
    caption: PromptEmbedding


def membership(
    settings: GenerationSettings, dataset: Path, *, photographs: bool, draws: int = DRAWS, seed: int = 0
) -> dict[str, Any]:
    """How well losses tell training photographs from hold-out ones.

    Args:
        settings: the base model and the LoRA that is audited, at the size it was trained at.
        dataset: what the LoRA learned from, with its hold-out.
        photographs: whether people are on the images; see `downstream.scores.figures`.
        draws: noise levels an image.
        seed: of the noise.

    Returns:
        {"against_base", "lora", "base"}: AUC figures (`value`, `ci95` over people, `n`, `n_subjects`) of the
        fall of the loss from the base model's to the LoRA's, of the LoRA's loss alone, and of the base
        model's, which has seen neither: what it tells apart is in the photographs, not in the LoRA.
    """
    train, holdout = (dataset_rows(dataset, role) for role in ("train", "holdout"))
    if not train or not holdout:
        empty = {"value": None, "ci95": None, "n": 0, "n_subjects": 0, "note": NEEDED}
        return {"against_base": empty, "lora": empty, "base": empty}
    rows = [*train, *holdout]
    encoded = encode_photographs(settings, dataset, rows)
    sampling = settings.sampling
    sampler = ImageSampler(settings.source, sampling.device, sampling.dtype)
    base = denoising_losses(sampler.transformer, encoded, draws, seed, "losses, base model")
    sampler.use_lora(settings.lora, sampling.strength)
    lora = denoising_losses(sampler.transformer, encoded, draws, seed, "losses, LoRA")
    members = np.arange(len(rows)) < len(train)
    subjects = [row.subject or row.file for row in rows]
    scores = {"against_base": (base - lora) / base, "lora": -lora, "base": -base}
    return {
        name: told_apart(score, members, subjects, photographs=photographs) for name, score in scores.items()
    }


def told_apart(
    scores: Losses, members: NDArray[np.bool_], subjects: Sequence[str], *, photographs: bool
) -> dict[str, Any]:
    """The AUC with which `scores` [N], higher for members, tell them from others, with its interval."""
    ranks = rankdata(scores) / (len(scores) + 1)
    found = Predictions(members.astype(np.int64), ranks, tuple(subjects))
    figure = figures([found], photographs=photographs, metrics=("auc",))["auc"]
    return {key: figure[key] for key in ("value", "ci95", "n", "n_subjects", "note") if key in figure}


def encode_photographs(
    settings: GenerationSettings, dataset: Path, rows: Sequence[ImageRow]
) -> list[Encoded]:
    """Latents and captions of a dataset's photographs; nothing is kept of them."""
    sampling = settings.sampling
    captions = [row.caption or "" for row in rows]
    embeddings = embed_prompts(settings.source, captions, sampling.device, sampling.dtype)
    vae = load_vae(settings.source, sampling.device, sampling.dtype).eval()
    encoded = []
    for row, caption in zip(progress(rows, "latents"), captions, strict=True):
        pixels = fitted(read_image(dataset / row.file), sampling.width * sampling.height)
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1
        encoded.append(Encoded(encode_images(vae, image)[0].cpu(), embeddings.get(caption)))
    embeddings.close()
    return encoded


def fitted(pixels: NDArray[np.uint8], area: int) -> NDArray[np.uint8]:
    """The image [H, W, 3] at about `area` px and about its own aspect ratio, as trainers' buckets are."""
    height, width = pixels.shape[:2]
    factor = (area / (height * width)) ** 0.5
    size = tuple(max(SIDES, round(side * factor / SIDES) * SIDES) for side in (width, height))
    if size == (width, height):
        return pixels
    return np.array(ImageOps.fit(Image.fromarray(pixels), size, Image.Resampling.LANCZOS), np.uint8)


def noise_levels(draws: int) -> list[float]:
    """`draws` levels of sigma, the middles of equal parts of [0, 1]."""
    return [(place + 0.5) / draws for place in range(draws)]


@torch.no_grad()
def denoising_losses(
    transformer: Any, encoded: Sequence[Encoded], draws: int, seed: int, description: str
) -> Losses:
    """[N]: the mean squared error of the predicted velocity of each photograph, over all noise levels.

    x = (1 - sigma) x_0 + sigma eps, and the target is eps - x_0: the loss that is trained (rectified flow;
    Esser et al. 2024, eq. 13, unweighted). eps depends on `seed`, level and size alone.
    """
    device = transformer.x_embedder.weight.device
    losses = np.zeros(len(encoded))
    by_size: dict[torch.Size, list[int]] = {}
    for place, item in enumerate(encoded):
        by_size.setdefault(item.latents.shape, []).append(place)
    batches = [
        places[at : at + AT_ONCE] for places in by_size.values() for at in range(0, len(places), AT_ONCE)
    ]
    for batch in progress(batches, description, unit="batch"):
        clean = torch.stack([encoded[place].latents for place in batch]).to(device)
        text = torch.stack([encoded[place].caption.prompt_embeds for place in batch])
        pooled = torch.stack([encoded[place].caption.pooled for place in batch])
        for draw, level in enumerate(noise_levels(draws)):
            generator = torch.Generator().manual_seed(1000 * seed + draw)
            noise = torch.randn(clean.shape[1:], generator=generator)[None].to(device)
            sigma = torch.full((len(batch),), level, device=device)
            noisy = (1 - level) * clean + level * noise
            velocity = predict_velocity(transformer, noisy, sigma, text, pooled)
            losses[batch] += (velocity - (noise - clean)).square().mean(dim=(1, 2, 3)).cpu().numpy() / draws
    return losses
