"""A sweep's TOML: a recipe, and the values of which every combination is trained; each one as a recipe."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..diffusioncleft_core.dataset.folder import dataset_rows, is_dataset
from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.files import sha256_bytes
from ..diffusioncleft_core.recipe.checks import by_path
from ..diffusioncleft_core.recipe.presets import PRESETS
from ..diffusioncleft_core.recipe.recipe import Recipe, recipe_fields
from ..diffusioncleft_core.small_counts import is_small
from ..diffusioncleft_core.text import nearest
from .config import composed_recipe, trained_dataset
from .dataset_toml import read_toml, refuse_escapes
from .kohya import FIELDS

SWEEP, PRESET = "sweep", "preset"
MOST = 1000
"""Combinations of one sweep."""
PRIVATE = "private"
"""Folder in the sweep's own for its cache and its records."""
_LONGEST_NAME = 100
_ONLY_AS_AN_OPTION = ("tracking.wandb_online",)
_PLAIN = re.compile(r"[A-Za-z0-9._+-]+")


@dataclass(frozen=True)
class SweepFile:
    """What a sweep's TOML says.

    Attributes:
        preset: below everything else; None: as the command says.
        fixed: values of fields by path, the same in every run.
        swept: the values of each swept field by path, and of `preset`; each list has one value or more.
    """

    preset: str | None
    fixed: Mapping[str, Any]
    swept: Mapping[str, tuple[Any, ...]]


@dataclass(frozen=True)
class Combination:
    """One run of a sweep.

    Attributes:
        name: of its folder.
        settings: the swept values by path.
        recipe: complete, with the run's folders; None where the settings do not go together.
        problem: why not; "" where they do.
    """

    name: str
    settings: Mapping[str, Any]
    recipe: Recipe | None
    problem: str = ""


def read_sweep(path: Path) -> SweepFile:
    """Read a sweep's TOML: `preset`, the recipe's groups as tables, and `[sweep]`.

    Raises:
        UserError: it can't be read, or names a field that there is not, a value that it can't have, a value
            twice, or a place in `[sweep]`.
    """
    document = read_toml(path)
    table = document.pop(SWEEP, None)
    if not isinstance(table, dict) or not table:
        raise UserError(
            f"{path} has no [sweep] with lists of values; add one, as network.rank = [4, 16] in it"
        )
    preset = document.pop(PRESET, None)
    if preset is not None:
        _check_preset(preset, f"{path}: {PRESET}")
    fixed = {name: _fixed(name, value, path) for name, value in _flat(document).items()}
    swept = {name: _values(name, value, path) for name, value in _flat(table).items()}
    if twice := [name for name in swept if name in fixed or (name == PRESET and preset is not None)]:
        raise UserError(f"{path}: {twice[0]} stands in [sweep] and outside of it; keep one")
    count = math.prod(map(len, swept.values()))
    if count > MOST:
        raise UserError(f"{path} makes {count} combinations; give fewer values, {MOST} combinations at most")
    return SweepFile(preset, fixed, swept)


def combinations(sweep: SweepFile, below: Mapping[str, Any], given: Mapping[str, Any]) -> list[Combination]:
    """Every combination of the swept values, the last field's changing fastest.

    Args:
        below: `preset` or `recipe` of the command line, which comes before the file's.
        given: fields of the command line by path, likewise.

    Raises:
        UserError: the command line says what is swept, or no combination can be trained.
    """
    if twice := [name for name in sweep.swept if name in given or name in below]:
        raise UserError(f"{twice[0]} is swept; leave it out of the command, or out of [sweep]")
    if PRESET in sweep.swept and "recipe" in below:
        raise UserError("--recipe takes the place of a preset; leave it out, or take preset out of [sweep]")
    resume = given.get("output.resume", "auto")
    if resume not in ("auto", "no"):
        raise UserError("a sweep goes on from its own checkpoints; leave out --resume, or give --resume no")
    below = below or ({PRESET: sweep.preset} if sweep.preset else {})
    choices = {**sweep.fixed, **given}
    settings = [
        dict(zip(sweep.swept, values, strict=True)) for values in itertools.product(*sweep.swept.values())
    ]
    found = [
        _combination(name, one, below, choices, sweep.swept)
        for name, one in zip(run_names(settings), settings, strict=True)
    ]
    if all(one.recipe is None for one in found):
        raise UserError(found[0].problem)
    return found


def _combination(
    name: str,
    settings: Mapping[str, Any],
    below: Mapping[str, Any],
    choices: Mapping[str, Any],
    swept: Mapping[str, Sequence[Any]],
) -> Combination:
    chosen = {path: value for path, value in settings.items() if path != PRESET}
    preset = {PRESET: settings[PRESET]} if PRESET in settings else {}
    try:
        recipe = composed_recipe({**below, **preset}, {**choices, **chosen}, spell=by_path)
        for path, value in chosen.items():
            if recipe[path] != value:
                raise UserError(f"{path} {value} has no effect: it is {recipe[path]} by another setting")
    except UserError as error:
        return Combination(name, settings, None, str(error))
    recipe = _validated(recipe, {**choices, **chosen}, swept)
    return Combination(name, settings, _placed(recipe, name))


def _validated(recipe: Recipe, chosen: Mapping[str, Any], swept: Mapping[str, Sequence[Any]]) -> Recipe:
    """`recipe` with a validation at its end, where the dataset has a hold-out and nothing was said of it.

    All runs are then measured with one noise, whatever their own seeds. Few training images get none: the
    step of the validation would tell how few they are.
    """
    if "validation.every_n_steps" not in chosen and "validation.every_n_epochs" not in chosen:
        dataset = trained_dataset(recipe)
        if dataset is None or not is_dataset(dataset) or not dataset_rows(dataset, "holdout"):
            return recipe
        if is_small(len(dataset_rows(dataset, "train"))):
            return recipe
        steps, epochs = recipe.optimizer.steps, recipe.optimizer.epochs
        recipe = recipe.replaced(
            {"validation.every_n_epochs": epochs} if epochs else {"validation.every_n_steps": steps}
        )
    seeds = swept.get("objective.seed")
    validates = recipe.validation.every_n_steps or recipe.validation.every_n_epochs
    if seeds and validates and recipe.validation.seed is None:
        recipe = recipe.replaced({"validation.seed": seeds[0]})
    return recipe


def _placed(recipe: Recipe, name: str) -> Recipe:
    """`recipe` with the folders of the run `name`, and with whole paths: it may be trained elsewhere."""
    out = recipe.output.folder.absolute()
    places: dict[str, Any] = {
        path: recipe[path].absolute()
        for path, entry in recipe_fields().items()
        if entry.kind is Path and recipe[path] is not None and recipe[path].exists()
    }
    places |= {
        "output.folder": out / name,
        "output.name": f"{recipe.output.name}-{name}",
        "data.cache_dir": places.get("data.cache_dir") or (recipe.data.cache_dir or out / PRIVATE).absolute(),
    }
    if recipe.output.stop_file is not None:
        places["output.stop_file"] = recipe.output.stop_file.absolute()
    if recipe.tracking.logging_dir is not None:
        places["tracking.logging_dir"] = recipe.tracking.logging_dir.absolute() / name
    if recipe.tracking.log_with in ("wandb", "all") and recipe.tracking.wandb_run_name is None:
        places["tracking.wandb_run_name"] = name
    return recipe.replaced(places)


def run_names(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names for the runs' folders, each another one: `rank=4-seed=0`.

    A value that is no plain word, and a name that is too long, get a digest of the settings.
    """
    short = Counter(path.rpartition(".")[2] for path in (settings[0] if settings else ()))
    named = []
    for one in settings:
        parts, exact = [], True
        for path, value in one.items():
            last = path.rpartition(".")[2]
            shown = shown_value(value)
            word = re.sub(r"[^A-Za-z0-9._+-]", "_", shown)
            exact = exact and bool(_PLAIN.fullmatch(shown))
            parts.append(f"{last if short[last] == 1 else path}={word}")
        named.append(("-".join(parts), exact))
    times = Counter(name.casefold() for name, _ in named)
    return [
        name
        if exact and times[name.casefold()] == 1 and len(name) <= _LONGEST_NAME
        else f"{name[:_LONGEST_NAME]}-{sha256_bytes(repr(sorted(one.items())).encode())[:8]}"
        for (name, exact), one in zip(named, settings, strict=True)
    ]


def shown_value(value: Any) -> str:
    """A swept value as names and tables have it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _flat(table: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Values by dotted name, of tables within tables."""
    found: dict[str, Any] = {}
    for name, value in table.items():
        found |= _flat(value, f"{above}{name}.") if isinstance(value, dict) else {f"{above}{name}": value}
    return found


def _field(name: str, file: Path) -> Any:
    """The recipe's field `name`; UserError with the name that was probably meant."""
    known = recipe_fields()
    if name in known:
        return known[name]
    near = FIELDS.get(name) or nearest(name, known)
    near = near or next((path for path in known if path.rpartition(".")[2] == name), None)
    hint = f"did you mean {near}?" if near else "docs/training.md names those that there are"
    raise UserError(f"{file}: {name} is no setting of a recipe; {hint}")


def _fixed(name: str, value: Any, file: Path) -> Any:
    entry = _field(name, file)
    if name in _ONLY_AS_AN_OPTION:
        raise UserError(f"{file}: {name} can't stand in a file; give it with the command")
    if name == "data.subsets":
        raise UserError(f"{file}: {name} is a dataset TOML's; name that file as data.config")
    if isinstance(value, str):
        refuse_escapes(value, file, name)
    return entry.check(value, f"{file}: {name}")


def _values(name: str, values: Any, file: Path) -> tuple[Any, ...]:
    where = f"{file}: [sweep] {name}"
    if name != PRESET and _field(name, file).setting.location:
        raise UserError(
            f"{where} is a place, and the table of a sweep names none; make a sweep for each, with a folder "
            "of its own"
        )
    if not isinstance(values, list) or not values:
        raise UserError(f"{where} is {values!r}; give a list of values, as [1, 2]")
    if name == PRESET:
        checked = [_check_preset(value, where) for value in values]
    else:
        checked = [_field(name, file).check(value, where) for value in values]
    for place, value in enumerate(checked):
        if value in checked[:place]:
            raise UserError(f"{where} names {shown_value(value)} twice; keep one")
    return tuple(checked)


def _check_preset(value: Any, where: str) -> str:
    if value not in PRESETS:
        raise UserError(f"{where} {value!r} is unknown; choose one of: {', '.join(PRESETS)}")
    return str(value)
