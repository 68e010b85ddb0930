"""Optimizers and learning-rate schedules."""

import ast
import importlib.util
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..diffusioncleft_core.environment import offline_import
from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.recipe.recipe import Optimizer, Recipe
from .events import Events
from .network_args import pairs_of

_PACKAGES: Mapping[str, tuple[str, str, str]] = {
    "Adafactor": ("transformers.optimization", "Adafactor", "transformers"),
    "Lion": ("lion_pytorch", "Lion", "lion-pytorch"),
    "Lion8bit": ("bitsandbytes.optim", "Lion8bit", "bitsandbytes"),
    "Prodigy": ("prodigyopt", "Prodigy", "prodigyopt"),
}
"""Module, class and package of the optimizers that are not AdamW."""
_ADAFACTOR = {"scale_parameter": False, "relative_step": False, "warmup_init": False}
"""Its rate is the schedule's."""


def build_optimizer(recipe: Recipe, parameters: Sequence[torch.nn.Parameter], events: Events) -> Any:
    """Return the recipe's optimizer; AdamW in 32 bits where bitsandbytes is not there, and a notice is sent.

    Raises:
        UserError: its package is not installed, or it doesn't take one of the further arguments.
    """
    chosen = recipe.optimizer
    further = further_arguments(chosen.args)
    if chosen.name in _PACKAGES:
        return _of_package(chosen, parameters, further)
    common: dict[str, Any] = {
        "lr": chosen.learning_rate,
        "betas": (chosen.beta1, chosen.beta2),
        "eps": chosen.epsilon,
        "weight_decay": chosen.weight_decay,
        **further,
    }
    if chosen.name == "AdamW8bit":
        bitsandbytes = offline_import("bitsandbytes")
        if bitsandbytes is not None:
            return _built(bitsandbytes.optim.AdamW8bit, parameters, common)
        events.emit(
            "notice", message="bitsandbytes is missing, so AdamW runs in 32 bits: pip install bitsandbytes"
        )
    return _built(torch.optim.AdamW, parameters, {"fused": True, **common})


def optimizer_name(recipe: Recipe) -> str:
    """Return the name of the optimizer that `build_optimizer` gives here, without importing anything."""
    missing = importlib.util.find_spec("bitsandbytes") is None
    return "AdamW" if missing and recipe.optimizer.name == "AdamW8bit" else recipe.optimizer.name


def further_arguments(arguments: Sequence[str]) -> dict[str, Any]:
    """`--optimizer_args` as values: numbers, truth values, tuples; UserError for what is none."""
    found: dict[str, Any] = {}
    for name, value in pairs_of(arguments, "optimizer_args").items():
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            raise UserError(f"--optimizer_args {name}={value} is no number, True, False or None") from None
    return found


def learning_rate(recipe: Recipe, step: int, total: int) -> float:
    """Return the learning rate of `step`, 1 to `total`: a function of the step, with nothing to save.

    The schedules are those of `transformers.optimization`, and a first step never has the rate 0.
    """
    chosen = recipe.optimizer
    warmup = chosen.warmup_steps
    if chosen.schedule != "constant" and step <= warmup:
        return chosen.learning_rate * step / (warmup + 1)
    return chosen.learning_rate * _share(chosen, step - 1, total)


def _share(chosen: Optimizer, done: int, total: int) -> float:
    """The rate after `done` steps, as a share of the highest."""
    warmup = chosen.warmup_steps
    progress = (done - warmup) / max(1, total - warmup)
    if chosen.schedule == "linear":
        return 1 - progress
    if chosen.schedule == "cosine":
        return _cosine(progress)
    if chosen.schedule == "cosine_with_restarts":
        return _cosine((chosen.cycles * progress) % 1.0)
    if chosen.schedule == "cosine_with_min_lr":
        return _above(chosen.min_lr_ratio, _cosine(chosen.cycles * progress))
    if chosen.schedule == "polynomial":
        end = min(1.0, 1e-7 / chosen.learning_rate)
        return _above(end, (1 - progress) ** chosen.power)
    if chosen.schedule == "inverse_sqrt":
        timescale = chosen.timescale or warmup or 10_000
        return 1 / math.sqrt(max(1.0, (done + timescale - warmup) / timescale))
    if chosen.schedule == "warmup_stable_decay":
        falling = done - (total - chosen.decay_steps)
        if falling < 0:
            return 1.0
        return _above(chosen.min_lr_ratio, _cosine(chosen.cycles * falling / max(1, chosen.decay_steps)))
    return 1.0


def _cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress))


def _above(least: float, share: float) -> float:
    return share * (1 - least) + least


def _of_package(chosen: Optimizer, parameters: Sequence[torch.nn.Parameter], further: dict[str, Any]) -> Any:
    module, name, package = _PACKAGES[chosen.name]
    loaded = offline_import(module)
    if loaded is None:
        raise UserError(f"--optimizer_type {chosen.name} needs a package: pip install {package}")
    arguments = {"lr": chosen.learning_rate, **further}
    if chosen.name == "Adafactor":
        arguments = {**_ADAFACTOR, **arguments}
        if arguments["relative_step"]:
            raise UserError(
                "Adafactor with relative_step=True takes no rate of a schedule; give --optimizer_args "
                "relative_step=False"
            )
    return _built(getattr(loaded, name), parameters, arguments)


def _built(kind: Any, parameters: Sequence[torch.nn.Parameter], arguments: dict[str, Any]) -> Any:
    try:
        return kind(parameters, **arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"{kind.__name__} does not take these --optimizer_args: {error}") from error
