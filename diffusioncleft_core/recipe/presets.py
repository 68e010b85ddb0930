"""From a named recipe, what the user chose and what the dataset says, to the recipe of one training.

Every door makes its recipe here, so that one choice is one recipe whichever way it comes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from ..errors import UserError
from ..ranges import PHANTOM_NOISE
from ..small_counts import is_small
from .recipe import PHANTOM_SIDE, STEPS_PER_IMAGE, Recipe

Changes = Mapping[str, Any]
"""Values by their fields' paths, as `{"optimizer.learning_rate": 1e-3}`."""
PRESETS = ("robust", "paper")
PAPER = Recipe()
_NAMED: Mapping[str, Changes] = MappingProxyType(
    {
        "paper": {},
        "robust": {"objective.output_preservation_weight": 1.0, "objective.region_weight": 8.0},
    }
)
"""`robust`: without the trigger the base model's output is preserved, and the loss counts more where the
finding lies."""
_PHANTOM: Changes = MappingProxyType(
    {
        "model.phantom": True,
        "data.resolution": (PHANTOM_SIDE,),
        "optimizer.learning_rate": 4e-3,
        "optimizer.schedule": "cosine",
        "optimizer.warmup_steps": 50,
        "optimizer.beta2": 0.99,
        "memory.cpu_threads": 1,
        "network.qkv": "separate",
        "output.save_precision": "float",
    }
)
"""On the phantom: so small a model hardly moves at the paper's rate, and at so high a rate the last steps
must be small ones; `experiments/` measured 4e-3. One thread: more gain it nothing, and the same number of
threads gives the same bits on every machine. Its files are small whatever is in them, so they keep every
down matrix and bit."""
_NAMED_ON_PHANTOM: Mapping[str, Changes] = MappingProxyType(
    {
        "paper": {},
        "robust": {
            "data.batch_size": 8,
            "network.rank": 4,
            "network.alpha": 8.0,
            "optimizer.epochs": 20,
            "optimizer.learning_rate": 6e-3,
            "objective.min_timestep": PHANTOM_NOISE[0],
            "objective.max_timestep": PHANTOM_NOISE[1],
        },
    }
)
"""On phantoms `robust` also has less noise in a gradient, few directions to learn in, and noise levels at
which a face has its form and a lip does not: `docs/phantom.md` has what others gave."""


def named_recipe(name: str, *, phantom: bool = False) -> Recipe:
    """The recipe of a preset; UserError for a name that there is not."""
    if name not in PRESETS:
        raise UserError(f"there is no preset {name!r}: choose one of {', '.join(PRESETS)}")
    changes = dict(_NAMED[name])
    if phantom:
        changes |= {**_PHANTOM, **_NAMED_ON_PHANTOM[name]}
    return PAPER.replaced(changes)


@dataclass(frozen=True)
class TrainingFacts:
    """What is known of a dataset before the trainer starts; None: not known.

    Attributes:
        images: number of training images.
        trigger: the condition's.
        other_trigger: that of the class it must not be mistaken for.
        bracketed: the trigger's form in the captions.
        max_timestep: the most noise at which `robust` learns the condition's finding on phantoms.
    """

    images: int | None = None
    trigger: str | None = None
    other_trigger: str | None = None
    bracketed: bool | None = None
    max_timestep: int | None = None


NOTHING_KNOWN = TrainingFacts()


def chosen_recipe(base: Recipe, choices: Changes) -> Recipe:
    """`base` with what the user chose.

    A schedule that is chosen brings its own warm-up, a warm-up that is chosen its schedule, a distribution of
    noise levels, on phantoms, its whole range, and chosen steps stand in place of the preset's epochs.
    """
    changes: dict[str, Any] = {}
    if choices.get("optimizer.steps"):
        changes["optimizer.epochs"] = 0
    if base.model.phantom and "objective.timestep_sampling" in choices:
        changes |= {"objective.min_timestep": 0, "objective.max_timestep": 1000}
    if "optimizer.schedule" in choices:
        changes["optimizer.warmup_steps"] = 0
    elif choices.get("optimizer.warmup_steps") and base.optimizer.schedule == "constant":
        changes["optimizer.schedule"] = "constant_with_warmup"
    if choices.get("objective.output_preservation_weight") == 0:
        changes["objective.other_trigger"] = None
    return base.replaced({**changes, **choices})


def completed_recipe(recipe: Recipe, facts: TrainingFacts, choices: Changes = MappingProxyType({})) -> Recipe:
    """`recipe` with the steps, triggers and noise of one dataset, where they are not among `choices`."""
    known: dict[str, Any] = {"data.trigger": facts.trigger}
    if facts.bracketed is not None:
        known["data.prompt_form"] = "bracketed" if facts.bracketed else "bare"
    if recipe.objective.output_preservation_weight:
        known["objective.other_trigger"] = facts.other_trigger
    if recipe.model.phantom and recipe.objective.max_timestep == PHANTOM_NOISE[1]:
        known["objective.max_timestep"] = facts.max_timestep
    if not (recipe.optimizer.steps or recipe.optimizer.epochs):
        known["optimizer.steps"] = STEPS_PER_IMAGE * (facts.images or 0)
    return recipe.replaced(
        {path: value for path, value in known.items() if value is not None and path not in choices}
    )


def planned_steps(recipe: Recipe, images: int) -> int:
    """Optimizer steps of a training on so many images of one size (a few more of several)."""
    if epochs := recipe.optimizer.epochs:
        return epochs * -(-images // (recipe.data.batch_size * recipe.optimizer.accumulation_steps))
    return recipe.optimizer.steps or STEPS_PER_IMAGE * images


def told_recipe(recipe: Recipe, images: int) -> Recipe:
    """`recipe` as it may stand beside a LoRA of so many training images.

    Of fewer than five it has no steps where those follow from the images: ten an image tell how few there
    are. What epochs give is left to them. Read back, it gives the same training.
    """
    by_epochs = {
        "optimizer.steps": recipe.optimizer.epochs,
        "output.save_every_n_steps": recipe.output.save_every_n_epochs,
        "previews.every_n_steps": recipe.previews.every_n_epochs,
        "validation.every_n_steps": recipe.validation.every_n_epochs,
    }
    if hidden := [path for path, epochs in by_epochs.items() if epochs]:
        recipe = recipe.replaced(dict.fromkeys(hidden, 0))
    if not steps_tell(recipe, images) or recipe.optimizer.epochs:
        return recipe
    return recipe.replaced({"optimizer.steps": 0, "previews.every_n_steps": 0})


def steps_tell(recipe: Recipe, images: int) -> bool:
    """Whether the number of steps would tell how few training images there are."""
    follow = recipe.optimizer.epochs or recipe.optimizer.steps in (0, STEPS_PER_IMAGE * images)
    return is_small(images) and bool(follow)
