"""Recipes for tests, by kohya's names."""

from pathlib import Path

from diffusioncleft.diffusioncleft_core.recipe.recipe import Recipe
from diffusioncleft.trainer.kohya import FIELDS


def changed(recipe: Recipe, **values: object) -> Recipe:
    """`recipe` with other values, by kohya's names."""
    return recipe.replaced({FIELDS[name]: value for name, value in values.items()})


def recipe_of(**values: object) -> Recipe:
    """The paper's recipe with other values, by kohya's names."""
    return changed(Recipe(), **values)


def tiny_recipe(workplace: Path, out: Path, **values: object) -> Recipe:
    """A quick training on a processor: the base in `workplace`/flux, the images in `workplace`/photos."""
    quick = {
        "pretrained_model_name_or_path": workplace / "flux",
        "train_data_dir": workplace / "photos",
        "cache_dir": workplace / "cache",
        "output_dir": out,
        "resolution": (64,),
        "num_cpu_threads": 1,
        "device": "cpu",
    }
    return recipe_of(**{**quick, **values})
