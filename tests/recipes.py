"""Recipes for tests, by kohya's names."""

from diffusioncleft.diffusioncleft_core.recipe.recipe import Recipe
from diffusioncleft.trainer.kohya import FIELDS


def changed(recipe: Recipe, **values: object) -> Recipe:
    """`recipe` with other values, by kohya's names."""
    return recipe.replaced({FIELDS[name]: value for name, value in values.items()})


def recipe_of(**values: object) -> Recipe:
    """The paper's recipe with other values, by kohya's names."""
    return changed(Recipe(), **values)
