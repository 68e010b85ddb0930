"""The training recipe as options of commands that train in the course of something larger."""

from __future__ import annotations

import argparse
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.ranges import sides
from ..diffusioncleft_core.recipe.checks import check_recipe
from ..diffusioncleft_core.recipe.document import read_recipe
from ..diffusioncleft_core.recipe.presets import PRESETS, chosen_recipe, named_recipe
from ..diffusioncleft_core.recipe.recipe import recipe_fields
from ..trainer.kohya import FIELDS, NAMES

if TYPE_CHECKING:
    from ..diffusioncleft_core.recipe.recipe import Recipe

DEFAULT_PRESET = PRESETS[0]
MODEL_OPTIONS = {
    "base" if path == "model.base" else name: path
    for name, path in FIELDS.items()
    if path.startswith("model.")
}
"""The options of `add_base_arguments` and their fields of the recipe."""


def spelled(path: str) -> str:
    """A field of the recipe as an option here: kohya's name with hyphens."""
    return "--base" if path == "model.base" else f"--{NAMES[path].replace('_', '-')}"


def add_preset(group: Any) -> None:
    """Add the named recipe, and the recipe file in its place."""
    group.add_argument(
        "--preset",
        choices=PRESETS,
        help="robust ties the finding to the trigger and looks closer where it lies, paper does not "
        f"(default {DEFAULT_PRESET})",
    )
    group.add_argument(
        "--recipe",
        type=Path,
        metavar="FILE",
        help="a recipe.json, or a LoRA that holds one, in place of a preset; other options come before it",
    )


def add_recipe_options(group: Any, paths: tuple[str, ...]) -> None:
    """Add fields of the recipe as options, with their help, range and the presets' defaults."""
    paper, phantom = named_recipe(DEFAULT_PRESET), named_recipe(DEFAULT_PRESET, phantom=True)
    for path in paths:
        entry = recipe_fields()[path]
        text = entry.setting.help
        if not (entry.optional or entry.kind is bool or path == "optimizer.steps"):
            text += f" (default {_shown(paper[path])}"
            text += f"; phantom {_shown(phantom[path])})" if paper[path] != phantom[path] else ")"
        common: dict[str, Any] = {"default": None, "help": text.replace("%", "%%")}
        if entry.kind is bool:
            group.add_argument(spelled(path), action=argparse.BooleanOptionalAction, **common)
            continue
        several = typing.get_origin(entry.kind) is tuple
        kind = entry.setting.range or (sides if several else entry.kind)
        metavar = "PX" if several else "FILE" if entry.kind is Path else None
        choices = entry.setting.choices or None
        group.add_argument(spelled(path), type=kind, choices=choices, metavar=metavar, **common)


def recipe_from(args: argparse.Namespace, paths: tuple[str, ...], below: Mapping[str, Any]) -> Recipe:
    """The recipe that the options mean.

    Args:
        args: of a parser with `add_preset`, `add_recipe_options` and `add_base_arguments`.
        paths: the fields that are options.
        below: values that a preset takes here, unless an option says otherwise.

    Raises:
        UserError: both preset and recipe file, or a recipe that can't be.
    """
    if args.recipe is not None and args.preset is not None:
        raise UserError("--recipe takes the place of a preset: leave out --preset, or leave out --recipe")
    if args.recipe is not None:
        recipe = read_recipe(args.recipe)
    else:
        recipe = chosen_recipe(named_recipe(args.preset or DEFAULT_PRESET, phantom=args.phantom), below)
    given = {path: getattr(args, spelled(path)[2:].replace("-", "_")) for path in paths}
    model = {path: getattr(args, name) for name, path in MODEL_OPTIONS.items()}
    chosen = {path: value for path, value in given.items() if value is not None}
    return check_recipe(chosen_recipe(recipe, {**chosen, **model}), spelled)


def preset_name(args: argparse.Namespace) -> str:
    """What a report calls the recipe."""
    return args.preset or (DEFAULT_PRESET if args.recipe is None else "recipe file")


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
