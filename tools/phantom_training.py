"""LoRAs of the embedded model, trained in this process on phantoms whose number is chosen."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ..diffusioncleft_core.conditions.loader import load_vocabulary
from ..diffusioncleft_core.conditions.plan import sampling_plan
from ..diffusioncleft_core.conditions.plan_rows import PlanRow
from ..diffusioncleft_core.conditions.prompts import build_prompt
from ..diffusioncleft_core.dataset.build import build_dataset
from ..diffusioncleft_core.dataset.settings import BuildSettings, Photographs
from ..diffusioncleft_core.faces.analyzer import FaceAnalyzer
from ..diffusioncleft_core.files import write_bytes, write_text
from ..diffusioncleft_core.generation.settings import Sampling
from ..diffusioncleft_core.phantom.face import CLEFT
from ..diffusioncleft_core.phantom.photographs import write_photographs
from ..diffusioncleft_core.recipe.presets import Changes, chosen_recipe, named_recipe
from ..diffusioncleft_core.recipe.recipe import PHANTOM_SIDE
from ..trainer.events import Events
from ..trainer.flux_train_network import train
from ..trainer.interruption import Interruption

CONDITION = "pre_op"


def phantom_people(work: Path, people: int, seed: int, analyzer: FaceAnalyzer) -> Path:
    """A built dataset of twice as many people with clefts, half of them held out."""
    photographs, out = work / "photographs", work / "dataset"
    table = write_photographs(photographs, 2 * people, CLEFT, seed, PHANTOM_SIDE, subjects=2 * people)
    condition = load_vocabulary().condition(CONDITION)
    settings = BuildSettings(holdout=0.5, seed=seed, phantom=True)
    build_dataset(Photographs(photographs, table), condition, out, analyzer, settings=settings)
    return out


def captioned_folder(images: Sequence[Path], captions: Sequence[str], out: Path) -> Path:
    """A plain folder of copies of `images`, each with its caption beside it."""
    for number, (image, caption) in enumerate(zip(images, captions, strict=True)):
        write_bytes(out / f"{number:04d}{image.suffix}", image.read_bytes())
        write_text(out / f"{number:04d}.txt", caption)
    return out


def healthy_plan(n: int, seed: int) -> list[PlanRow]:
    """n prompts without trigger and finding."""
    condition = load_vocabulary().condition("post_op")
    return [
        replace(row, prompt=build_prompt(condition, row.attributes, trigger="", cleft=False))
        for row in sampling_plan(condition, n, seed)
    ]


def phantom_sampling(steps: int = 4, strength: float = 1.0) -> Sampling:
    """Pictures of the phantom's size, on the processor in float32."""
    side = PHANTOM_SIDE
    return Sampling(torch.device("cpu"), torch.float32, side, side, steps, batch=16, strength=strength)


def train_phantom(choices: Changes, folder: Path, base: Path | None = None) -> Path:
    """The paper's recipe on the phantom with `choices`; its LoRA, `folder`/lora.safetensors.

    base: a pipeline of the phantom's shape in the embedded one's place.

    A signal saves a checkpoint and raises; the same call goes on.
    """
    recipe = chosen_recipe(
        named_recipe("paper", phantom=True),
        {
            "data.cache_dir": folder.parent / "cache",
            "memory.device": "cpu",
            "output.folder": folder,
            "output.name": "lora",
            **({"model.phantom": False, "model.base": base} if base else {}),
            **choices,
        },
    )
    interruption = Interruption()
    with interruption.of_process(stdin=False):
        return train(recipe, Events(lambda event: None), interruption).path
