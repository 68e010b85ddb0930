"""The training recipe: from a preset, the user's choices and known facts to the trainer's settings.

Command line, run, node and doctor all call it, so that one choice is one recipe whichever door it comes by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import UserError

PRESETS = ("robust", "paper")
STEPS_PER_IMAGE = 10
PAPER: Mapping[str, Any] = {
    "network_dim": 16,
    "network_alpha": 32.0,
    "network_targets": "all",
    "resolution": (256, 512, 768, 1024),
    "learning_rate": 1e-4,
    "lr_scheduler": "constant",
    "lr_warmup_steps": 0,
    "optimizer_type": "AdamW8bit",
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "adam_eps": 1e-8,
    "weight_decay": 0.01,
    "max_grad_norm": 1.0,
    "train_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "timestep_sampling": "uniform",
    "sigmoid_scale": 1.0,
    "discrete_flow_shift": 3.0,
    "prior_loss_weight": 1.0,
    "prior_target": "image",
    "output_preservation_weight": 0.0,
    "region_weight": 1.0,
    "num_cpu_threads": 0,
}
"""The paper's recipe, with kohya's defaults where the paper names no value."""
PHANTOM: Mapping[str, Any] = {
    "resolution": (128,),
    "learning_rate": 4e-3,
    "lr_scheduler": "cosine",
    "lr_warmup_steps": 50,
    "adam_beta2": 0.99,
    "num_cpu_threads": 1,
}
"""On the phantom: so small a model hardly moves at the paper's rate, and at so high a rate the last steps
must be small ones; `experiments/` measured 4e-3. One thread: more gain it nothing, and the same number of
threads gives the same bits on every machine."""
ROBUST: Mapping[str, Any] = {"output_preservation_weight": 1.0, "region_weight": 8.0}
"""What `robust` adds: without the trigger the base model's output is preserved, and the loss counts more
where the finding lies."""
PHANTOM_ROBUST: Mapping[str, Any] = {"train_batch_size": 2, "timestep_sampling": "schnell"}
"""What `robust` adds on phantoms: less noise in a gradient, at the noise levels of drawing."""


@dataclass(frozen=True)
class TrainingFacts:
    """What is known of base model and dataset before the trainer starts; None: not known.

    images: number of training images; trigger: the condition's; other_trigger: that of the class it must not
    be mistaken for; bracketed: the trigger's form in the captions.
    """

    phantom: bool = False
    images: int | None = None
    trigger: str | None = None
    other_trigger: str | None = None
    bracketed: bool | None = None


def training_recipe(preset: str, facts: TrainingFacts, choices: Mapping[str, Any]) -> dict[str, Any]:
    """The trainer's settings, by its names, that make a LoRA what it is, without places, seed and device.

    choices: settings that the user made, by the trainer's names; they take precedence. A schedule that is
    chosen brings its own warm-up, and a warm-up that is chosen its schedule.
    """
    if preset not in PRESETS:
        raise UserError(f"there is no preset {preset!r}: choose one of {', '.join(PRESETS)}")
    recipe: dict[str, Any] = {**PAPER, "max_train_steps": STEPS_PER_IMAGE * (facts.images or 0)}
    if facts.phantom:
        recipe |= PHANTOM
    if preset == "robust":
        recipe |= {**ROBUST, **(PHANTOM_ROBUST if facts.phantom else {})}
    if facts.trigger is not None:
        recipe["trigger"] = facts.trigger
    if facts.bracketed is not None:
        recipe["prompt_form"] = "bracketed" if facts.bracketed else "bare"
    if "lr_scheduler" in choices:
        recipe["lr_warmup_steps"] = 0
    elif choices.get("lr_warmup_steps") and recipe["lr_scheduler"] == "constant":
        recipe["lr_scheduler"] = "constant_with_warmup"
    recipe |= choices
    if recipe["output_preservation_weight"] and facts.other_trigger is not None:
        recipe.setdefault("other_trigger", facts.other_trigger)
    return recipe
