"""The recipe's fields as widgets of the trainer node: default, range and tooltip come from the field."""

import math
import typing
from typing import Any

from comfy_api.latest import io

from ..diffusioncleft_core.recipe.presets import named_recipe
from ..diffusioncleft_core.recipe.recipe import Field, recipe_fields
from .common import AUTO

ALWAYS = object()
"""In place of a value: the widget always says something."""
WIDGETS: dict[str, tuple[str, Any]] = {
    "steps": ("optimizer.steps", 0),
    "learning_rate": ("optimizer.learning_rate", 0.0),
    "seed": ("objective.seed", ALWAYS),
    "network_dim": ("network.rank", ALWAYS),
    "network_alpha": ("network.alpha", ALWAYS),
    "network_targets": ("network.targets", ALWAYS),
    "resolution": ("data.resolution", AUTO),
    "batch_size": ("data.batch_size", 0),
    "gradient_accumulation": ("optimizer.accumulation_steps", ALWAYS),
    "optimizer": ("optimizer.name", ALWAYS),
    "lr_scheduler": ("optimizer.schedule", AUTO),
    "lr_warmup_steps": ("optimizer.warmup_steps", 0),
    "timestep_sampling": ("objective.timestep_sampling", AUTO),
    "weight_decay": ("optimizer.weight_decay", ALWAYS),
    "max_grad_norm": ("optimizer.max_grad_norm", ALWAYS),
    "prior_loss_weight": ("objective.prior_loss_weight", ALWAYS),
    "mixed_precision": ("memory.precision", ALWAYS),
    "gradient_checkpointing": ("memory.gradient_checkpointing", ALWAYS),
    "blocks_to_swap": ("memory.blocks_to_swap", ALWAYS),
    "checkpoint_every": ("output.checkpoint_every_n_steps", ALWAYS),
    "preview_every": ("previews.every_n_steps", ALWAYS),
    "preview_size": ("previews.size", ALWAYS),
    "save_every": ("output.save_every_n_steps", 0),
    "output_preservation_weight": ("objective.output_preservation_weight", -1.0),
    "region_weight": ("objective.region_weight", 0.0),
}
"""Widgets that are fields of the recipe: the field, and the value that leaves the choice to the preset."""
_NAMES = {path: widget for widget, (path, _) in WIDGETS.items()}


def spelled(path: str) -> str:
    """A field of the recipe as the node calls it."""
    return _NAMES.get(path, path)


def recipe_widget(widget: str, *, note: str = "", largest: float | None = None, **options: Any) -> Any:
    """The widget of a field.

    Args:
        widget: its name, in `WIDGETS`.
        note: what a user of ComfyUI must know beside the field's help.
        largest: the highest value that is offered; the field's own by default.
        options: of the input, as `step`; they take precedence over the field's.
    """
    path, unset = WIDGETS[widget]
    entry = recipe_fields()[path]
    default = entry.default if unset is ALWAYS else unset
    options = {"default": default, "tooltip": _tooltip(entry, unset, note)} | options
    if entry.kind is bool:
        return io.Boolean.Input(widget, **options)
    if typing.get_origin(entry.kind) is tuple:
        return io.String.Input(widget, **options)
    if entry.setting.choices:
        first = [] if default in entry.setting.choices else [default]
        return io.Combo.Input(widget, options=[*first, *entry.setting.choices], **options)
    allowed = entry.setting.range
    assert allowed is not None, path
    low = allowed.low + (options.get("step", 0) if allowed.above else 0)
    high = allowed.high if largest is None else min(largest, allowed.high)
    assert math.isfinite(low) and math.isfinite(high), path
    kind: Any = io.Int if allowed.kind is int else io.Float
    bounds = {"min": allowed.kind(min(low, default)), "max": allowed.kind(high)}
    return kind.Input(widget, **{**bounds, **options})


def _tooltip(entry: Field, unset: Any, note: str) -> str:
    """The field's help as sentences, with what the presets say of it where they are asked."""
    told = entry.setting.help[0].upper() + entry.setting.help[1:] + "."
    presets = _by_preset(entry.path)
    if unset is not ALWAYS and (unset != entry.default or ";" in presets):
        told += f" {_shown(unset)}: the preset's, {presets}."
    return f"{told} {note}".rstrip()


def _by_preset(path: str) -> str:
    """A field's value in the presets: the paper's, then those that differ."""
    paper, robust = named_recipe("paper")[path], named_recipe("robust")[path]
    phantom, both = (named_recipe(name, phantom=True)[path] for name in ("paper", "robust"))
    told = [_shown(paper)]
    if robust != paper:
        told.append(f"robust {_shown(robust)}")
    if phantom != paper:
        told.append(f"on the phantom {_shown(phantom)}")
    if both != (phantom if phantom != paper else robust):
        told.append(f"robust on the phantom {_shown(both)}")
    return "; ".join(told)


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
