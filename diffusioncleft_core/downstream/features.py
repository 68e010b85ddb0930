"""What the frozen part of a network makes of crops, computed once a picture and kept with its set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..imageset.cache import ContentCache, entry_key
from ..progress import progress
from ..weights.backbones import Backbone
from .crops import Crops, View

if TYPE_CHECKING:
    import torch

FEATURES = "features"
FEATURES_VERSION = 1
BATCH = 16
IN_MEMORY = 1 << 30
"""Bytes of features at most that stay in memory; the oldest go first."""


@dataclass(frozen=True, eq=False)
class FrozenPart:
    """A part of a backbone that never changes.

    Attributes:
        backbone: prepares the pixels.
        network: [B, 3, S, S] to [B, ...].
        which: tells parts of one backbone apart.
        memory: features by key, for many trainings on the same pictures; None: they are read each time.
    """

    backbone: Backbone
    network: Callable[[torch.Tensor], torch.Tensor]
    which: str
    memory: dict[str, torch.Tensor] | None = None

    def key(self, crop: str, view: View) -> str:
        """Of the features of one crop."""
        return entry_key(crop, str(view), self.backbone.info.sha256, self.which, FEATURES_VERSION)


def features_of(crops: Crops, view: View, part: FrozenPart, *, description: str = "features") -> torch.Tensor:
    """[N, ...] float32 of N crops, in their order; what the sets' caches hold is not computed again."""
    import torch

    caches: dict[Path | None, ContentCache] = {
        owner: ContentCache(owner, FEATURES) for owner in dict.fromkeys(crops.owners)
    }
    keys = [part.key(crop, view) for crop in crops.keys]
    found: dict[str, torch.Tensor] = {}
    with progress(len(keys), description, leave=False) as bar:
        missing: list[int] = []
        for place, (key, owner) in enumerate(zip(keys, crops.owners, strict=True)):
            if part.memory is not None and key in part.memory:
                found[key] = part.memory[key]
            kept = None if key in found else caches[owner].tensors(key)
            if kept is not None and "features" in kept:
                found[key] = kept["features"]
            if key in found:
                bar.update()
            else:
                missing.append(place)
        missing = list({keys[place]: place for place in missing}.values())
        device = next(iter(part.backbone.stages.parameters())).device
        for start in range(0, len(missing), BATCH):
            places = missing[start : start + BATCH]
            pixels = crops.where(np.array(places)).view(view)
            with torch.inference_mode():
                batch = part.network(part.backbone.prepare(pixels).to(device)).float().cpu()
            for place, features in zip(places, batch, strict=True):
                found[keys[place]] = features.clone()
                caches[crops.owners[place]].keep_tensors(keys[place], {"features": found[keys[place]]})
            bar.update(len(places))
    if part.memory is not None:
        part.memory.update(found)
        while part.memory and len(part.memory) * found[keys[0]].nbytes > IN_MEMORY:
            del part.memory[next(iter(part.memory))]
    return torch.stack([found[key] for key in keys])
