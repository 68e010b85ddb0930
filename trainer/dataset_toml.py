"""kohya's dataset TOML: folders of images and how they are used."""

from pathlib import Path
from typing import Any

from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.ranges import COUNT
from ..diffusioncleft_core.recipe.recipe import Subset, recipe_fields
from ..diffusioncleft_core.text import WINDOWS_PATH, parse_toml, read_text
from .kohya import DATASET_FIELDS, refusal

_SUBSET_KEYS = ("image_dir", "is_reg", "num_repeats", "class_tokens", "caption_extension")
_SHARED_KEYS = ("num_repeats", "class_tokens", "caption_extension")


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; a missing or damaged one raises UserError."""
    return parse_toml(read_text(path), path)


def read_dataset_config(path: Path) -> tuple[tuple[Subset, ...], dict[str, Any]]:
    """Return the subsets of a dataset TOML, and what it says of the recipe's fields, by path.

    A value stands for everything below it: `[general]`, then `[[datasets]]`, then `[[datasets.subsets]]`.
    Relative folders are relative to the TOML. A key that is not honoured, or datasets that disagree, raise
    UserError.
    """
    document = read_toml(path)
    general = _table(document.pop("general", {}), path, "[general]")
    datasets = document.pop("datasets", [])
    if document:
        raise UserError(
            f"{path}: {next(iter(document))!r} is no part of a dataset TOML; use [general] and [[datasets]]"
        )
    subsets: list[Subset] = []
    settings: dict[str, Any] = {}
    for dataset in _tables(datasets, path, "[[datasets]]"):
        rows = _tables(dataset.pop("subsets", []), path, "[[datasets.subsets]]")
        merged = general | dataset
        for row in rows:
            subsets.append(_subset(merged, row, path))
        for key, value in merged.items():
            if key in DATASET_FIELDS:
                value = _setting(key, value, path)
                if settings.setdefault(DATASET_FIELDS[key], value) != value:
                    raise UserError(
                        f"{path}: the datasets differ in {key}; one run has one {key}, so train them apart"
                    )
            elif key not in _SUBSET_KEYS:
                _refuse(key, value, path)
    if not any(not subset.is_reg for subset in subsets):
        raise UserError(f"{path} names no training images; add a [[datasets.subsets]] with image_dir")
    return tuple(subsets), settings


def _subset(above: dict[str, Any], row: dict[str, Any], path: Path) -> Subset:
    values = {key: above[key] for key in _SHARED_KEYS if key in above}
    for key, value in row.items():
        if key in _SUBSET_KEYS:
            values[key] = value
        else:
            _refuse(key, value, path)
    folder = values.pop("image_dir", None)
    if not isinstance(folder, str) or not folder:
        raise UserError(f"{path}: a [[datasets.subsets]] has no image_dir; add it")
    refuse_escapes(folder, path, "image_dir")
    kinds = {"is_reg": bool, "class_tokens": str, "caption_extension": str}
    for key, value in values.items():
        if key == "num_repeats":
            COUNT.check(value, f"{path}: num_repeats")
        elif not isinstance(value, kinds[key]):
            raise UserError(f"{path}: {key} = {value!r} is no {kinds[key].__name__}")
    return Subset(path.parent / folder, **values)


def refuse_escapes(value: str, path: Path, name: str) -> None:
    r"""Refuse a path with a line end or tab in it: of `"C:\new"` TOML makes one, as of every known escape."""
    if any(ord(letter) < 32 for letter in value):
        raise UserError(f"{path}: {name} = {value!r} holds a sign that no path has; {WINDOWS_PATH}")


def _setting(key: str, value: Any, path: Path) -> Any:
    entry = recipe_fields()[DATASET_FIELDS[key]]
    if key == "resolution" and not (isinstance(value, list) and value):
        value = [value]
    return entry.check(value, f"{path}: {key}")


def _refuse(key: str, value: Any, path: Path) -> None:
    """Raise UserError unless the key says what happens anyway."""
    if key in ("min_bucket_reso", "max_bucket_reso"):
        raise UserError(f"{path}: {key} is not honoured: buckets follow from resolution; leave it out")
    if value is False and key != "enable_bucket":
        return
    try:
        reason = refusal(key, "" if value is True else str(value))
    except KeyError:
        reason = f"there is no option {key}"
    if reason:
        raise UserError(f"{path}: {reason.replace('--', '', 1)}")


def _table(value: Any, path: Path, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{path}: {name} is no table; see docs/training.md for the form")
    return dict(value)


def _tables(value: Any, path: Path, name: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value:
        raise UserError(f"{path} has no {name}; see docs/training.md for the form")
    return [_table(entry, path, name) for entry in value]
