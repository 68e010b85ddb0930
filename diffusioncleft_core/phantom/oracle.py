"""The oracle reads phantoms; rates over its readings, corrected for its own errors."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..statistics import DiagnosticAccuracy, Proportion, corrected
from .face import CLEFT, HEALTHY

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


MOUTH = (slice(54, 118), slice(32, 96))
"""Rows and columns that hold the mouth of a phantom of 128 px, wherever it looks."""
EYES = (slice(32, 72), slice(32, 96))
"""The same for both eyes."""


class OracleNet(nn.Module):
    """[N, 3, 128, 128] in [-1, 1] -> logits [N, 26], the heads' classes side by side.

    One part sees the whole picture, others the mouth and the eyes alone without loss of resolution: a scar is
    two pixels wide, an iris three. Cleft and scar are read from the whole and the mouth, the colour of the
    eyes from the whole and the eyes, the rest from the whole.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = _stages((3, 16, 32, 64, 96, 128), doubled=(64, 96, 128))
        self.mix = nn.Sequential(nn.Conv2d(128, 24, 1), nn.ReLU(inplace=True), nn.Flatten())
        self.mouth = nn.Sequential(*_whole_resolution(), *_stages((16, 32, 64, 96), doubled=(32, 64)))
        self.mouth_mix = nn.Sequential(nn.Conv2d(96, 24, 1), nn.ReLU(inplace=True), nn.Flatten())
        self.eyes = nn.Sequential(*_whole_resolution(), *_stages((16, 32, 48), doubled=(32, 48)))
        self.eyes_mix = nn.Sequential(nn.Conv2d(48, 8, 1), nn.ReLU(inplace=True), nn.Flatten())
        findings, colours = len(HEADS["cleft"]) + len(HEADS["scar"]), len(HEADS["eyes"])
        self.findings = nn.Linear(24 * 16 + 24 * 64, findings)
        self.words = nn.Linear(24 * 16, sum(map(len, HEADS.values())) - findings - colours)
        self.eye_colours = nn.Linear(24 * 16 + 8 * 160, colours)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        whole = self.mix(self.features(x))
        mouth = self.mouth_mix(self.mouth(x[:, :, MOUTH[0], MOUTH[1]]))
        eyes = self.eyes_mix(self.eyes(x[:, :, EYES[0], EYES[1]]))
        parts = [self.findings(torch.cat([whole, mouth], 1)), self.words(whole)]
        return torch.cat([*parts, self.eye_colours(torch.cat([whole, eyes], 1))], 1)


def _whole_resolution() -> list[nn.Module]:
    """A first convolution that keeps the side."""
    return [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)]


def _stages(widths: tuple[int, ...], doubled: tuple[int, ...]) -> nn.Sequential:
    """Convolutions that halve the side, one from each width to the next, with a second one at some."""
    blocks: list[nn.Module] = []
    for a, b in pairwise(widths):
        blocks += [nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU(inplace=True)]
        if b in doubled:
            blocks += [nn.Conv2d(b, b, 3, 1, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU(inplace=True)]
    return nn.Sequential(*blocks)


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
        logits = torch.cat(parts) if parts else torch.zeros(0, sum(map(len, HEADS.values())))
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


ERRORS = WEIGHTS.with_name("errors.json")


@cache
def oracle_errors(path: Path = ERRORS) -> dict[str, Any]:
    """The oracle's counted errors, by what it reads and by skin tone."""
    errors: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return errors


def accuracy_of(name: str, skin: str | None = None) -> DiagnosticAccuracy:
    """Counts for `cleft`, `scar`, `cleft_bilateral`, `skin`, `eyes` and so on, over all or in one tone."""
    counts = oracle_errors()[name]
    return DiagnosticAccuracy(**(counts["by_skin"][skin] if skin else counts["all"]))


def finding_rate(finding: str, reading: Reading, wanted: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Share of the N pictures that show the finding: a cleft, or the scar of a repaired one.

    Args:
        finding: one of `FINDINGS`.
        reading: of the N pictures.
        wanted: their N attribute dicts; `skin` splits the figure.

    Returns:
        `value`, `ci95`, `n` (corrected for the oracle's errors), `observed` (share as read) and `by_skin`.
    """
    shown = reading.cleft if finding == CLEFT else reading.scar
    return _by_skin(shown, wanted, lambda k, n, skin: corrected(k, n, accuracy_of(finding, skin)))


def type_accuracy(reading: Reading, wanted: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Of the pictures that show a cleft: the share whose type, unilateral or bilateral, is the one asked for.

    The share of bilateral readings within each type asked for is corrected; the two are weighted by their n.
    Sides have no goal; `side_as_asked` is the plain share among unilateral readings that had a side.
    """
    asked = np.array([row.get("cleft_type", "") for row in wanted])
    shown = reading.cleft & (asked != "")
    result = _pooled(reading, asked, shown)
    skins = np.array([row.get("skin", "") for row in wanted])
    parts = {skin: _pooled(reading, asked, shown & (skins == skin)) for skin in sorted(set(skins)) if skin}
    sides = np.array([row.get("side", "") for row in wanted])
    sided = shown & (sides != "") & (reading.cleft_type == "unilateral")
    agree = int((reading.cleft_side == sides)[sided].sum())
    return result | {"by_skin": parts, "side_as_asked": {"k": agree, "n": int(sided.sum())}}


def attribute_rate(name: str, reading: Reading, wanted: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Share of pictures whose `name` (skin, eyes, ...) is read as asked, corrected, also by skin tone."""
    kept = [i for i, row in enumerate(wanted) if row.get(name)]
    rows = [wanted[i] for i in kept]
    hit = np.array([reading.words[name][i] == wanted[i][name] for i in kept], dtype=bool)
    return _by_skin(hit, rows, lambda k, n, skin: corrected(k, n, accuracy_of(name, skin)))


def _pooled(reading: Reading, asked: NDArray[np.str_], chosen: NDArray[np.bool_]) -> dict[str, Any]:
    accuracy = accuracy_of("cleft_bilateral")
    value, observed, total = 0.0, 0, int(chosen.sum())
    if not total:
        return as_figure(Proportion(None, (0.0, 1.0), 0, 0))
    spread = 0.0
    for kind in ("unilateral", "bilateral"):
        here = chosen & (asked == kind)
        n = int(here.sum())
        if not n:
            continue
        k = int((reading.cleft_type == "bilateral")[here].sum())
        part = corrected(k, n, accuracy)
        share = part.value if kind == "bilateral" else 1 - (part.value or 0.0)
        value += (share or 0.0) * n / total
        half = (part.ci95[1] - part.ci95[0]) / 2
        spread += (half * n / total) ** 2
        observed += k if kind == "bilateral" else n - k
    low, high = max(0.0, value - spread**0.5), min(1.0, value + spread**0.5)
    return as_figure(Proportion(value, (low, high), observed, total))


def _by_skin(
    hit: NDArray[np.bool_],
    wanted: Sequence[Mapping[str, str]],
    rate: Callable[[int, int, str | None], Proportion],
) -> dict[str, Any]:
    skins = np.array([row.get("skin", "") for row in wanted])
    parts = {}
    for skin in sorted(set(skins.tolist()) - {""}):
        here = skins == skin
        parts[skin] = as_figure(rate(int(hit[here].sum()), int(here.sum()), skin))
    return as_figure(rate(int(hit.sum()), len(hit), None)) | {"by_skin": parts}


def as_figure(share: Proportion) -> dict[str, Any]:
    """`value`, `ci95` and `n` as in report.json, with the share as read beside them."""
    observed = share.k / share.n if share.n else None
    return {"value": share.value, "ci95": list(share.ci95), "n": share.n, "observed": observed}
