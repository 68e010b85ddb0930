"""Networks from a file of weights or from a seed, and what is known of their weights."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..weight_file import stand_in

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class NetworkInfo:
    """What computed the features, for the report."""

    name: str
    sha256: str
    """Of the weights' file; of the weights themselves when they were drawn from a seed."""
    phantom: bool
    """True for weights that say nothing about photographs; whoever shows a figure must say so."""
    licence: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def draw_from_seed(network: torch.nn.Module, seed: int) -> str:
    """Draw every convolution from `seed`, He's way, so that activations keep their size; returns a sha256."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    digest = hashlib.sha256()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            with torch.no_grad():
                fan_in = module.weight[0].numel()
                module.weight.copy_(torch.randn(module.weight.shape, generator=generator))
                module.weight.mul_((2 / fan_in) ** 0.5)
                if module.bias is not None:
                    module.bias.zero_()
            digest.update(module.weight.detach().numpy().tobytes())
    return digest.hexdigest()


def load_weights(network: torch.nn.Module, weights: Path, what: str) -> None:
    """Read a checkpoint and load it; UserError, which calls it `what`, where it is another network's."""
    load_state(network, read_state(weights, what), weights, what)


def load_state(network: torch.nn.Module, state: dict[str, Any], weights: Path, what: str) -> None:
    """Load tensors that came from the file `weights`; UserError where their names or sizes differ."""
    try:
        network.load_state_dict(state)
    except RuntimeError:
        raise UserError(f"{weights} does not hold {what}: its layers differ; give the right file") from None


def read_state(weights: Path, what: str) -> dict[str, Any]:
    """A checkpoint of tensors alone; anything else that a pickle may hold is refused."""
    import torch

    if instead := stand_in(weights):
        raise UserError(f"{weights} {instead}")
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises nearly anything
        raise UserError(
            f"{weights} can't be read as {what} ({type(error).__name__}); fetch it again: "
            "diffusioncleft weights verify"
        ) from None
    if not isinstance(state, dict):
        raise UserError(f"{weights} holds no weights; fetch it again: diffusioncleft weights verify")
    return state
