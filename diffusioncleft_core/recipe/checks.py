"""Whether a recipe can be trained with, said in the words of the door it came by."""

from ..errors import UserError
from .fields import Spelling
from .presets import Changes
from .recipe import SIZE_STEP, Recipe, recipe_fields

_SMALLEST = 64


def by_path(path: str) -> str:
    """The spelling of a recipe file."""
    return path


def checked_choices(choices: Changes, spell: Spelling = by_path) -> dict[str, object]:
    """`choices` in their fields' types; UserError for an unknown field, or a value that it can't be."""
    known = recipe_fields()
    for path in choices:
        if path not in known:
            raise UserError(f"{spell(path)} is no setting of a recipe; leave it out")
    return {path: known[path].check(value, spell(path)) for path, value in choices.items()}


def check_recipe(recipe: Recipe, spell: Spelling = by_path) -> Recipe:
    """Return the recipe if its fields go together; else raise UserError that names them as `spell` does."""
    _check_sizes(recipe, spell)
    name = recipe.output.name
    if not name or name.startswith(".") or any(letter in name for letter in '/\\:*?"<>|\0'):
        raise UserError(
            f"{spell('output.name')} {name!r} is no plain file name; leave out folders and special characters"
        )
    if not recipe.data.caption_extension.startswith("."):
        extension = recipe.data.caption_extension
        raise UserError(f"{spell('data.caption_extension')} {extension!r} needs its dot: .txt")
    if recipe.objective.other_trigger and not recipe.objective.output_preservation_weight:
        raise UserError(
            f"{spell('objective.other_trigger')} is for output preservation; "
            f"give {spell('objective.output_preservation_weight')} too"
        )
    return recipe


def check_places(recipe: Recipe, spell: Spelling = by_path) -> Recipe:
    """Return the recipe if it names the base model, images and prompts it needs, once each."""
    data, model = recipe.data, recipe.model
    if data.subsets and (data.train_dir or data.reg_dir):
        raise UserError(
            f"give {spell('data.config')}, or {spell('data.train_dir')} and {spell('data.reg_dir')}, not both"
        )
    if not data.subsets and data.train_dir is None:
        raise UserError(
            f"there are no training images; give {spell('data.train_dir')} FOLDER "
            f"or {spell('data.config')} TOML"
        )
    if model.phantom and model.base:
        raise UserError(
            f"{spell('model.phantom')} trains the embedded model; leave out {spell('model.base')}"
        )
    if not model.phantom and model.base is None:
        raise UserError(
            f"there is no base model; give {spell('model.base')} FLUX.1-schnell, or {spell('model.phantom')}"
        )
    if (recipe.previews.every_n_steps or recipe.previews.at_first) and recipe.previews.prompts is None:
        raise UserError(f"previews need prompts; give {spell('previews.prompts')} FILE, one prompt a line")
    return recipe


def _check_sizes(recipe: Recipe, spell: Spelling) -> None:
    step = recipe.data.bucket_step
    if step % SIZE_STEP:
        raise UserError(f"{spell('data.bucket_step')} is {step}; FLUX needs a multiple of {SIZE_STEP}")
    smallest = max(step, _SMALLEST)
    if not recipe.data.resolution or min(recipe.data.resolution) < smallest:
        raise UserError(
            f"{spell('data.resolution')} needs sizes of at least {smallest} px, separated by commas"
        )
