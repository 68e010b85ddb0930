"""Validation: the loss on held-out images at fixed noise and noise levels; the LoRA at which it was least."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..diffusioncleft_core.dataset.consent import consent_recorded
from ..diffusioncleft_core.dataset.folder import is_dataset
from ..diffusioncleft_core.dataset.trained import remember_validation
from ..diffusioncleft_core.dataset.withdrawn import CHOSEN_BY, MEASURED_ON, TRAINED_ON
from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.flux.sampling import predict_velocity
from ..diffusioncleft_core.outputs import can_write
from ..diffusioncleft_core.recipe.recipe import Recipe
from .checkpoint import Beside, Checkpoint
from .objective import autocast, seeded
from .prepare import Prepared

LEVELS = 4
"""Noise levels at which every image is measured, as in kohya's scripts."""


def remember_held_out(recipe: Recipe, prepared: Prepared, run: str) -> list[Path]:
    """Note in the datasets whose held-out photographs a training is validated on that it is; returns them.

    run: the training's fingerprint.
    """
    stops, saves = recipe.validation.early_stop, recipe.output.save_every_n_steps
    parts = [CHOSEN_BY] if stops else []
    parts += [MEASURED_ON] if saves or not stops else []
    shown: dict[Path, set[str]] = {}
    for image in prepared.held_out:
        shown.setdefault(image.folder, set()).add(image.sha256)
    datasets = [folder for folder in shown if is_dataset(folder) and can_write(folder)]
    for folder in datasets:
        for part in parts:
            remember_validation(folder, run, recipe.output.folder, shown[folder], part)
    return datasets


def unrecorded_hold_out(prepared: Prepared) -> str | None:
    """A sentence where people are validated on whose consent no table holds; nothing is recorded of them."""
    if all(consent_recorded(folder) for folder in {image.folder for image in prepared.held_out}):
        return None
    return (
        "what is validated on in a folder that is no built dataset is recorded nowhere, because no table "
        "there can say that a consent was withdrawn: no "
        "LoRA will be named as chosen by its people or measured on them"
    )


class Validation:
    """The loss on held-out images: the velocity's mean squared error, averaged over images and noise levels.

    Each image has one noise, drawn from the seed and its pixels, and the levels k / 5, k = 1 to 4, of the
    range that is trained: always the same, so that two losses differ by the LoRA alone. Nothing is weighted,
    so that recipes can be compared. One forward pass holds one image: it takes no memory beyond training's.
    """

    def __init__(
        self,
        recipe: Recipe,
        prepared: Prepared,
        transformer: Any,
        device: torch.device,
        dtype: torch.dtype,
        total: int,
    ) -> None:
        """total: the last step."""
        chosen, noise = recipe.validation, recipe.objective
        self._every, self._prepared, self._transformer = chosen.every_n_steps, prepared, transformer
        self._device, self._dtype, self._total = device, dtype, total
        self._seed = noise.seed if chosen.seed is None else chosen.seed
        share = torch.arange(1, LEVELS + 1) / (LEVELS + 1)
        self._sigmas = (noise.min_timestep + (noise.max_timestep - noise.min_timestep) * share) / 1000

    def due(self, step: int) -> bool:
        """Whether the LoRA is validated after `step`: as often as the recipe says, and at the end."""
        return bool(self._every) and (step % self._every == 0 or step == self._total)

    def part(self, step: int, final: "Best | None" = None) -> str:
        """What the held-out images were to the LoRA of `step`.

        final: it is the training's own LoRA, which an early stop chose, or beside which all losses lie.
        """
        if final and final.step:
            return CHOSEN_BY
        return MEASURED_ON if (self._every if final else self.due(step)) else TRAINED_ON

    @torch.no_grad()
    def loss(self, step: int) -> float:
        """The loss of the transformer as it is, after `step`; UserError where it is not finite."""
        errors = [
            self._error(latents, caption, sha256, sigma)
            for latents, caption, sha256 in self._prepared.held_out_images()
            for sigma in self._sigmas
        ]
        value = float(torch.stack(errors).double().mean())
        if not math.isfinite(value):
            raise UserError(f"the validation loss is not finite at step {step}; lower --learning_rate")
        return value

    def _error(self, latents: torch.Tensor, caption: str, sha256: str, sigma: torch.Tensor) -> torch.Tensor:
        """Mean squared error for clean latents [16, h, w] at one noise level, a number."""
        noise = torch.randn(latents.shape, generator=seeded(self._seed, "validation", sha256))
        noisy = ((1 - sigma) * latents + sigma * noise)[None].to(self._device)
        embedding = self._prepared.text[caption]
        text, pooled = (embedding[name][None].to(self._device) for name in ("text", "pooled"))
        with autocast(self._device, self._dtype):
            found = predict_velocity(self._transformer, noisy, sigma[None].to(self._device), text, pooled)
        return (found - (noise - latents)[None].to(self._device)).float().square().mean()


class Best:
    """The LoRA at which the validation loss was least so far, and whether to stop; nothing without patience.

    Attributes:
        step: of that LoRA; 0 before the first validation, and without patience.
        weights: by the parameters' names, on the processor; empty likewise.
    """

    def __init__(self, patience: int, checkpoint: Checkpoint | None = None) -> None:
        """patience: validations without improvement after which to stop; 0: never, and nothing is kept."""
        self._patience, self.step, self._loss, self._since = patience, 0, math.inf, 0
        self.weights: dict[str, torch.Tensor] = {}
        if patience and checkpoint and "best" in checkpoint.beside.values:
            self.step, self._loss, self._since = checkpoint.beside.values["best"]
            self.weights = {
                name.removeprefix("best/"): value
                for name, value in checkpoint.beside.tensors.items()
                if name.startswith("best/")
            }

    @property
    def ended(self) -> bool:
        """Whether the last validations brought nothing."""
        return bool(self._patience) and self._since >= self._patience

    def take(self, step: int, loss: float, parameters: Mapping[str, torch.Tensor]) -> None:
        """Take note of a validation after `step`, and of the LoRA if it is the best."""
        if not self._patience:
            return
        self._since += 1
        if loss < self._loss:
            self.step, self._loss, self._since = step, loss, 0
            self.weights = {name: value.detach().cpu().clone() for name, value in parameters.items()}

    @property
    def beside(self) -> Beside:
        """What a checkpoint holds of it."""
        if not self.step:
            return Beside()
        tensors = {f"best/{name}": value for name, value in self.weights.items()}
        return Beside(tensors, {"best": [self.step, self._loss, self._since]})

    @property
    def metadata(self) -> dict[str, str]:
        """What the file of the best LoRA says of it."""
        return {"validation_loss": repr(self._loss)} if self.step else {}

    def told(self, done: int) -> str:
        """A sentence on which LoRA is kept, of a training that ended at step `done`."""
        why = f", after {self._since} validations without improvement" if self.ended else ""
        return (
            f"the validation loss was least at step {self.step} ({self._loss:.4f}), so the LoRA is that "
            f"step's; training ended at step {done}{why}"
        )
