"""Optimizers and learning-rate schedules."""

import importlib
import importlib.util
import math
import os
from collections.abc import Sequence
from typing import Any

import torch

from ..diffusioncleft_core.recipe.recipe import Recipe
from .events import Events


def build_optimizer(recipe: Recipe, parameters: Sequence[torch.nn.Parameter], events: Events) -> Any:
    """Return AdamW, in 8 bits if that was asked for and bitsandbytes is there; else a notice is sent."""
    common: dict[str, Any] = {
        "lr": recipe.optimizer.learning_rate,
        "betas": (recipe.optimizer.beta1, recipe.optimizer.beta2),
        "eps": recipe.optimizer.epsilon,
        "weight_decay": recipe.optimizer.weight_decay,
    }
    if recipe.optimizer.name == "AdamW8bit":
        bitsandbytes = _bitsandbytes()
        if bitsandbytes is not None:
            return bitsandbytes.optim.AdamW8bit(parameters, **common)
        events.emit(
            "notice", message="bitsandbytes is missing, so AdamW runs in 32 bits: pip install bitsandbytes"
        )
    return torch.optim.AdamW(parameters, **common, fused=True)


def optimizer_name(recipe: Recipe) -> str:
    """Return the name of the optimizer that `build_optimizer` gives here, without importing anything."""
    missing = importlib.util.find_spec("bitsandbytes") is None
    return "AdamW" if missing else recipe.optimizer.name


def learning_rate(recipe: Recipe, step: int, total: int) -> float:
    """Return the learning rate of `step`, 1 to `total`: a function of the step, with nothing to save."""
    warmup = recipe.optimizer.warmup_steps
    if recipe.optimizer.schedule != "constant" and step <= warmup:
        return recipe.optimizer.learning_rate * step / (warmup + 1)
    progress = (step - 1 - warmup) / max(1, total - warmup)
    if recipe.optimizer.schedule == "linear":
        return recipe.optimizer.learning_rate * (1 - progress)
    if recipe.optimizer.schedule == "cosine":
        return recipe.optimizer.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
    return recipe.optimizer.learning_rate


def _bitsandbytes() -> Any:
    """Import bitsandbytes without a network: on some processors it would ask a hub for a kernel."""
    before = os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        return importlib.import_module("bitsandbytes")
    except (ImportError, OSError, RuntimeError):
        return None
    finally:
        if before is None:
            del os.environ["HF_HUB_OFFLINE"]
        else:
            os.environ["HF_HUB_OFFLINE"] = before
