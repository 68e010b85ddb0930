"""The flow-matching loss, its noise levels and its noise, all pure functions of (seed, step)."""

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..diffusioncleft_core.flux.sampling import predict_velocity, schnell_sigmas
from ..diffusioncleft_core.recipe.recipe import Recipe
from .data_order import Draw
from .prepare import Prepared

SCHNELL_STEPS = 4
HALF_LOSS_SCALE = 1024.0
"""Of the loss under float16, whose smallest numbers gradients fall below."""


@dataclass(frozen=True)
class NoiseLevels:
    """Distribution of the noise level sigma in [0, 1].

    `uniform`: U(0, 1). `sigmoid`: sigmoid(scale * N(0, 1)). `shift`: the same, then s*t / (1 + (s-1)*t).
    `flux_shift`: the same with FLUX.1 dev's shift, which grows with the picture. `sigma`: U(0, 1), shifted.
    `logit_normal`: 1 - sigmoid(mean + std * N(0, 1)), shifted, as kohya's `sigma` with that weighting (Esser
    et al. 2024, eq. 19, where u = 1 is the clean image).
    `schnell`: one of the levels at which schnell is sampled in 4 steps (1, 0.75, 0.5, 0.25).

    `low` and `high` bound the noise that is trained: [0, 1] is mapped linearly onto [low, high].
    """

    kind: str = "uniform"
    sigmoid_scale: float = 1.0
    shift: float = 3.0
    logit_mean: float = 0.0
    logit_std: float = 1.0
    low: float = 0.0
    high: float = 1.0

    @classmethod
    def of(cls, recipe: Recipe) -> "NoiseLevels":
        """The recipe's."""
        chosen = recipe.objective
        return cls(
            chosen.timestep_sampling,
            chosen.sigmoid_scale,
            chosen.shift,
            chosen.logit_mean,
            chosen.logit_std,
            chosen.min_timestep / 1000,
            chosen.max_timestep / 1000,
        )


def seeded(seed: int, *parts: int | str) -> torch.Generator:
    """Return a CPU generator that depends on the arguments alone: a resumed run draws what a straight one
    would.
    """
    digest = hashlib.blake2b("/".join(map(str, (seed, *parts))).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def sample_sigmas(
    sampling: NoiseLevels, count: int, generator: torch.Generator, tokens: int = 256
) -> torch.Tensor:
    """Draw [count] noise levels, float32. tokens: of the picture, a token 2 x 2 cells of the latent."""
    sigmas = _unbounded_sigmas(sampling, count, generator, tokens)
    if (sampling.low, sampling.high) == (0.0, 1.0):
        return sigmas
    return sampling.low + (sampling.high - sampling.low) * sigmas


def _unbounded_sigmas(
    sampling: NoiseLevels, count: int, generator: torch.Generator, tokens: int
) -> torch.Tensor:
    kind = sampling.kind
    if kind == "uniform":
        return torch.rand(count, generator=generator)
    if kind == "schnell":
        levels = torch.tensor(schnell_sigmas(SCHNELL_STEPS)[:SCHNELL_STEPS])
        return levels[torch.randint(SCHNELL_STEPS, (count,), generator=generator)]
    if kind == "sigma":
        return _shifted(torch.rand(count, generator=generator), sampling.shift)
    normal = torch.randn(count, generator=generator)
    if kind == "logit_normal":
        return _shifted(1 - torch.sigmoid(sampling.logit_mean + sampling.logit_std * normal), sampling.shift)
    sigmas = torch.sigmoid(sampling.sigmoid_scale * normal)
    if kind == "shift":
        return _shifted(sigmas, sampling.shift)
    if kind == "flux_shift":
        return _shifted(sigmas, math.exp(flux_mu(tokens)))
    return sigmas


def flux_mu(tokens: int) -> float:
    """FLUX.1 dev's log-shift of a picture of so many tokens: 0.5 at 256, 1.15 at 4096, linear between."""
    return 0.5 + (1.15 - 0.5) * (tokens - 256) / (4096 - 256)


def _shifted(sigmas: torch.Tensor, shift: float) -> torch.Tensor:
    return shift * sigmas / (1 + (shift - 1) * sigmas)


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
    tokens = (latents.shape[-2] // 2) * (latents.shape[-1] // 2)
    sigma = sample_sigmas(sampling, len(latents), generator, tokens)
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
           captions without the trigger or the anomaly (`triggers.counterparts`), where the target is what
           the base model predicts without the LoRA (ai-toolkit calls it differential output preservation).

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
        self._noise_levels = NoiseLevels.of(recipe)
        self._loss_scale = HALF_LOSS_SCALE if dtype == torch.float16 else 1.0
        self._base_target = recipe.objective.prior_target == "base"
        self._preserves = bool(recipe.objective.output_preservation_weight)

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
            clean = self._prepared.images(indices, self._uncaptioned(draw.epoch, number, position, indices))
            batch = noisy_batch(*clean, self._noise_levels, generator, self._device)
            if self._base_target and group.reg:
                batch = replace(batch, target=self._base_targets(batch, count))
            if self._preserves and count:
                batch = self._with_preserved(batch, group.train, number)
                indices += group.train
            losses = self._sample_losses(batch, indices)
            train = losses[:count].sum() / len(draw.train)
            reg = losses[count : count + len(group.reg)].sum() / max(1, len(draw.reg))
            kept = losses[count + len(group.reg) :].sum() / len(draw.train)
            loss = train + self._recipe.objective.prior_loss_weight * reg
            loss = loss + self._recipe.objective.output_preservation_weight * kept
            (loss * share * self._loss_scale).backward()
            reg = reg + kept
            totals += torch.stack([train, reg]).detach() * share
        if not draw.reg and not self._preserves:
            totals[1] = torch.nan
        return totals

    def _uncaptioned(
        self, epoch: int, number: int, position: int, indices: tuple[int, ...]
    ) -> tuple[bool, ...]:
        """Which images of forward `position` of batch `number` lose their caption: by seed and place alone.

        Both settings are as in kohya's scripts: a share of all, and epochs n, 2n, ... throughout. The
        generator is its own, so that noise is the same with and without.
        """
        chosen = self._recipe.objective
        if (every := chosen.caption_dropout_every_n_epochs) and epoch % every == 0:
            return (True,) * len(indices)
        if not chosen.caption_dropout_rate:
            return ()
        generator = seeded(chosen.seed, "caption dropout", number, position)
        draws = torch.rand(len(indices), generator=generator)
        return tuple((draws < chosen.caption_dropout_rate).tolist())

    def unscale(self, parameters: Iterable[torch.nn.Parameter]) -> bool:
        """Take the loss scale of half precision out of the gradients; False where one overflowed.

        Such a step is left out, as `torch.amp.GradScaler` does; the scale is a constant, so that a checkpoint
        has nothing more to hold.
        """
        if self._loss_scale == 1.0:
            return True
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        for gradient in gradients:
            gradient /= self._loss_scale
        return all(bool(torch.isfinite(gradient).all()) for gradient in gradients)

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
        """The batch, and behind it its training images at the same noise under the captions of this turn that
        the base model is held under; the target there is its own prediction.
        """
        other = self._recipe.objective.other_trigger
        text, pooled = self._prepared.preserved(train, other, number)
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
