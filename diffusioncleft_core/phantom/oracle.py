"""The oracle: a small classifier that reads what a phantom-like picture shows.

It exists to measure, with known errors, what cannot be measured on real patients without a clinician: whether
a requested cleft, scar or colour is there. It is never a loss, never picks a checkpoint, never filters.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from .face import HEALTHY

WEIGHTS = Path(__file__).parent / "models" / "oracle" / "oracle.safetensors"
SIDES = ("none", "left", "right", "bilateral")
HEADS: dict[str, tuple[str, ...]] = {
    "cleft": SIDES,
    "scar": SIDES,
    "skin": HEALTHY["skin"],
    "hair_color": HEALTHY["hair_color"],
    "hair_length": HEALTHY["hair_length"],
    "hair_texture": HEALTHY["hair_texture"],
    "eyes": HEALTHY["eyes"],
}
SIZE = 128


class OracleNet(nn.Module):
    """[N, 3, 128, 128] in [-1, 1] -> logits [N, 26], the heads' classes side by side."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 16, 32, 64, 96, 128)
        blocks: list[nn.Module] = []
        for a, b in pairwise(widths):
            blocks += [nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU(inplace=True)]
            if b >= 32:
                blocks += [nn.Conv2d(b, b, 3, 1, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU(inplace=True)]
        self.features = nn.Sequential(*blocks)
        self.mix = nn.Sequential(nn.Conv2d(128, 24, 1), nn.ReLU(inplace=True), nn.Flatten())
        self.head = nn.Linear(24 * 16, sum(map(len, HEADS.values())))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.mix(self.features(x)))
        return logits


@dataclass(frozen=True)
class Reading:
    """What the oracle saw in N pictures."""

    cleft: NDArray[np.bool_]
    """[N]: a cleft is there."""
    cleft_side: NDArray[np.str_]
    """[N]: none, left, right or bilateral (the patient's side)."""
    scar: NDArray[np.bool_]
    scar_side: NDArray[np.str_]
    words: dict[str, NDArray[np.str_]]
    """skin, hair_color, hair_length, hair_texture, eyes: [N] values of conditions/cleft_lip.toml."""

    @property
    def cleft_type(self) -> NDArray[np.str_]:
        """[N]: none, unilateral or bilateral."""
        return _types(self.cleft_side)

    @property
    def scar_type(self) -> NDArray[np.str_]:
        """[N]: none, unilateral or bilateral."""
        return _types(self.scar_side)


def _types(sides: NDArray[np.str_]) -> NDArray[np.str_]:
    return np.where(np.isin(sides, ["left", "right"]), "unilateral", sides)


class Oracle:
    """Reads pictures in batches on the CPU; build it with `load_oracle`."""

    def __init__(self, net: OracleNet) -> None:
        self.net = net.eval()

    @torch.no_grad()
    def read(self, images: NDArray[np.uint8], batch: int = 64) -> Reading:
        """images: [N, 128, 128, 3] uint8 RGB. Raises ValueError for another shape."""
        if images.ndim != 4 or images.shape[1:] != (SIZE, SIZE, 3):
            raise ValueError(f"the oracle reads [N, {SIZE}, {SIZE}, 3] uint8, not {images.shape}")
        parts = []
        for i in range(0, len(images), batch):
            x = torch.from_numpy(np.ascontiguousarray(images[i : i + batch])).permute(0, 3, 1, 2)
            parts.append(self.net(x.float() / 127.5 - 1))
        logits = torch.cat(parts) if parts else torch.zeros(0, self.net.head.out_features)
        picked: dict[str, NDArray[np.str_]] = {}
        for (name, values), part in zip(
            HEADS.items(), logits.split([len(v) for v in HEADS.values()], 1), strict=True
        ):
            picked[name] = np.asarray(values)[part.argmax(1).numpy()]
        cleft, scar = picked.pop("cleft"), picked.pop("scar")
        return Reading(cleft != "none", cleft, scar != "none", scar, picked)


def load_oracle(weights: Path = WEIGHTS) -> Oracle:
    """The embedded oracle. Raises FileNotFoundError where the weights are absent."""
    from safetensors.torch import load_file

    net = OracleNet()
    net.load_state_dict({name: tensor.float() for name, tensor in load_file(weights).items()})
    return Oracle(net)
