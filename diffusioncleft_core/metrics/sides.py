"""The two sides of the comparison: the generated sets and the training photographs, with their features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..dataset.folder import dataset_cache, is_dataset
from ..errors import UserError
from ..imageset.listing import named
from ..imageset.manifest import unlisted
from .features import Extractors, GroupFeatures, common_size, group_features, read_pixels
from .groups import ALL, Group, MeasuredImage, groups_of, measured_set, read_photographs
from .kept import Caches

OWN_CACHE = ".measure"
"""In a generated set: what was computed from its images, for its owner alone."""
DATASET_CACHE = "features"
"""In a dataset's cache: erased with it, and whenever a photograph is withdrawn."""

Warn = Callable[[str], None]


@dataclass(frozen=True)
class Side:
    """One side of the comparison, all its images in one list, and what was computed from them."""

    images: list[MeasuredImage]
    groups: list[Group]
    features: GroupFeatures | None = None

    def unreadable(self, mask: NDArray[np.bool_]) -> int:
        """How many images of the set could not be decoded, as far as the pass of Inception knows."""
        if self.features is None or self.features.inception is None:
            return 0
        return int(np.isnan(self.features.inception[mask, 0]).sum())


def features_cache(folder: Path, cache_dir: Path | None) -> Path:
    """Where features of the images in `folder` are kept: in the set that owns them, or in `cache_dir`, which
    a dataset's never are.
    """
    return dataset_cache(folder, DATASET_CACHE) if is_dataset(folder) else cache_dir or folder / OWN_CACHE


def refuse_nothing(generated: Mapping[str, Path]) -> None:
    """Raise UserError when no set holds an image."""
    if not any(measured_set(folder, condition)[0] for condition, folder in generated.items()):
        named = ", ".join(str(folder) for folder in generated.values()) or "no folder"
        raise UserError(
            f"there is nothing to measure: no image in {named}; give the folder of a generated set"
        )


def generated_side(generated: Mapping[str, Path], warn: Warn) -> Side:
    """The images of all generated sets in one list, and their groups. Raises UserError when all are empty."""
    refuse_nothing(generated)
    images: list[MeasuredImage] = []
    was_filtered = {}
    for condition, folder in generated.items():
        found, was_filtered[condition] = measured_set(folder, condition)
        images += found
        if not found:
            warn(f"{folder} holds no image")
        for message in unlisted(folder):
            warn(message)
    return Side(images, groups_of(images, was_filtered))


def name_damaged(images: Sequence[MeasuredImage], damaged: NDArray[np.bool_], warn: Warn) -> None:
    """Warn of the images that a pass could not decode, folder by folder and by name; damaged: [N]."""
    for folder in dict.fromkeys(image.folder for image in images):
        here = [image.folder == folder for image in images]
        lost = [image.file for image, is_lost in zip(images, damaged & here, strict=True) if is_lost]
        if lost:
            warn(
                f"{len(lost)} of {sum(here)} images in {folder} are damaged or missing and are counted "
                f"apart: {named(lost)}"
            )


def with_features(
    side: Side,
    references: Sequence[Path],
    extractors: Extractors,
    cache_dir: Path | None,
    pairs: int,
    seed: int,
    warn: Warn,
) -> tuple[Side, Side]:
    """Both sides with Inception's features and LPIPS: every image is decoded once."""
    size = common_size(side.images)
    members = {f"{g.name}.{variant}": mask for g in side.groups for variant, mask in g.variants().items()}
    shared = None
    if not any(is_dataset(folder) for folder in {image.folder for image in side.images}):
        shared = features_cache(side.images[0].folder, cache_dir)
    features = group_features(
        side.images,
        members,
        extractors,
        size=size,
        caches=Caches(partial(features_cache, cache_dir=cache_dir), shared),
        wanted_pairs=pairs,
        seed=seed,
        description="features, generated",
    )
    if features.inception is not None:
        name_damaged(side.images, np.isnan(features.inception[:, 0]), warn)
    else:
        name_damaged(side.images, np.array([read_pixels(item) is None for item in side.images], bool), warn)
    photographs = read_photographs(references, "train")
    conditions = {image.condition: False for image in photographs}
    real = Side(photographs, groups_of(photographs, {**conditions, ALL: False}) if photographs else [])
    if photographs:
        real = Side(
            real.images,
            real.groups,
            group_features(
                photographs,
                {group.name: group.raw for group in real.groups},
                extractors,
                size=size,
                caches=Caches(partial(features_cache, cache_dir=None)),
                wanted_pairs=0,
                seed=seed,
                description="features, photographs",
            ),
        )
    return Side(side.images, side.groups, features), real
