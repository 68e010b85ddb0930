"""What the trainings of the two phantom face models share: schedule, averaged weights, figures, ONNX."""

import argparse
import copy
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ..diffusioncleft_core.files import atomic_path, write_json


@dataclass(frozen=True)
class Schedule:
    """A training ends after `steps` or `seconds` of processor time, whichever is first.

    `start`: weights (.safetensors) to go on from.
    """

    steps: int
    batch: int
    seconds: float
    seed: int
    start: Path | None = None


def parser_of(about: str | None, name: str, **defaults: int) -> argparse.ArgumentParser:
    """The options of a training that writes `name`.onnx, with their defaults."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument(
        "--out", type=Path, required=True, help=f"folder for {name}.onnx and its training figures"
    )
    parser.add_argument("--start", type=Path, help="weights (.safetensors) to go on from")
    for option, default in defaults.items():
        if option == "seconds":
            about_time = "processor time of the training at most"
            parser.add_argument("--seconds", type=float, default=default, help=about_time)
        else:
            parser.add_argument(f"--{option}", type=int, default=default)
    return parser


def schedule_from(args: argparse.Namespace) -> Schedule:
    """The schedule that the options name."""
    return Schedule(args.steps, args.batch, args.seconds, args.seed, args.start)


@dataclass
class Training:
    """A training under way. `averaged` is the model's moving average, `recent` that of the losses."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    averaged: nn.Module = field(init=False)
    recent: dict[str, float] = field(init=False, default_factory=dict)
    step: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.averaged = copy.deepcopy(self.model)
        self._started = time.process_time()

    @property
    def done(self) -> float:
        """Share of the schedule that is over; 1 and more: it has ended."""
        return max(self.step / self.schedule.steps, self.seconds / self.schedule.seconds)

    @property
    def seconds(self) -> float:
        """Processor time so far."""
        return time.process_time() - self._started

    def learn(self, total: Tensor, parts: dict[str, Tensor]) -> None:
        """One step down the gradient of `total`; `parts` are its losses by name, for the record."""
        self.optimizer.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step()
        self._average(min(0.995, (self.step + 1) / (self.step + 20)))
        for name, value in parts.items():
            loss = float(value.detach())
            self.recent[name] = 0.98 * self.recent.get(name, loss) + 0.02 * loss
        self.step += 1
        if self.step % 50 == 0:
            figures = "  ".join(f"{name} {value:.4f}" for name, value in self.recent.items())
            print(f"step {self.step}  {self.seconds:.0f} s  {figures}", flush=True)

    def _average(self, keep: float) -> None:
        values = self.model.state_dict().values()
        with torch.no_grad():
            for mean, value in zip(self.averaged.state_dict().values(), values, strict=True):
                if mean.is_floating_point():
                    mean.lerp_(value, 1 - keep)
                else:
                    mean.copy_(value)

    def figures(self) -> dict[str, float]:
        """The last losses, and what the training took."""
        spent = {"steps": self.step, "batch": self.schedule.batch, "seconds": round(self.seconds, 1)}
        return self.recent | {name: float(value) for name, value in spent.items()}


def export(model: nn.Module, path: Path, images: Tensor, outputs: list[str], axes: dict[str, Any]) -> None:
    """Write the ONNX file of a model that takes `images`; `axes`: names of the dynamic ones."""
    with atomic_path(path) as temporary:
        torch.onnx.export(
            model.eval(),
            (images,),
            str(temporary),
            input_names=["input"],
            output_names=outputs,
            dynamic_axes=axes,
            opset_version=17,
            dynamo=False,
        )


def save(model: nn.Module, figures: dict[str, Any], stem: Path) -> None:
    """Write the weights and the training's figures beside the ONNX file."""
    save_file(model.state_dict(), str(stem.with_suffix(".safetensors")))
    write_json(stem.with_suffix(".json"), figures)
