"""The trainer's command line and its TOML files, by kohya's names: they make a recipe."""

import argparse
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.ranges import LEARNING_RATE, sides
from ..diffusioncleft_core.recipe.checks import check_places, check_recipe, without_effect
from ..diffusioncleft_core.recipe.document import read_recipe
from ..diffusioncleft_core.recipe.presets import (
    PAPER,
    PRESETS,
    chosen_recipe,
    completed_recipe,
    named_recipe,
)
from ..diffusioncleft_core.recipe.recipe import Recipe, recipe_fields
from ..diffusioncleft_core.recipe.setting import Field, Spelling
from .dataset_toml import read_dataset_config, read_toml, refuse_escapes
from .kohya import FIELDS, NAMES, spelled
from .kohya_options import ALWAYS, FALSE, REFUSED, TRANSLATED, WITHOUT_EFFECT, refusal, remark
from .network_args import fields_of

AS_GIVEN = "as_given"
"""In place of a preset: the settings are complete, as between a program and the trainer that it starts."""
_BELOW_THE_ARGUMENTS = ("preset", "recipe")
_ALSO: dict[str, dict[str, str]] = {"output.save_precision": {"fp32": "float", "float32": "float"}}
"""Other words for a field's choices."""
_OPTIONS = MappingProxyType({name: recipe_fields()[path] for name, path in FIELDS.items()})


@dataclass(frozen=True)
class TrainResult:
    """The LoRA file and the number of optimizer steps behind it."""

    path: Path
    steps: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add one argument a field of the recipe, and those that fill many."""
    parser.add_argument(
        "--config_file", type=Path, help="TOML file with these settings; arguments come before it"
    )
    parser.add_argument(
        "--preset",
        choices=(*PRESETS, AS_GIVEN),
        default=argparse.SUPPRESS,
        help="recipe below the arguments: robust ties the finding to the trigger and looks closer where it "
        "lies; as_given fills in nothing for the phantom or the dataset (default: paper)",
    )
    parser.add_argument(
        "--recipe",
        type=Path,
        default=argparse.SUPPRESS,
        help="recipe below the arguments: a recipe.json, or a LoRA that holds one, in place of a preset",
    )
    for name, entry in _OPTIONS.items():
        text = entry.setting.help
        if entry.default not in (None, "", 0, False, (), 0.0):
            text += f" (default: {_shown(entry.default)})"
        # SUPPRESS: only what was given is set, so that a config file can stand below the arguments.
        common: dict[str, Any] = {"help": text.replace("%", "%%"), "default": argparse.SUPPRESS}
        if entry.kind is bool:
            parser.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, **common)
        elif _several_texts(entry):
            parser.add_argument(f"--{name}", nargs="*", metavar="NAME=VALUE", **common)
        else:
            choices = entry.setting.choices or None
            parser.add_argument(f"--{name}", type=_reader(entry), choices=choices, **common)
    parser.add_argument(
        "--stop_with_stdin",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="save a checkpoint and stop when standard input ends or says stop",
    )
    for name in sorted({*ALWAYS, *REFUSED, *WITHOUT_EFFECT, *TRANSLATED}):
        parser.add_argument(
            f"--{name}", action=_Kohya, nargs="*", help=argparse.SUPPRESS, default=argparse.SUPPRESS
        )


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the trainer's command line; a mistake raises UserError."""
    parser = _Parser(prog="flux_train_network.py", description=__doc__, allow_abbrev=False)
    add_arguments(parser)
    return parser.parse_args(list(arguments))


def parse_recipe(arguments: Sequence[str]) -> Recipe:
    """The recipe that command-line arguments mean.

    Raises:
        UserError: a mistake, or an option of kohya's that is not honoured.
    """
    return recipe_from(parse_arguments(arguments))


def recipe_from(namespace: argparse.Namespace, *, places: bool = True) -> Recipe:
    """The recipe that the arguments of `add_arguments` mean; without `places` it need not name any images."""
    below, choices = choices_from(namespace)
    return composed_recipe(below, choices, places=places)


def choices_from(namespace: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the arguments of `add_arguments`, and their `--config_file`, say.

    Returns:
        The `preset` or `recipe` that stands below, and the values of fields by path.

    Raises:
        UserError: an option of kohya's that is not honoured.
    """
    _refuse(namespace)
    values = _given(namespace)
    config_file = getattr(namespace, "config_file", None)
    if config_file:
        values = _read_config_file(config_file)[0] | values
    below = {name: values.pop(name) for name in _BELOW_THE_ARGUMENTS if name in values}
    return below, {FIELDS[name]: value for name, value in values.items()}


def composed_recipe(
    below: Mapping[str, Any], choices: Mapping[str, Any], *, spell: Spelling = spelled, places: bool = True
) -> Recipe:
    """The recipe of `choices` over what stands `below`, with what the one dataset says.

    Args:
        below: at most one of `preset` and `recipe`.
        choices: values by their fields' paths.
        spell: the fields' names in error messages.
        places: whether it has to name a base model and images.

    Raises:
        UserError: choices that contradict each other, or a recipe that can't be.
    """
    choices = dict(choices)
    if choices.get("data.config"):
        dataset = read_dataset_config(choices["data.config"])
        choices |= {**dataset.settings, "data.subsets": dataset.subsets}
    for path, value in fields_of(choices.get("network.args", ())).items():
        if choices.setdefault(path, value) != value and path != "network.qkv":
            raise UserError(
                f"{spell(path)} {choices[path]} and {spell('network.args')} say different things ({value}); "
                "give one"
            )
    if choices.get("optimizer.epochs"):
        choices.pop("optimizer.steps", None)  # as in kohya's scripts
    preset = below.get("preset", "paper")
    if preset == AS_GIVEN:
        recipe = PAPER.replaced(choices)
    else:
        from ..diffusioncleft_core.dataset.settings import training_facts

        recipe = chosen_recipe(_below(below, phantom=choices.get("model.phantom", False)), choices)
        recipe = completed_recipe(recipe, training_facts(trained_dataset(recipe)), choices)
    recipe = check_recipe(recipe, spell)
    return check_places(recipe, spell) if places else recipe


def unheard(namespace: argparse.Namespace, recipe: Recipe) -> list[str]:
    """Sentences on the options that were given and have no effect, or another than they seem to."""
    values, noted = _given(namespace), list(getattr(namespace, "kohya", None) or ())
    if config_file := getattr(namespace, "config_file", None):
        below, remarked = _read_config_file(config_file)
        values = below | values
        noted = [*remarked, *noted]
    remarks = [said for name, value in noted if (said := remark(name, value))]
    if values.get("max_train_epochs") and values.get("max_train_steps"):
        remarks.append("--max_train_steps has no effect beside --max_train_epochs, as in kohya's scripts")
    if recipe.data.config:
        dataset = read_dataset_config(recipe.data.config)
        remarks += dataset.remarks
        remarks += [
            f"--{NAMES[path]} has no effect: {recipe.data.config} takes precedence, as in kohya's scripts"
            for path, told in dataset.settings.items()
            if values.get(NAMES[path], told) != told
        ]
    if recipe.network.form == "lokr" and "network_qkv" in values:
        remarks.append(
            f"--network_qkv {values['network_qkv']} has no effect: in a LoKr each layer has its own"
        )
    given = [FIELDS[name] for name in values if name in FIELDS]
    return [*remarks, *without_effect(recipe, given, spelled)]


def to_arguments(recipe: Recipe) -> list[str]:
    """The command-line arguments that `parse_recipe` reads back into an equal recipe."""
    arguments = [f"--preset={AS_GIVEN}"]
    for name, entry in _OPTIONS.items():
        value = recipe[entry.path]
        if value == entry.default:
            continue
        if isinstance(value, bool):
            arguments.append(f"--{'' if value else 'no-'}{name}")
        elif _several_texts(entry):
            arguments += [f"--{name}", *value]
        else:
            arguments.append(f"--{name}={_shown(value)}")
    if recipe.data.subsets and recipe.data.config is None:
        raise ValueError("subsets travel to another process as a dataset TOML")
    return arguments


def _below(named: Mapping[str, Any], *, phantom: bool) -> Recipe:
    """What stands below the arguments: a preset, or a recipe file."""
    if "recipe" not in named:
        return named_recipe(named.get("preset", "paper"), phantom=phantom)
    if "preset" in named:
        raise UserError("--recipe takes the place of a preset; leave out --preset, or leave out --recipe")
    return read_recipe(named["recipe"])


def trained_dataset(recipe: Recipe) -> Path | None:
    """The one folder of training images, if there is one."""
    trained = [subset for subset in recipe.data.subsets if not subset.is_reg]
    if trained:
        return trained[0].image_dir if len(trained) == 1 and trained[0].num_repeats == 1 else None
    return recipe.data.train_dir


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see --help")


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _several_texts(entry: Field) -> bool:
    """Whether an option takes any number of texts."""
    return typing.get_origin(entry.kind) is tuple and typing.get_args(entry.kind)[0] is str


def _reader(entry: Field) -> Any:
    """The function that reads an option's value; of names in whatever case, as kohya's scripts do."""
    if entry.setting.choices:
        known = {choice.lower(): choice for choice in entry.setting.choices} | _ALSO.get(entry.path, {})
        return lambda text: known.get(text.lower(), text)
    return entry.setting.range or (sides if typing.get_origin(entry.kind) is tuple else entry.kind)


class _Kohya(argparse.Action):
    """Takes note of an option of kohya's trainer that is no setting here."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        value = " ".join(map(str, values or ()))
        namespace.kohya = [*(getattr(namespace, "kohya", None) or ()), (self.dest, value)]


def _refuse(namespace: argparse.Namespace) -> None:
    """Raise UserError for the first of kohya's options that can't be ignored."""
    for name, value in getattr(namespace, "kohya", ()):
        reason = refusal(name, value)
        if reason:
            raise UserError(reason)


def _given(namespace: argparse.Namespace) -> dict[str, Any]:
    names = (*_BELOW_THE_ARGUMENTS, *_OPTIONS)
    values = {name: getattr(namespace, name) for name in names if hasattr(namespace, name)}
    for name, value in values.items():
        if name in _OPTIONS and _several_texts(_OPTIONS[name]):
            values[name] = tuple(value)
    for name, value in getattr(namespace, "kohya", None) or ():
        if name == "unet_lr":
            try:
                values["learning_rate"] = LEARNING_RATE(value)
            except argparse.ArgumentTypeError as error:
                raise UserError(f"--unet_lr: {error}") from None
        elif name != "torch_compile" and value.lower() in FALSE:  # a switch that is off
            continue
        elif name in ("use_8bit_adam", "use_lion_optimizer"):
            values["optimizer_type"] = "Lion" if "lion" in name else "AdamW8bit"
        elif name in ("fp8_base", "fp8_base_unet", "nf4_base"):
            values.setdefault("base_format", name[:3])
        elif name == "torch_compile":
            values.setdefault("compile", value.lower() not in FALSE)
        elif (name, value) == ("weighting_scheme", "logit_normal"):
            sampling = values.get("timestep_sampling", "sigma")
            values["timestep_sampling"] = "logit_normal" if sampling == "sigma" else sampling
    return values


def _read_config_file(path: Path) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Read kohya's `--config_file`: settings as TOML, in sections or not; and its options that are no field.

    A missing file is looked for with `.toml` behind its name, as kohya's scripts write it.
    """
    if not path.exists() and path.suffix != ".toml":
        path = path.with_name(f"{path.name}.toml")
    flat: dict[str, Any] = {}
    for key, value in read_toml(path).items():
        flat |= value if isinstance(value, dict) else {key: value}
    arguments: list[str] = []
    for key, value in flat.items():
        if isinstance(value, str):
            refuse_escapes(value, path, key)
        text = "" if value is True else ",".join(map(str, value)) if isinstance(value, list) else str(value)
        if key in _OPTIONS and _several_texts(_OPTIONS[key]):
            arguments += [f"--{key}", *map(str, value if isinstance(value, list) else [value])]
        elif isinstance(value, bool) and key in _OPTIONS:
            arguments.append(f"--{'' if value else 'no-'}{key}")
        else:
            arguments.append(f"--{key}={text}" if text else f"--{key}")
    parser = _Parser(allow_abbrev=False)
    add_arguments(parser)
    try:
        namespace = parser.parse_args(arguments)
        _refuse(namespace)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return _given(namespace), list(getattr(namespace, "kohya", None) or ())
