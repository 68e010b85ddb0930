"""A recipe as JSON: printed, beside each LoRA, in its metadata. It holds no location, names no photograph."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import parse_json, read_json, write_json
from ..weight_file import stand_in
from .checks import check_recipe, checked_choices
from .recipe import Recipe, recipe_fields

FILE_NAME = "recipe.json"
METADATA_KEY = "recipe"
_NO_RECIPE = "correct it, or print one with: diffusioncleft train --print_recipe"


def shared_fields(recipe: Recipe) -> dict[str, Any]:
    """The recipe's values by path, as JSON values, without its locations."""
    values = {path: recipe[path] for path, entry in recipe_fields().items() if not entry.setting.location}
    return {path: list(value) if isinstance(value, tuple) else value for path, value in values.items()}


def recipe_document(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """The same by group and name, as a recipe file has it."""
    document: dict[str, dict[str, Any]] = {}
    for path, value in shared_fields(recipe).items():
        group, _, name = path.partition(".")
        document.setdefault(group, {})[name] = value
    return document


def recipe_text(recipe: Recipe) -> str:
    """A recipe file's text."""
    return json.dumps(recipe_document(recipe), indent=1, ensure_ascii=False)


def write_recipe(path: Path, recipe: Recipe) -> None:
    """Write a recipe file, unless it says so already."""
    write_json(path, recipe_document(recipe))


def read_recipe(path: Path) -> Recipe:
    """Read a recipe file, or the recipe in a LoRA's metadata; what a file leaves out is the paper's.

    Raises:
        UserError: it can't be read, or holds what is no recipe or a location.
    """
    document = _metadata(path) if path.suffix == ".safetensors" else read_json(path, _NO_RECIPE)
    if not isinstance(document, dict) or not all(isinstance(part, dict) for part in document.values()):
        raise UserError(f"{path} is no recipe; {_NO_RECIPE}")
    values = {f"{group}.{name}": value for group, part in document.items() for name, value in part.items()}
    known = recipe_fields()
    for name in values:
        if name in known and known[name].setting.location:
            raise UserError(f"{path}: {name} is a location, of which a recipe has none; give it as an option")
    try:
        return check_recipe(Recipe().replaced(checked_choices(values)))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _metadata(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    if instead := stand_in(path):
        raise UserError(f"{path} {instead}")
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(METADATA_KEY)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} can't be read as a LoRA; check the path") from error
    if text is None:
        raise UserError(f"the metadata of {path} hold no recipe; give a {FILE_NAME}")
    try:
        return parse_json(text)
    except ValueError as error:
        raise UserError(f"the recipe in the metadata of {path} is damaged; give a {FILE_NAME}") from error
