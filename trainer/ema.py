"""The LoRA's exponential moving average, which previews show and files hold while it trains on."""

from collections.abc import Mapping

import torch

from ..diffusioncleft_core.errors import UserError


class Average:
    """The average of the LoRA's weights over its steps, on their device.

    average ← d average + (1 - d) weights after every step, with d = min(decay, (1 + step) / (10 + step)): the
    first weights, where the LoRA is still nothing, are forgotten in a short training too (as in the package
    torch-ema and in ai-toolkit). d follows from the step, so that a checkpoint needs the average alone.

    Attributes:
        weights: by the parameters' names; empty without an average.
    """

    def __init__(self, parameters: Mapping[str, torch.nn.Parameter], decay: float) -> None:
        """Begin with the weights as they are. decay: from 0, which keeps no average, to below 1."""
        self._decay = decay
        self.weights = {name: weight.detach().clone() for name, weight in parameters.items() if decay}

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """The average as a checkpoint holds it."""
        return {f"average/{name}": value for name, value in self.weights.items()}

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Go on from a checkpoint's."""
        if not self.tensors.keys() <= tensors.keys():
            raise UserError("the checkpoint holds no average of this LoRA; use --resume no to start anew")
        for name, value in self.tensors.items():
            value.copy_(tensors[name])

    @torch.no_grad()
    def update(self, step: int, parameters: Mapping[str, torch.nn.Parameter]) -> None:
        """Take the weights after `step`, counted from 1, into the average."""
        if self.weights:
            share = 1 - min(self._decay, (1 + step) / (10 + step))
            weights = [parameters[name].detach() for name in self.weights]
            torch._foreach_lerp_(list(self.weights.values()), weights, share)
