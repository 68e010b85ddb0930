"""Whether the people in training images were asked, and whether the owner of this machine insists on it."""

import os
from collections.abc import Iterable
from pathlib import Path

from ..errors import UserError
from ..files import shown
from ..imageset.manifest import listed_rows
from ..outputs import can_write
from .folder import is_dataset

REQUIRED = "DIFFUSIONCLEFT_REQUIRE_CONSENT"
"""Environment variable: set, nothing is trained on images whose people were not asked on record."""
RECORDED, NOT_RECORDED = "recorded", "not recorded"
"""What a LoRA's metadata say under `consent`."""
_OFF = {"", "0", "no", "false", "off"}
_DATASET_ROLES = {"train", "holdout"}
_DRAWN_ROLES = {"generated", "control"}


def consent_required() -> bool:
    """Whether the machine's owner allows training on built datasets alone.

    Any value of the variable but `0`, `no`, `false` and `off` says so: a misspelt `yes` must not switch it
    off.
    """
    return os.environ.get(REQUIRED, "").strip().casefold() not in _OFF


def consent_recorded(folder: Path) -> bool:
    """Whether `folder` is a built dataset, into which consent is the way, or was drawn by a model."""
    roles = {row.role for row in listed_rows(folder)}
    return bool(roles) and roles <= (_DATASET_ROLES if is_dataset(folder) else _DRAWN_ROLES)


def check_consent(folders: Iterable[Path]) -> list[str]:
    """A warning for every training folder in which nobody's consent is recorded; none for others.

    Raises:
        UserError: there is such a folder, and the owner of this machine does not allow it.
    """
    unrecorded = [folder for folder in dict.fromkeys(map(Path, folders)) if not consent_recorded(folder)]
    if unrecorded and consent_required():
        raise UserError(
            f"{shown(unrecorded[0])} is no built dataset, so nobody's consent is recorded there, and "
            f"{REQUIRED} forbids training on it; build a dataset with 'diffusioncleft dataset build'"
        )
    return [
        f"nobody's consent is recorded for the images in {shown(folder)}: it is no built dataset, and "
        "nothing asked whether their people agree; of people, train on what 'diffusioncleft dataset build' "
        "made alone"
        for folder in unrecorded
    ]


def check_records(folders: Iterable[Path], cache: Path | None = None) -> list[str]:
    """A warning for every dataset that can't be written, and so does not come to know what learned from it.

    cache: where what is computed from it is kept; None: in memory.

    Raises:
        UserError: there is such a dataset, and the owner of this machine insists on recorded consent.
    """
    read_only = [folder for folder in dict.fromkeys(map(Path, folders)) if is_dataset(folder)]
    read_only = [folder for folder in read_only if not can_write(folder)]
    if read_only and consent_required():
        raise UserError(
            f"{shown(read_only[0])} can't be written, so it would not know of this training when a consent "
            f"is withdrawn, and {REQUIRED} forbids that; make it writable, or copy it to a private folder"
        )
    kept = (
        "are computed again at every start (--cache_dir PRIVATE keeps them)"
        if cache is None
        else f"lie in {shown(cache)}, which no purge of the dataset erases"
    )
    return [
        f"{shown(folder)} can't be written: the latents and text embeddings of its photographs {kept}, and a "
        "consent that is withdrawn there later does not mark this LoRA"
        for folder in read_only
    ]
