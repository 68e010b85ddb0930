"""The networks behind FID and LPIPS, built without a download, and what is known of their weights."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..files import sha256_model
from ..weights.networks import NetworkInfo, draw_from_seed, load_state, load_weights, read_state

if TYPE_CHECKING:
    import torch

    from ..weights.backbones import Backbone

INCEPTION_SIDE = 299
INCEPTION_DIMENSIONS = 2048
BACKBONE_SIDE = 224
"""Side in px at which an encoder that is no part of FID or LPIPS sees an image."""
SMALLEST_SIDE = 64
"""AlexNet's convolutions and pools leave nothing of less than 63 px."""
INSTALL = "run: pip install lpips pytorch-fid scipy"


class VectorExtractor(Protocol):
    """Images to vectors of the same length, which don't depend on the other images of a batch."""

    @property
    def info(self) -> NetworkInfo:
        """What it is, for the report."""

    @property
    def dimensions(self) -> int:
        """Length D of its vectors."""

    def prepare(self, pixels: Any) -> torch.Tensor:
        """What the network takes of `pixels` [H, W, 3] uint8: the same shape whatever the size."""

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """[B, D] float32 of a batch of prepared images."""


@dataclass(frozen=True)
class InceptionFeatures:
    """pytorch-fid's Inception: images to 2048 numbers each."""

    network: torch.nn.Module
    info: NetworkInfo
    device: torch.device
    dimensions: int = INCEPTION_DIMENSIONS

    def prepare(self, pixels: Any) -> torch.Tensor:
        """[3, 299, 299] float32 in [-1, 1] from `pixels` [H, W, 3] uint8: ToTensor, bilinear to 299 x 299
        without antialiasing, 2x - 1, as pytorch-fid does. Of any size, so that sizes can mix in a batch.
        """
        import torch
        from torch.nn.functional import interpolate

        image = torch.from_numpy(pixels).permute(2, 0, 1).float().div(255)
        side = (INCEPTION_SIDE, INCEPTION_SIDE)
        return 2 * interpolate(image[None], side, mode="bilinear", align_corners=False)[0] - 1

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """[B, 2048] float32 of `batch` [B, 3, 299, 299]."""
        import torch

        with torch.inference_mode():
            found: torch.Tensor = self.network(batch.to(self.device)).flatten(1).cpu()
        return found


@dataclass(frozen=True)
class PerceptualFeatures:
    """LPIPS v0.1 with AlexNet: an image to the vector phi (see `perceptual`)."""

    network: Any
    """`lpips.LPIPS` with its heads and trunk loaded."""
    info: NetworkInfo
    device: torch.device

    def __call__(self, pixels: Any) -> torch.Tensor:
        """phi [D] float32 of `pixels` [H, W, 3] uint8, at least 64 px a side; D depends on the size."""
        import torch

        with torch.inference_mode():
            image = torch.from_numpy(pixels).permute(2, 0, 1)[None].to(self.device).float().div(127.5) - 1
            layers = self.network.net(self.network.scaling_layer(image))
            parts = []
            for layer, head in zip(layers, self.network.lins, strict=True):
                norm = layer.square().sum(dim=1, keepdim=True).sqrt() + 1e-10
                weight = head.model[-1].weight.clamp_min(0).sqrt()
                area = layer.shape[2] * layer.shape[3]
                parts.append((layer / norm * weight / area**0.5).flatten())
            return torch.cat(parts)


def inception(weights: Path | None, device: torch.device, seed: int = 0) -> InceptionFeatures:
    """pytorch-fid's network with the weights of a file, or drawn from `seed` when there is none.

    Raises:
        UserError: the file is not its checkpoint.
    """
    network = _inception_network()
    if weights is None:
        sha256 = draw_from_seed(network, seed)
        info = NetworkInfo("seeded-random Inception (pytorch-fid form)", sha256, True, "none")
    else:
        load_weights(network, weights, "FID's Inception")
        info = NetworkInfo("pytorch-fid Inception", sha256_model(weights), False, "Apache-2.0")
    return InceptionFeatures(_swift(_blocks(network).eval().requires_grad_(False)).to(device), info, device)


def perceptual(trunk: Path | None, device: torch.device, seed: int = 0) -> PerceptualFeatures:
    """lpips' AlexNet network with the trunk of torchvision's file, or one drawn from `seed`.

    The linear heads are the ones that the package ships.

    Raises:
        UserError: the file is not torchvision's AlexNet.
    """
    lpips = _lpips_package()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        network = lpips.LPIPS(pretrained=False, net="alex", version="0.1", pnet_rand=True, verbose=False)
    _load_heads(network, lpips_heads())
    if trunk is None:
        sha256 = draw_from_seed(network.net, seed)
        info = NetworkInfo("LPIPS v0.1, seeded-random AlexNet", sha256, True, "BSD-2-Clause")
    else:
        _load_trunk(network.net, trunk)
        info = NetworkInfo("LPIPS v0.1, AlexNet", sha256_model(trunk), False, "BSD-2-Clause, BSD-3-Clause")
    return PerceptualFeatures(network.eval().requires_grad_(False).to(device), info, device)


@dataclass(frozen=True)
class BackboneFeatures:
    """A classifier's or encoder's features: images to the vectors that its last stage gives, pooled."""

    network: torch.nn.Module
    backbone: Backbone
    device: torch.device

    @property
    def info(self) -> NetworkInfo:
        """Of the backbone."""
        return self.backbone.info

    @property
    def dimensions(self) -> int:
        """Of the backbone."""
        return self.backbone.dimensions

    def prepare(self, pixels: Any) -> torch.Tensor:
        """[3, 224, 224] float32, normalised as the network wants it, of `pixels` [H, W, 3] uint8.

        The whole image, bicubic with antialiasing; the aspect ratio is not kept, as in FID.
        """
        return self.backbone.prepare(resized(pixels, (BACKBONE_SIDE, BACKBONE_SIDE))[None])[0]

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """[B, D] float32 of `batch` [B, 3, 224, 224]."""
        import torch

        with torch.inference_mode():
            found: torch.Tensor = self.network(batch.to(self.device)).float().cpu()
        return found


def backbone_features(spec: str, device: torch.device, own: Path | None = None) -> BackboneFeatures:
    """The extractor over a backbone, by a registered name, `timm:FOLDER` or `transformers:FOLDER`.

    Raises:
        UserError: there is no such one, or its weights or package are missing.
    """
    from torch import nn

    from ..weights.backbones import load_backbone
    from ..weights.layers import Pool

    found = load_backbone(spec, device, own)
    return BackboneFeatures(nn.Sequential(found.stages, Pool()).eval(), found, device)


def resized(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """`pixels` [H, W, 3] at `size` (width, height), bicubic with Pillow's antialiasing; as they are if equal.

    The aspect ratio is not kept: LPIPS compares position by position.
    """
    from PIL import Image

    if (pixels.shape[1], pixels.shape[0]) == size:
        return pixels
    return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC), dtype=np.uint8)


def lpips_heads() -> Path:
    """The linear heads that the lpips package ships for AlexNet."""
    return Path(_lpips_package().__file__).parent / "weights" / "v0.1" / "alex.pth"


def _lpips_package() -> Any:
    try:
        import lpips
    except ImportError as error:
        raise UserError(f"the perceptual distance needs the package lpips ({error}); {INSTALL}") from None
    return lpips


def _inception_network() -> torch.nn.Module:
    """What `pytorch_fid.inception.fid_inception_v3` builds, less the download at its end."""
    try:
        from pytorch_fid import inception as peer
    except ImportError as error:
        raise UserError(f"FID needs the package pytorch-fid ({error}); {INSTALL}") from None
    network: Any = peer._inception_v3(num_classes=1008, aux_logits=False, weights=None)
    for name, width in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
        channels = {"Mixed_5b": 192, "Mixed_5c": 256, "Mixed_5d": 288}[name]
        setattr(network, name, peer.FIDInceptionA(channels, pool_features=width))
    for name, width in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
        setattr(network, name, peer.FIDInceptionC(768, channels_7x7=width))
    network.Mixed_7b = peer.FIDInceptionE_1(1280)
    network.Mixed_7c = peer.FIDInceptionE_2(2048)
    return network  # type: ignore[no-any-return]


def _blocks(network: Any) -> torch.nn.Module:
    """The layers up to the last average pool, in the order of `pytorch_fid.inception.InceptionV3`."""
    from torch import nn

    stem = [network.Conv2d_1a_3x3, network.Conv2d_2a_3x3, network.Conv2d_2b_3x3, nn.MaxPool2d(3, 2)]
    stem += [network.Conv2d_3b_1x1, network.Conv2d_4a_3x3, nn.MaxPool2d(3, 2)]
    names = ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")
    mixed = [getattr(network, f"Mixed_{name}") for name in names]
    return nn.Sequential(*stem, *mixed, nn.AdaptiveAvgPool2d((1, 1)))


def _swift(network: torch.nn.Module) -> torch.nn.Module:
    """The same function in less time, to float32's last digits: normalisation inside the convolutions before
    it, and channels last, as processors' and GPUs' convolutions want them."""
    import torch
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    for layer in network.modules():
        conv, norm = getattr(layer, "conv", None), getattr(layer, "bn", None)
        if isinstance(conv, torch.nn.Conv2d) and isinstance(norm, torch.nn.BatchNorm2d):
            layer.conv, layer.bn = fuse_conv_bn_eval(conv, norm), torch.nn.Identity()
    return network.to(memory_format=torch.channels_last)


def _load_heads(network: Any, heads: Path) -> None:
    state = read_state(heads, "the linear heads of lpips")
    for number, head in enumerate(network.lins):
        head.model[-1].weight.data.copy_(state[f"lin{number}.model.1.weight"])


def _load_trunk(trunk: Any, weights: Path) -> None:
    """Into lpips' five slices, whose layers keep the numbers they have in torchvision's `features`."""
    state = read_state(weights, "AlexNet")
    renamed = {}
    for key in trunk.state_dict():
        source = f"features.{key.partition('.')[2]}"
        if source not in state:
            raise UserError(
                f"{weights} is not torchvision's AlexNet (it lacks {source}); give the right file"
            )
        renamed[key] = state[source]
    load_state(trunk, renamed, weights, "torchvision's AlexNet")


@dataclass(frozen=True)
class ExtractorEntry:
    """How one extractor is made, and what it needs."""

    title: str
    """What its figure is called in messages."""
    weights: str
    """Its entry in the registry of weights."""
    package: str
    """The Python package that it is built with."""
    load: Callable[[Path | None, torch.device], VectorExtractor | PerceptualFeatures]
    """Builds it with a file of weights; without one, with weights drawn from a seed."""


EXTRACTORS: Mapping[str, ExtractorEntry] = {
    "fid": ExtractorEntry("FID", "inception-fid", "pytorch-fid", inception),
    "lpips": ExtractorEntry("the perceptual distance", "lpips-alexnet", "lpips", perceptual),
}
"""By the name of the metric. An entry whose `load` gives vectors adds the Fréchet distance over them."""


@dataclass(frozen=True)
class Extractors:
    """The networks of a measurement; what is not wanted is left out."""

    vectors: Mapping[str, VectorExtractor] = field(default_factory=dict)
    """By metric: the extractors whose vectors a Fréchet distance is taken over."""
    perceptual: PerceptualFeatures | None = None
    again: Callable[[], Extractors] | None = field(default=None, compare=False, repr=False)
    """Builds those of vectors anew, in another process too; None where nothing can."""

    def __bool__(self) -> bool:
        return bool(self.vectors) or self.perceptual is not None

    @property
    def are_seeded(self) -> bool:
        """Whether one has weights drawn from a seed, which say nothing about photographs."""
        infos = [network.info for network in self.vectors.values()]
        infos += [self.perceptual.info] if self.perceptual else []
        return any(info.phantom for info in infos)


def load_extractors(
    metrics: Collection[str],
    *,
    phantom: bool,
    device: torch.device,
    own: Path | None = None,
    further: Mapping[str, str] = MappingProxyType({}),
) -> Extractors:
    """The networks of these metrics; names that need none are passed over.

    Args:
        metrics: names of metrics.
        phantom: draws the weights from a seed, for phantoms alone; otherwise they come from this machine.
        device: where the networks work.
        own: a folder searched first.
        further: backbones whose vectors are measured beside Inception's, by the name that their figures get.

    Raises:
        UserError: weights are missing or are not the pinned ones.
    """
    import torch

    from ..weights.registry import require_file

    vectors: dict[str, VectorExtractor] = {}
    found = None
    for name, entry in EXTRACTORS.items():
        if name not in metrics:
            continue
        network = entry.load(None if phantom else require_file(entry.weights, own), device)
        if isinstance(network, PerceptualFeatures):
            found = network
        else:
            vectors[name] = network
    vectors |= {name: backbone_features(spec, device, own) for name, spec in further.items()}
    again = functools.partial(
        load_extractors,
        sorted(set(metrics) & vectors.keys()),
        phantom=phantom,
        device=torch.device(device.type),
        own=own,
        further=dict(further),
    )
    return Extractors(vectors, found, again)


def check_extractors(metrics: Collection[str], *, phantom: bool) -> None:
    """Raise the UserError that `load_extractors` would, as far as it shows without building a network."""
    from ..weights.registry import require_file

    wanted = [entry for name, entry in EXTRACTORS.items() if name in metrics]
    for entry in wanted:
        if importlib.util.find_spec(entry.package.replace("-", "_")) is None:
            raise UserError(f"{entry.title} needs the package {entry.package}; {INSTALL}")
    for entry in wanted:
        if not phantom:
            require_file(entry.weights)
