"""The recipe's fields as widgets: default, range and tooltip come from the field."""

import functools
import math
import typing
from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io

from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.recipe.presets import PRESETS, named_recipe
from ..diffusioncleft_core.recipe.recipe import Recipe, recipe_fields
from ..diffusioncleft_core.recipe.setting import Field
from .common import AUTO, advanced

WIDGETS: Mapping[str, str] = {
    "steps": "optimizer.steps",
    "preview_every": "previews.every_n_steps",
    "network_dim": "network.rank",
    "network_alpha": "network.alpha",
    "network_form": "network.form",
    "network_targets": "network.targets",
    "network_qkv": "network.qkv",
    "resolution": "data.resolution",
    "multi_resolution": "data.multi_resolution",
    "batch_size": "data.batch_size",
    "optimizer": "optimizer.name",
    "learning_rate": "optimizer.learning_rate",
    "lr_scheduler": "optimizer.schedule",
    "lr_warmup_steps": "optimizer.warmup_steps",
    "gradient_accumulation": "optimizer.accumulation_steps",
    "weight_decay": "optimizer.weight_decay",
    "max_grad_norm": "optimizer.max_grad_norm",
    "ema_decay": "optimizer.ema_decay",
    "seed": "objective.seed",
    "timestep_sampling": "objective.timestep_sampling",
    "sigmoid_scale": "objective.sigmoid_scale",
    "shift": "objective.shift",
    "output_preservation_weight": "objective.output_preservation_weight",
    "region_weight": "objective.region_weight",
    "prior_loss_weight": "objective.prior_loss_weight",
    "prior_target": "objective.prior_target",
    "caption_dropout_rate": "objective.caption_dropout_rate",
    "validate_every": "validation.every_n_steps",
    "early_stop": "validation.early_stop",
    "mixed_precision": "memory.precision",
    "base_format": "memory.base_format",
    "gradient_checkpointing": "memory.gradient_checkpointing",
    "blocks_to_swap": "memory.blocks_to_swap",
    "memory_limit": "memory.limit",
    "compile": "memory.compile",
    "deterministic": "memory.deterministic",
    "preview_size": "previews.size",
    "save_precision": "output.save_precision",
    "save_every": "output.save_every_n_steps",
    "checkpoint_every": "output.checkpoint_every_n_steps",
    "mirror": "data.mirror",
    "balance_by": "data.balance_by",
    "lokr_factor": "network.factor",
}
"""Widgets that are fields of the recipe, by the field's path."""
SWITCH: Mapping[str, bool] = {"on": True, "off": False}
"""The words of a yes or no that may also be left to the trainer."""
_NAMES = {path: widget for widget, path in WIDGETS.items()}


def spelled(path: str) -> str:
    """A field of the recipe as the nodes call it."""
    return _NAMES.get(path, path)


@functools.cache
def unset(widget: str) -> Any:
    """The widget's value that leaves the field to the preset: the one of all presets where they agree, and
    leave it not to the trainer.
    """
    path = WIDGETS[widget]
    entry = recipe_fields()[path]
    values = {_value(path, name, phantom) for name in PRESETS for phantom in (False, True)}
    if len(values) == 1 and None not in values:
        return values.pop()
    if entry.kind is bool or entry.setting.choices or typing.get_origin(entry.kind) is tuple:
        return AUTO
    if entry.kind is str:
        return ""
    assert entry.setting.range is not None, path
    return entry.kind(-1 if entry.setting.range.holds(entry.kind(0)) else 0)


def recipe_widget(
    widget: str, *, note: str = "", largest: float | None = None, basic: bool = True, **options: Any
) -> Any:
    """The widget of a field.

    Args:
        widget: its name, in `WIDGETS`.
        note: what a user of ComfyUI must know beside the field's help.
        largest: the highest value that is offered; the field's own by default.
        basic: shown at once; others are folded away where a release knows how to.
        options: of the input, as `step`; they take precedence over the field's.
    """
    entry, default = recipe_fields()[WIDGETS[widget]], unset(widget)
    options = {"default": default, "tooltip": _tooltip(entry, default, note)} | options
    options |= {} if basic else advanced()
    if entry.kind is bool and entry.optional:
        return io.Combo.Input(widget, options=[default, *SWITCH], **options)
    if entry.kind is bool:
        return io.Boolean.Input(widget, **options)
    if entry.setting.choices:
        first = [] if default in entry.setting.choices else [default]
        return io.Combo.Input(widget, options=[*first, *entry.setting.choices], **options)
    if entry.kind is str or typing.get_origin(entry.kind) is tuple:
        return io.String.Input(widget, **options)
    allowed = entry.setting.range
    assert allowed is not None, entry.path
    low = allowed.low + (options.get("step", 0) if allowed.above else 0)
    high = allowed.high if largest is None else min(largest, allowed.high)
    assert math.isfinite(low) and math.isfinite(high), entry.path
    kind: Any = io.Int if allowed.kind is int else io.Float
    bounds = {"min": allowed.kind(min(low, default)), "max": allowed.kind(high)}
    return kind.Input(widget, **{**bounds, **options})


def field_value(widget: str, value: Any) -> Any:
    """What a widget's value, which is not the preset's, is in the recipe; UserError for what can't be there.

    A widget's bounds reach down to the number that stands for the preset's, and let through what lies between
    that and the field's own.
    """
    entry, left = recipe_fields()[WIDGETS[widget]], unset(widget)
    try:
        return entry.check(SWITCH.get(value, value) if entry.kind is bool else value, widget)
    except UserError as error:
        allowed = entry.setting.range
        if allowed is None or allowed.holds(left):
            raise
        raise UserError(f"{error}, or {_shown(left)} for the preset's") from None


def _value(path: str, preset: str, phantom: bool) -> Any:
    return _recipe(preset, phantom)[path]


@functools.cache
def _recipe(preset: str, phantom: bool) -> Recipe:
    return named_recipe(preset, phantom=phantom)


def _tooltip(entry: Field, default: Any, note: str) -> str:
    """The field's help as sentences, with what the presets say of it where they don't agree."""
    told = f"{entry.setting.help[0].upper()}{entry.setting.help[1:]}."
    presets = _by_preset(entry.path)
    if ";" in presets:
        told += f" {_shown(default)}: the preset's, {presets}."
    return f"{told} {note}".rstrip()


def _by_preset(path: str) -> str:
    """A field's value in the presets: the paper's, then those that differ."""
    paper, robust = (_value(path, name, False) for name in ("paper", "robust"))
    phantom, both = (_value(path, name, True) for name in ("paper", "robust"))
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
