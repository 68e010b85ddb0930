"""The flow-matching loss, its noise levels and its noise, all pure functions of (seed, step)."""

import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..diffusioncleft_core.flux.sampling import predict_velocity, schnell_sigmas
from ..diffusioncleft_core.recipe.recipe import Recipe
from .data import Draw
from .prepare import Prepared, preserved_triggers

SCHNELL_STEPS = 4


@dataclass(frozen=True)
class NoiseLevels:
    """Distribution of the noise level sigma in [0, 1].

    `uniform`: U(0, 1). `sigmoid`: sigmoid(scale * N(0, 1)). `shift`: the same, then s*t / (1 + (s-1)*t).
    `schnell`: one of the levels at which schnell is sampled in 4 steps (1, 0.75, 0.5, 0.25).
    """

    kind: str = "uniform"
    sigmoid_scale: float = 1.0
    shift: float = 3.0


def seeded(seed: int, *parts: int | str) -> torch.Generator:
    """Return a CPU generator that depends on the arguments alone: a resumed run draws what a straight one
    would.
    """
    digest = hashlib.blake2b("/".join(map(str, (seed, *parts))).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def sample_sigmas(sampling: NoiseLevels, count: int, generator: torch.Generator) -> torch.Tensor:
    """Draw [count] noise levels, float32."""
    if sampling.kind == "uniform":
        return torch.rand(count, generator=generator)
    if sampling.kind == "schnell":
        levels = torch.tensor(schnell_sigmas(SCHNELL_STEPS)[:SCHNELL_STEPS])
        return levels[torch.randint(SCHNELL_STEPS, (count,), generator=generator)]
    sigmas = torch.sigmoid(sampling.sigmoid_scale * torch.randn(count, generator=generator))
    if sampling.kind == "shift":
        sigmas = sampling.shift * sigmas / (1 + (sampling.shift - 1) * sigmas)
    return sigmas


@dataclass(frozen=True)
class NoisyBatch:
    """Input and target of one forward.

    `noisy` and `target` [B, 16, h, w], `sigma` [B], `text` [B, T, D], `pooled` [B, P].
    """

    noisy: torch.Tensor
    sigma: torch.Tensor
    target: torch.Tensor
    text: torch.Tensor
    pooled: torch.Tensor

    def tensors(self) -> tuple[torch.Tensor, ...]:
        return self.noisy, self.sigma, self.target, self.text, self.pooled


def noisy_batch(
    latents: torch.Tensor,
    text: torch.Tensor,
    pooled: torch.Tensor,
    sampling: NoiseLevels,
    generator: torch.Generator,
    device: torch.device,
) -> NoisyBatch:
    """Put noise on clean latents [B, 16, h, w]: x_t = (1 - sigma) x_0 + sigma eps; the target is eps - x_0.

    Rectified flow as in FLUX.1 (Esser et al. 2024, eq. 13, unweighted). Noise is drawn on the CPU in float32,
    so that it is the same on every device.
    """
    sigma = sample_sigmas(sampling, len(latents), generator)
    noise = torch.randn(latents.shape, generator=generator)
    level = sigma[:, None, None, None]
    noisy = (1 - level) * latents + level * noise
    batch = (noisy, sigma, noise - latents, text, pooled)
    return NoisyBatch(*(tensor.to(device, non_blocking=True) for tensor in batch))


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager[Any]:
    """Compute in bf16 around a bf16 base, whose LoRA stays in float32; plainly around a float32 base."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype)


def region_weights(
    region: tuple[float, float, float, float] | None, height: int, width: int, weight: float
) -> torch.Tensor:
    """Loss weights [1, height, width] of a latent, mean 1: `weight` times as much inside the region.

    Args:
        region: (x0, y0, x1, y1) in px, 8 a latent cell; a cell is inside when its centre is. None: all equal.
        height, width: of the latent.
        weight: above 0; 1 weighs all alike.
    """
    weights = torch.ones(1, height, width)
    if region is None or weight == 1:
        return weights
    y, x = 8.0 * torch.arange(height) + 4, 8.0 * torch.arange(width) + 4
    inside = ((y >= region[1]) & (y < region[3]))[:, None] & ((x >= region[0]) & (x < region[2]))[None]
    weights[0][inside] = weight
    return weights / weights.mean()


class Objective:
    """Loss and gradients of one batch of training images.

    loss = mean over the training images
         + prior_loss_weight * mean over the regularisation images, one a training image, if there are any
           (Ruiz et al. 2023, DreamBooth, eq. 2)
         + output_preservation_weight * mean over the training images once more, at the same noise, under
           captions without the trigger, where the target is what the base model predicts without the LoRA
           (ai-toolkit calls it differential output preservation).

    With `region_weight` squared errors inside the finding's box count more, in all three. Pictures of one
    size share a forward pass.
    """

    def __init__(
        self,
        recipe: Recipe,
        prepared: Prepared,
        transformer: Any,
        activate: Callable[[bool, bool], None],
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """`activate(lora, adapter)` switches the LoRA and the training adapter on and off."""
        self._recipe, self._prepared, self._transformer = recipe, prepared, transformer
        self._activate, self._device, self._dtype = activate, device, dtype
        self._noise_levels = NoiseLevels(
            recipe.objective.timestep_sampling, recipe.objective.sigmoid_scale, recipe.objective.shift
        )
        self._base_target = recipe.objective.prior_target == "base"
        self._preserved = preserved_triggers(recipe)

    def backward(self, draw: Draw, number: int) -> torch.Tensor:
        """Add the gradients of batch `number`; return [2]: the loss of training, and that of regularisation
        and output preservation together, unweighted.

        Both are this batch's share of the step under gradient accumulation; the second is NaN without
        regularisation and output preservation.
        """
        share = 1.0 / self._recipe.optimizer.accumulation_steps
        totals = torch.zeros(2, device=self._device)
        for position, group in enumerate(self._forwards(draw)):
            count = len(group.train)
            generator = seeded(self._recipe.objective.seed, "noise", number, position)
            indices = group.train + group.reg
            batch = noisy_batch(*self._prepared.images(indices), self._noise_levels, generator, self._device)
            if self._base_target and group.reg:
                batch = replace(batch, target=self._base_targets(batch, count))
            if self._preserved and count:
                batch = self._with_preserved(batch, group.train, number)
                indices += group.train
            losses = self._sample_losses(batch, indices)
            train = losses[:count].sum() / len(draw.train)
            reg = losses[count : count + len(group.reg)].sum() / max(1, len(draw.reg))
            kept = losses[count + len(group.reg) :].sum() / len(draw.train)
            loss = train + self._recipe.objective.prior_loss_weight * reg
            ((loss + self._recipe.objective.output_preservation_weight * kept) * share).backward()
            reg = reg + kept
            totals += torch.stack([train, reg]).detach() * share
        if not draw.reg and not self._preserved:
            totals[1] = torch.nan
        return totals

    def _forwards(self, draw: Draw) -> list[Draw]:
        """Split a batch by the size of its images, the training images' size first."""
        groups: dict[torch.Size, Draw] = {}
        latents = self._prepared.latents
        for index in draw.train:
            group = groups.get(latents[index].shape, Draw((), ()))
            groups[latents[index].shape] = Draw((*group.train, index), group.reg)
        for index in draw.reg:
            group = groups.get(latents[index].shape, Draw((), ()))
            groups[latents[index].shape] = Draw(group.train, (*group.reg, index))
        return list(groups.values())

    def _sample_losses(self, batch: NoisyBatch, indices: tuple[int, ...]) -> torch.Tensor:
        """Return the mean squared error of the predicted velocity, weighted by region, a value a sample: [B],
        float32.
        """
        errors = (self._velocity(batch) - batch.target).square()
        if self._recipe.objective.region_weight != 1:
            images = self._prepared.collected.images
            height, width = errors.shape[-2:]
            weight = self._recipe.objective.region_weight
            weights = [region_weights(images[i].region, height, width, weight) for i in indices]
            errors = errors * torch.stack(weights).to(errors.device)
        return errors.mean(dim=(1, 2, 3))

    def _with_preserved(self, batch: NoisyBatch, train: tuple[int, ...], number: int) -> NoisyBatch:
        """The batch, and behind it its training images at the same noise under captions without the trigger;
        the target there is the base model's own prediction.
        """
        other = self._preserved[number % len(self._preserved)]
        text, pooled = self._prepared.counterparts(train, other)
        count = len(train)
        again = NoisyBatch(
            batch.noisy[:count],
            batch.sigma[:count],
            batch.target[:count],
            text.to(self._device),
            pooled.to(self._device),
        )
        again = replace(again, target=self._base_targets(again, 0))
        pairs = zip(batch.tensors(), again.tensors(), strict=True)
        return NoisyBatch(*(torch.cat(pair) for pair in pairs))

    def _base_targets(self, batch: NoisyBatch, count: int) -> torch.Tensor:
        """Return the batch's targets, those behind the first `count` replaced by the prediction without the
        LoRA.
        """
        self._activate(False, True)
        with torch.no_grad():
            predicted = self._velocity(NoisyBatch(*(tensor[count:] for tensor in batch.tensors())))
        self._activate(True, True)
        return torch.cat([batch.target[:count], predicted])

    def _velocity(self, batch: NoisyBatch) -> torch.Tensor:
        with autocast(self._device, self._dtype):
            return predict_velocity(self._transformer, batch.noisy, batch.sigma, batch.text, batch.pooled)
