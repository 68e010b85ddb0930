"""Epochs as steps, once it is known how many batches an epoch has."""

from ..diffusioncleft_core.recipe.recipe import Recipe
from .data_order import DataOrder


def steps_an_epoch(recipe: Recipe, order: DataOrder) -> int:
    """Optimizer steps an epoch takes, rounded up as in kohya's scripts."""
    return -(-order.batches_an_epoch // recipe.optimizer.accumulation_steps)


def in_steps(recipe: Recipe, order: DataOrder) -> Recipe:
    """The recipe with its epochs turned into steps; epochs take precedence, as in kohya's scripts."""
    each = steps_an_epoch(recipe, order)
    pairs = {
        "optimizer.steps": recipe.optimizer.epochs,
        "output.save_every_n_steps": recipe.output.save_every_n_epochs,
        "previews.every_n_steps": recipe.previews.every_n_epochs,
        "validation.every_n_steps": recipe.validation.every_n_epochs,
    }
    return recipe.replaced({path: epochs * each for path, epochs in pairs.items() if epochs})
