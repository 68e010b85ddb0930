"""Grad-CAM: where the paper's model looks, on phantoms alone, and how much of it lies on the lip.

Selvaraju et al., ICCV 2017, equations 1 and 2: the channels of the last convolution's output, weighted by the
mean gradient of the class's logit, summed and cut off at 0. A picture of a person is never drawn over, and
phantoms are enough: there the finding's place is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..weights.backbones import PAPER
from .crops import Crops, View
from .features import features_of
from .training import Classifier

BATCH = 32


@dataclass(frozen=True)
class Saliency:
    """How much of the saliency lies on the lip.

    Attributes:
        inside: mean share, 0 to 1, of a picture's saliency within the lip's box.
        area: mean share of the crop that this box takes: what saliency without an aim would reach, near
            one half of so close a crop.
        n: pictures; n_flat: those of them without any saliency, which count in neither mean.
    """

    inside: float | None
    area: float | None
    n: int
    n_flat: int

    def to_json(self) -> dict[str, Any]:
        """As `downstream.json` has it."""
        return {"inside": self.inside, "area": self.area, "n": self.n, "n_flat": self.n_flat}


def grad_cam(classifier: Classifier, crops: Crops) -> NDArray[np.float32]:
    """[N, S, S] float32, at least 0: saliency of the class that the classifier chose.

    Raises:
        UserError: the crops are of photographs, or the classifier is a linear probe.
    """
    import torch
    from torch.nn.functional import interpolate

    from .network import LipClassifier

    network = classifier.top
    if not crops.phantom:
        raise UserError("saliency is drawn of phantoms alone; nothing is drawn over a person's picture")
    if classifier.settings.kind != PAPER or not isinstance(network, LipClassifier):
        raise UserError("saliency needs the paper's model; a linear probe has no layer to look into")
    features = features_of(crops, classifier.settings.view, classifier.part)
    side = crops.pixels.shape[1]
    network.eval()
    device = next(network.parameters()).device
    found = []
    # ComfyUI's nodes run in inference mode, in which there are no gradients.
    with torch.inference_mode(False), torch.enable_grad():
        for batch in features.clone().split(BATCH):
            activations = network.stages(batch.to(device)).detach().requires_grad_(True)
            logits = network.head(network.pool(activations))
            (gradients,) = torch.autograd.grad(logits.max(dim=1).values.sum(), activations)
            weights = gradients.mean(dim=(2, 3), keepdim=True)
            cam = (weights * activations).sum(dim=1, keepdim=True).clamp_min(0).detach()
            found.append(
                interpolate(cam, size=(side, side), mode="bilinear", align_corners=False)[:, 0].cpu()
            )
    return np.asarray(torch.cat(found).numpy(), np.float32)


def share_on_lip(maps: NDArray[np.float32], crops: Crops) -> Saliency:
    """How much of the saliency [N, S, S] lies on the lips of N crops."""
    side = crops.pixels.shape[1]
    inside, area = [], []
    for cam, lip in zip(maps, crops.lips, strict=True):
        total = float(cam.sum())
        if total <= 0:
            continue
        x0, y0, x1, y1 = lip.tolist()
        inside.append(float(cam[y0:y1, x0:x1].sum()) / total)
        area.append((x1 - x0) * (y1 - y0) / side**2)
    n_flat = len(crops) - len(inside)
    if not inside:
        return Saliency(None, None, len(crops), n_flat)
    return Saliency(round(float(np.mean(inside)), 4), round(float(np.mean(area)), 4), len(crops), n_flat)


def lip_saliency(classifier: Classifier, crops: Crops) -> Saliency:
    """The share of a classifier's saliency on the lips of phantoms; it must have seen the whole crop."""
    if classifier.settings.view != View.WHOLE:
        raise UserError("saliency is compared with the whole crop; give a classifier that was trained on it")
    return share_on_lip(grad_cam(classifier, crops), crops)
