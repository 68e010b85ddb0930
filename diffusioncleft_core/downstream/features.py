"""What the frozen part of a network makes of crops, computed once a picture and kept with its set."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..imageset.cache import entry_key
from ..imageset.vectors import VectorStore
from ..progress import progress
from ..weights.backbones import Backbone
from .crops import Crops, Pixels, View

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

    @property
    def name(self) -> str:
        """What tells its features apart from those of other parts and networks."""
        return entry_key(self.backbone.info.sha256, self.which, FEATURES_VERSION)

    def key(self, crop: str, view: View) -> str:
        """Of the features of one crop."""
        return entry_key(crop, str(view), self.backbone.info.sha256, self.which, FEATURES_VERSION)

    def __call__(self, pixels: Pixels) -> NDArray[np.float32]:
        """[B, ...] features of `pixels` [B, S, S, 3]."""
        import torch

        device = next(iter(self.backbone.stages.parameters())).device
        with torch.inference_mode():
            found: torch.Tensor = self.network(self.backbone.prepare(pixels).to(device))
            return found.float().cpu().numpy()


def features_of(crops: Crops, view: View, part: FrozenPart, *, description: str = "features") -> torch.Tensor:
    """[N, ...] float32 of N crops, in their order; what the sets' caches hold is not computed again."""
    import torch

    keys = [part.key(crop, view) for crop in crops.keys]
    memory = part.memory or {}
    found = {key: memory[key] for key in keys if key in memory}
    left = {key: place for place, key in enumerate(keys) if key not in found}
    if left:
        found |= _kept_or_computed(crops, view, part, left, description)
    if part.memory is not None:
        part.memory.update(found)
        while part.memory and len(part.memory) * found[keys[0]].nbytes > IN_MEMORY:
            del part.memory[next(iter(part.memory))]
    return torch.stack([found[key] for key in keys])


def _kept_or_computed(
    crops: Crops, view: View, part: FrozenPart, left: Mapping[str, int], description: str
) -> dict[str, torch.Tensor]:
    """Features by key, of the crops at these places."""
    import torch

    shape = part(np.zeros((1, *crops.pixels.shape[1:]), np.uint8)).shape[1:]
    owned: dict[Path | None, dict[str, int]] = {}
    for key, place in left.items():
        owned.setdefault(crops.owners[place], {})[key] = place
    found: dict[str, torch.Tensor] = {}
    with progress(len(left), description, leave=False) as bar:
        for owner, places in owned.items():
            keys, at = list(places), np.array(list(places.values()))
            features = np.empty((len(places), *shape), np.float32)
            with contextlib.closing(VectorStore(owner, FEATURES, part.name, shape)) as store:
                known = store.fill(features, range(len(keys)), keys)
                bar.update(int(known.sum()))
                missing = np.flatnonzero(~known)
                for rows in np.split(missing, range(BATCH, len(missing), BATCH)):
                    if not len(rows):
                        continue
                    features[rows] = part(crops.where(at[rows]).view(view))
                    for row in rows.tolist():
                        store.keep(keys[row], features[row])
                    bar.update(len(rows))
            found |= {key: torch.tensor(row) for key, row in zip(keys, features, strict=True)}
    return found
