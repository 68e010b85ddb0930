"""kohya's dataset TOML: folders of images and how they are used."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.ranges import COUNT
from ..diffusioncleft_core.recipe.recipe import Subset, recipe_fields
from ..diffusioncleft_core.text import WINDOWS_PATH, parse_toml, read_text
from .kohya import DATASET_FIELDS
from .kohya_options import refusal, remark

_SUBSET_KEYS = ("image_dir", "is_reg", "num_repeats", "class_tokens", "caption_extension")
_SHARED_KEYS = ("num_repeats", "class_tokens", "caption_extension")


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; a missing or damaged one raises UserError."""
    return parse_toml(read_text(path), path)


class DatasetConfig(NamedTuple):
    """What a dataset TOML says: its folders, the recipe's fields by path, and sentences on what it names to
    no effect.
    """

    subsets: tuple[Subset, ...]
    settings: dict[str, Any]
    remarks: tuple[str, ...]


def read_dataset_config(path: Path) -> DatasetConfig:
    """Read kohya's dataset TOML.

    A value stands for everything below it: `[general]`, then `[[datasets]]`, then `[[datasets.subsets]]`.
    Relative folders are relative to the TOML. Datasets may differ in their resolution, each image then has
    its own folder's. A key that is not honoured, or datasets that disagree in another one, raise UserError.
    """
    document = read_toml(path)
    general = _table(document.pop("general", {}), path, "[general]")
    datasets = document.pop("datasets", [])
    if document:
        raise UserError(
            f"{path}: {next(iter(document))!r} is no part of a dataset TOML; use [general] and [[datasets]]"
        )
    subsets: list[Subset] = []
    sizes: list[tuple[int, ...] | None] = []
    settings: dict[str, Any] = {}
    remarks: dict[str, None] = {}
    for dataset in _tables(datasets, path, "[[datasets]]"):
        rows = _tables(dataset.pop("subsets", []), path, "[[datasets.subsets]]")
        merged = general | dataset
        own = merged.pop("resolution", None)
        sizes.append(None if own is None else _setting("resolution", own, path))
        for row in rows:
            subsets.append(replace(_subset(merged, row, path, remarks), resolution=sizes[-1]))
        for key, value in merged.items():
            if key in DATASET_FIELDS:
                value = _setting(key, value, path)
                if settings.setdefault(DATASET_FIELDS[key], value) != value:
                    raise UserError(
                        f"{path}: the datasets differ in {key}; one run has one {key}, so train them apart"
                    )
            elif key in _SUBSET_KEYS:
                if key not in _SHARED_KEYS:
                    raise UserError(f"{path}: {key} is one folder's; write it under [[datasets.subsets]]")
            else:
                _refuse(key, value, path, remarks)
    if not any(not subset.is_reg for subset in subsets):
        raise UserError(f"{path} names no training images; add a [[datasets.subsets]] with image_dir")
    given = [size for size in sizes if size is not None]
    if len(given) == len(sizes):
        settings["data.resolution"] = tuple(sorted({side for size in given for side in size}))
    if len(set(sizes)) == 1:  # one for all is the recipe's
        subsets = [replace(subset, resolution=None) for subset in subsets]
    return DatasetConfig(tuple(subsets), settings, tuple(remarks))


def _subset(above: dict[str, Any], row: dict[str, Any], path: Path, remarks: dict[str, None]) -> Subset:
    values = {key: above[key] for key in _SHARED_KEYS if key in above}
    for key, value in row.items():
        if key in _SUBSET_KEYS:
            values[key] = value
        elif key in DATASET_FIELDS:
            raise UserError(f"{path}: {key} is one for the run; write it under [general] or [[datasets]]")
        else:
            _refuse(key, value, path, remarks)
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


def _refuse(key: str, value: Any, path: Path, remarks: dict[str, None]) -> None:
    """Raise UserError unless the key says what happens anyway, or nothing: then `remarks` may tell of it."""
    text = "" if value is True else str(value)
    try:
        reason = refusal(key, text)
    except KeyError:
        reason = f"there is no option {key}"
    if reason:
        raise UserError(f"{path}: {reason.replace('--', '', 1)}")
    if said := remark(key, text):
        remarks[f"{path}: {said.replace('--', '', 1)}"] = None


def _table(value: Any, path: Path, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{path}: {name} is no table; see docs/training.md for the form")
    return dict(value)


def _tables(value: Any, path: Path, name: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value:
        raise UserError(f"{path} has no {name}; see docs/training.md for the form")
    return [_table(entry, path, name) for entry in value]
