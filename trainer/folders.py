"""The folders that a run trains on, whichever way they were given."""

import re
from dataclasses import replace
from typing import Any

from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.imageset.manifest import read_image_set
from ..diffusioncleft_core.imageset.places import MANIFEST
from ..diffusioncleft_core.recipe.recipe import Recipe, Subset


def image_folders(recipe: Recipe) -> tuple[Subset, ...]:
    """Return the folders to train on, whichever way they were given."""
    data = recipe.data
    if data.subsets:
        return data.subsets
    shared: dict[str, Any] = {
        "class_tokens": data.class_tokens,
        "caption_extension": data.caption_extension,
    }
    assert data.train_dir is not None
    folders = _with_repeats(Subset(data.train_dir, **shared))
    if data.reg_dir is not None:
        folders += _with_repeats(Subset(data.reg_dir, is_reg=True, **shared))
    return tuple(folders)


def held_out_folders(recipe: Recipe) -> tuple[Subset, ...]:
    """Return the folders to validate on: the given one, else those of the training images."""
    if not (recipe.validation.every_n_steps or recipe.validation.every_n_epochs):
        return ()
    data, given = recipe.data, recipe.validation.data_dir
    if given is not None:
        return (Subset(given, class_tokens=data.class_tokens, caption_extension=data.caption_extension),)
    return tuple(folder for folder in image_folders(recipe) if not folder.is_reg)


_REPEATED = re.compile(r"([1-9]\d{0,5})_(.*)")


def _with_repeats(subset: Subset) -> list[Subset]:
    """kohya's folders in a folder, `10_name`: ten times an epoch, `name` where a caption is missing.

    A folder that holds images itself, or is a dataset, is one subset as it is.
    """
    folder = subset.image_dir
    if not folder.is_dir() or (folder / MANIFEST).is_file():
        return [subset]
    found = [
        (entry, match)
        for entry in sorted(folder.iterdir())
        if entry.is_dir() and (match := _REPEATED.fullmatch(entry.name))
    ]
    if not found:
        return [subset]
    if read_image_set(folder, may_be_empty=True):
        raise UserError(
            f"{folder} holds images beside folders with repeats ({found[0][0].name}); move them there"
        )
    return [
        replace(
            subset,
            image_dir=entry,
            num_repeats=int(match[1]),
            class_tokens=subset.class_tokens or match[2] or None,
        )
        for entry, match in found
    ]
