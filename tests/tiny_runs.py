"""A run as small as can be, and how it is killed."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from phantom_datasets import FINDING_OF
from recipes import changed

from diffusioncleft.diffusioncleft_core.dataset.settings import Photographs
from diffusioncleft.diffusioncleft_core.flux.source import phantom_source
from diffusioncleft.diffusioncleft_core.generation.settings import Sampling
from diffusioncleft.diffusioncleft_core.phantom.photographs import write_photographs
from diffusioncleft.diffusioncleft_core.recipe.presets import named_recipe
from diffusioncleft.diffusioncleft_core.run import evaluation, pipeline, training
from diffusioncleft.diffusioncleft_core.run.pipeline import run_pipeline
from diffusioncleft.diffusioncleft_core.run.settings import RunSettings
from diffusioncleft.trainer.events import Events
from diffusioncleft.trainer.flux_train_network import train
from diffusioncleft.trainer.interruption import Interruption

SIDE = 128
SEED = 4
"""Holds out the fourth subject, be it of 5, 6 or 7: a subject that was held out stays so."""
HELD_OUT = 3
pipeline.trainings_at_once = lambda settings: 1  # models are not loaded by two threads of one process
evaluation.ZERO_SHOT_IMAGES = training.PREVIEWS = 1


def train_here(recipe: Any, on_event: Callable[[Any], None], stop: Callable[[], bool]) -> None:
    """The trainer in this process: a kill of the run is a kill of the trainer too."""
    train(recipe, Events(on_event), Interruption(stop=stop))


def settings_of(root: Path, *conditions: str) -> RunSettings:
    """A tiny run in `root`, of the photographs that lie there."""
    return RunSettings(
        out=root / "run",
        source=phantom_source(),
        sampling=Sampling(torch.device("cpu"), torch.float32, width=SIDE, height=SIDE, steps=1),
        faces="phantom",
        phantom=True,
        photographs={name: Photographs(root / name, root / name / "metadata.csv") for name in conditions},
        preset="paper",
        n=4,
        seed=SEED,
        cell_images=1,
        metrics=("lpips",),
        control=root / "healthy",
        recipe=changed(
            named_recipe("paper", phantom=True),
            max_train_steps=2,
            optimizer_type="AdamW",
            resolution=(SIDE,),
            sample_steps=1,
        ),
    )


def photographed(root: Path, condition: str, people: int) -> None:
    """`people` photographs of as many persons; those that were there and are not among them go."""
    folder = root / condition
    write_photographs(folder, people, FINDING_OF[condition], len(condition), SIDE, people)
    for photograph in sorted(folder.glob("*.png"))[people:]:
        photograph.unlink()


def run_and_be_killed(root: Path, stage: str) -> None:
    """Run until `stage` writes its second file, or is over at the latest, and die there of SIGKILL."""
    rename, left = os.replace, -1

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def counted(source: Any, target: Any) -> None:
        nonlocal left
        if left == 0:
            die()
        left -= 1
        rename(source, target)

    def say(line: str) -> None:
        nonlocal left
        if line.startswith(f"{stage} …"):
            left = 2  # the stage's own record is the first
        elif line.startswith(f"{stage}:"):
            die()

    os.replace = counted
    run_pipeline(settings_of(root, "pre_op"), train_here, say=say)
