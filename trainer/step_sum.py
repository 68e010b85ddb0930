"""Gradients and losses of one step, summed over the batches of all processes.

The sums are formed in the order of the batches' numbers, whichever process computed them: N processes that
accumulate A batches get the bits of one process that accumulates N * A. An all-reduce would leave the order
to the network.
"""

from collections.abc import Iterable

import torch
from torch import distributed

from .processes import Processes


class StepSum:
    """Takes the gradients of batches as they come, and gives their sum back for the optimizer's step.

    Each process sums one slice of the gradients: `add` gives every process its slice of each gradient (an
    all-to-all), `finish` gives every process all slices (an all-gather). With one batch a process that is the
    traffic of a ring all-reduce, and half of it more for every further batch.
    """

    def __init__(
        self, parameters: Iterable[torch.nn.Parameter], processes: Processes, *, apart: bool = False
    ) -> None:
        """apart: one process too sums whole batches, since those of several forward passes would otherwise be
        summed pass by pass.
        """
        self._parameters = list(parameters)
        self._processes = processes
        self._apart = apart or processes.count > 1
        size = sum(parameter.numel() for parameter in self._parameters)
        self._padding = -size % processes.count
        self._gradients: torch.Tensor | None = None
        self._losses: list[torch.Tensor] = []

    def add(self, losses: torch.Tensor) -> None:
        """Take what `parameter.grad` holds, of this process's next batch, and its losses [2]."""
        self._losses.append(losses)
        if not self._apart:
            return
        flat = self._flat()
        if self._processes.count > 1:
            received = torch.empty_like(flat)
            with self._processes.reached():
                distributed.all_to_all_single(received, flat)
            flat = received
        for part in flat.chunk(self._processes.count):
            self._gradients = part.clone() if self._gradients is None else self._gradients.add_(part)

    def finish(self) -> torch.Tensor:
        """Put the sums into `parameter.grad`, and return the sum of the losses [2]; then start anew."""
        losses, count = torch.stack(self._losses), self._processes.count
        if self._gradients is not None:
            whole = self._gradients
            if count > 1:
                whole = whole.new_empty(len(whole) * count)
                others = losses.new_empty(count, *losses.shape)
                with self._processes.reached():
                    distributed.all_gather(list(whole.chunk(count)), self._gradients)
                    distributed.all_gather(list(others), losses)
                losses = others.transpose(0, 1).flatten(0, 1)
            at = 0
            for parameter in self._parameters:
                # A copy: the address of a view would decide in which order its norm is summed.
                parameter.grad = whole[at : at + parameter.numel()].clone().view_as(parameter)
                at += parameter.numel()
        self._gradients, self._losses = None, []
        total = torch.zeros_like(losses[0])
        for entry in losses:
            total += entry
        return total

    def _flat(self) -> torch.Tensor:
        """The gradients as one vector, padded to a multiple of the number of processes, and none left."""
        parts = []
        for parameter in self._parameters:
            gradient = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
            parts.append(gradient.reshape(-1))
            parameter.grad = None
        parts.append(parts[0].new_zeros(self._padding))
        return torch.cat(parts)
