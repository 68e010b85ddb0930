"""Whether a recipe can be trained with, said in the words of the door it came by."""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

from ..errors import UserError
from ..outputs import WINDOWS_DEVICE
from .presets import Changes
from .recipe import SIZE_STEP, Recipe, recipe_fields
from .setting import Spelling

_SMALLEST = 64
_LORA_SUFFIX = ".safetensors"


def by_path(path: str) -> str:
    """The spelling of a recipe file."""
    return path


def checked_choices(choices: Changes) -> dict[str, object]:
    """`choices` in their fields' types; UserError for an unknown field, or a value that it can't be."""
    known = recipe_fields()
    for path in choices:
        if path not in known:
            raise UserError(f"{path} is no setting of a recipe; leave it out")
    return {path: known[path].check(value, path) for path, value in choices.items()}


def check_recipe(recipe: Recipe, spell: Spelling = by_path) -> Recipe:
    """Return the recipe if its fields go together; else raise UserError that names them as `spell` does.

    The output's name may be given with the suffix of its file, which it does not keep.
    """
    _check_sizes(recipe, spell)
    _check_form(recipe, spell)
    name = recipe.output.name
    if name.lower().endswith(_LORA_SUFFIX):
        name = name[: -len(_LORA_SUFFIX)]
        recipe = recipe.replaced({"output.name": name})
    for path, given in (("output.name", name), ("tracking.tracker_name", recipe.tracking.tracker_name)):
        if not given or given.startswith(".") or any(letter in given for letter in '/\\:*?"<>|\0'):
            raise UserError(
                f"{spell(path)} {given!r} is no plain file name; leave out folders and special characters"
            )
        if WINDOWS_DEVICE.match(given):
            raise UserError(f"{spell(path)} {given!r} is kept for a device by Windows; give another name")
    if not recipe.data.caption_extension.startswith("."):
        extension = recipe.data.caption_extension
        raise UserError(f"{spell('data.caption_extension')} {extension!r} needs its dot: .txt")
    _refuse_without_effect(recipe, spell, places=False)
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
    if _draws_previews(recipe) and recipe.previews.prompts is None:
        raise UserError(f"previews need prompts; give {spell('previews.prompts')} FILE, one prompt a line")
    _refuse_without_effect(recipe, spell, places=True)
    return recipe


def _check_form(recipe: Recipe, spell: Spelling) -> None:
    if recipe.network.form == "dora" and recipe.memory.blocks_to_swap:
        raise UserError(
            f"{spell('network.form')} dora needs each weight of the base at every step, so it does not go "
            f"with {spell('memory.blocks_to_swap')} {recipe.memory.blocks_to_swap}; use 0, lora or lokr"
        )


def _check_sizes(recipe: Recipe, spell: Spelling) -> None:
    step = recipe.data.bucket_step
    if step % SIZE_STEP:
        raise UserError(f"{spell('data.bucket_step')} is {step}; FLUX needs a multiple of {SIZE_STEP}")
    low, high = recipe.data.bucket_min_side, recipe.data.bucket_max_side
    if high and high < max(low, step):
        raise UserError(
            f"{spell('data.bucket_max_side')} is {high}: below the smallest side, {max(low, step)}; give more"
        )
    if recipe.objective.min_timestep >= recipe.objective.max_timestep:
        raise UserError(
            f"{spell('objective.min_timestep')} {recipe.objective.min_timestep} is not below "
            f"{spell('objective.max_timestep')} {recipe.objective.max_timestep}"
        )
    smallest = max(step, _SMALLEST)
    if not recipe.data.resolution or min(recipe.data.resolution) < smallest:
        raise UserError(
            f"{spell('data.resolution')} needs sizes of at least {smallest} px, separated by commas"
        )


@dataclass(frozen=True)
class _Rule:
    """The fields `paths` take effect when `holds`; else `hint` says what to do, fields in braces."""

    paths: tuple[str, ...]
    holds: Callable[[Recipe], bool]
    hint: str
    needs_places: bool = False
    """Whether it goes by locations, which a recipe file has not."""


def _draws_previews(recipe: Recipe) -> bool:
    previews = recipe.previews
    return previews.every_n_steps > 0 or previews.every_n_epochs > 0 or previews.at_first


def _regularised(recipe: Recipe) -> bool:
    return recipe.data.reg_dir is not None or any(subset.is_reg for subset in recipe.data.subsets)


_RULES = (
    _Rule(
        ("network.factor",),
        lambda r: r.network.form == "lokr",
        "it belongs to {network.form} lokr; choose that or leave it out",
    ),
    _Rule(
        ("optimizer.warmup_steps",),
        lambda r: r.optimizer.schedule != "constant",
        "the schedule constant has no warm-up; use {optimizer.schedule} constant_with_warmup",
    ),
    _Rule(
        ("objective.sigmoid_scale",),
        lambda r: r.objective.timestep_sampling in ("sigmoid", "shift", "flux_shift"),
        "it belongs to {objective.timestep_sampling} sigmoid, shift and flux_shift; choose one of these",
    ),
    _Rule(
        ("objective.shift",),
        lambda r: r.objective.timestep_sampling in ("shift", "sigma", "logit_normal"),
        "it belongs to {objective.timestep_sampling} shift, sigma and logit_normal; choose one of these",
    ),
    _Rule(
        ("objective.logit_mean", "objective.logit_std"),
        lambda r: r.objective.timestep_sampling == "logit_normal",
        "it belongs to {objective.timestep_sampling} logit_normal; choose that or leave it out",
    ),
    _Rule(
        ("optimizer.cycles",),
        lambda r: r.optimizer.schedule in ("cosine_with_restarts", "cosine_with_min_lr"),
        "it belongs to {optimizer.schedule} cosine_with_restarts and cosine_with_min_lr",
    ),
    _Rule(
        ("optimizer.power",),
        lambda r: r.optimizer.schedule == "polynomial",
        "it belongs to {optimizer.schedule} polynomial",
    ),
    _Rule(
        ("optimizer.min_lr_ratio",),
        lambda r: r.optimizer.schedule in ("cosine_with_min_lr", "warmup_stable_decay"),
        "it belongs to {optimizer.schedule} cosine_with_min_lr and warmup_stable_decay",
    ),
    _Rule(
        ("optimizer.decay_steps",),
        lambda r: r.optimizer.schedule == "warmup_stable_decay",
        "it belongs to {optimizer.schedule} warmup_stable_decay",
    ),
    _Rule(
        ("optimizer.timescale",),
        lambda r: r.optimizer.schedule == "inverse_sqrt",
        "it belongs to {optimizer.schedule} inverse_sqrt",
    ),
    _Rule(
        ("optimizer.beta1", "optimizer.beta2", "optimizer.epsilon", "optimizer.weight_decay"),
        lambda r: r.optimizer.name.startswith("AdamW"),
        "it belongs to AdamW; give it as one of the optimizer's own arguments, {optimizer.args}",
    ),
    _Rule(
        ("objective.prior_loss_weight", "objective.prior_target"),
        _regularised,
        "there are no regularisation images; give {data.reg_dir} or leave it out",
        needs_places=True,
    ),
    _Rule(
        ("memory.compile",),
        lambda r: r.memory.dynamo_backend != "no",
        "{memory.dynamo_backend} no compiles nothing; leave it out",
    ),
    _Rule(
        ("memory.dynamo_backend",),
        lambda r: r.memory.compile or r.memory.dynamo_backend == "no",
        "nothing is compiled; give {memory.compile} too",
    ),
    _Rule(
        ("objective.other_trigger",),
        lambda r: r.objective.output_preservation_weight > 0,
        "it is for output preservation; give {objective.output_preservation_weight} too",
    ),
    _Rule(
        ("validation.data_dir", "validation.max_images", "validation.seed", "validation.early_stop"),
        lambda r: r.validation.every_n_steps > 0 or r.validation.every_n_epochs > 0,
        "nothing is validated; give {validation.every_n_steps} too",
    ),
    _Rule(
        ("tracking.tracker_name",),
        lambda r: r.tracking.log_with is not None or r.tracking.logging_dir is not None,
        "nothing is tracked; give {tracking.log_with} too",
        needs_places=True,
    ),
    _Rule(
        ("tracking.wandb_run_name", "tracking.wandb_online"),
        lambda r: r.tracking.log_with in ("wandb", "all"),
        "it is for wandb; give {tracking.log_with} wandb too",
        needs_places=True,
    ),
    _Rule(
        ("data.class_tokens", "data.caption_extension"),
        lambda r: not r.data.subsets,
        "the folders are those of {data.config}; write it into that file",
        needs_places=True,
    ),
    _Rule(
        ("model.clip_l", "model.t5xxl", "model.vae", "model.tokenizer_clip", "model.tokenizer_t5"),
        lambda r: not r.model.phantom,
        "{model.phantom} trains the embedded model, which is whole; leave it out",
        needs_places=True,
    ),
    _Rule(
        ("memory.limit",),
        lambda r: not r.model.phantom,
        "{model.phantom} trains the embedded model, which fits anywhere; leave it out",
        needs_places=True,
    ),
    _Rule(
        ("output.save_last_n_steps",),
        lambda r: r.output.save_every_n_steps > 0 or r.output.save_every_n_epochs > 0,
        "no LoRA is saved on the way; give {output.save_every_n_steps} too",
    ),
    _Rule(
        ("previews.prompts",),
        _draws_previews,
        "no preview is asked for; give {previews.every_n_steps} or {previews.at_first}",
        needs_places=True,
    ),
    _Rule(
        ("previews.steps", "previews.size"),
        lambda r: r.previews.prompts is not None,
        "there are no previews; give {previews.prompts} and {previews.every_n_steps}, or leave it out",
        needs_places=True,
    ),
)


def without_effect(recipe: Recipe, given: Collection[str], spell: Spelling = by_path) -> list[str]:
    """Sentences on the `given` fields that have no effect although they are as they are by default.

    One that switches something off (0, no, nothing) has none to miss.
    """
    return [
        f"{spell(path)} {recipe[path]} has no effect: {_hint(rule, spell)}"
        for rule in _RULES
        for path in rule.paths
        if path in given and recipe[path] and not rule.holds(recipe)
    ]


def _refuse_without_effect(recipe: Recipe, spell: Spelling, *, places: bool) -> None:
    """Raise UserError for the first field that was changed from its default and has no effect."""
    defaults = Recipe()
    for rule in (rule for rule in _RULES if rule.needs_places == places):
        for path in rule.paths:
            if recipe[path] != defaults[path] and not rule.holds(recipe):
                raise UserError(f"{spell(path)} {recipe[path]} would have no effect: {_hint(rule, spell)}")


def _hint(rule: _Rule, spell: Spelling) -> str:
    return re.sub(r"\{([\w.]+)\}", lambda match: spell(match[1]), rule.hint)
