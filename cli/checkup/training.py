"""Ten steps in the trainer's own process, and what it leaves behind."""

from __future__ import annotations

import io
import math
import platform
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from ...diffusioncleft_core.environment import trainer_device
from ...diffusioncleft_core.errors import UserError
from ...diffusioncleft_core.files import atomic_path
from ...diffusioncleft_core.home import home, user_name
from ...diffusioncleft_core.recipe.presets import TrainingFacts, chosen_recipe, completed_recipe
from ...diffusioncleft_core.recipe.recipe import Recipe
from .checkup import (
    LEARNING_RATE,
    MAX_RESOLUTION,
    PICTURE_SEED,
    TRAINING_PICTURES,
    TRAINING_STEPS,
    DoctorSettings,
)
from .steps import Failed, Figures, gib

if TYPE_CHECKING:
    from ...diffusioncleft_core.conditions.vocabulary import Condition
    from .checkup import Checkup


def phantom_pictures(n: int, size: int, seed: int) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    """`n` rendered faces with a cleft, [size, size, 3] uint8: no photograph is asked for."""
    from ...diffusioncleft_core.phantom.face import CLEFT, random_face
    from ...diffusioncleft_core.phantom.render import render

    rng = np.random.default_rng(seed)
    drawn = [render(random_face(rng, finding=CLEFT), min(size, MAX_RESOLUTION)).image for _ in range(n)]
    return [np.asarray(image, dtype=np.uint8) for image in drawn]


def write_training_folder(folder: Path, n: int, size: int, caption: str, seed: int = 0) -> None:
    """A dataset of `n` rendered faces: a machine that requires recorded consent trains on it too."""
    from ...diffusioncleft_core.dataset.folder import create_dataset_folder
    from ...diffusioncleft_core.imageset.manifest import ImageRow, write_image_set

    create_dataset_folder(folder)
    rows = []
    for index, pixels in enumerate(phantom_pictures(n, size, seed)):
        with atomic_path(folder / f"{index}.png") as temporary:
            Image.fromarray(pixels).save(temporary, format="PNG")
        rows.append(ImageRow(f"{index}.png", role="train", caption=caption))
    write_image_set(folder, rows)


def to_model(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> torch.Tensor:
    """[H, W, 3] uint8 to [1, 3, H, W] float32 in [-1, 1]."""
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1.0


def read_picture(path: Path) -> torch.Tensor:
    """A PNG as [3, H, W] float32 in [0, 1]."""
    from ...diffusioncleft_core.imageset.decode import read_image

    return torch.from_numpy(read_image(path)).permute(2, 0, 1).float() / 255.0


def psnr(one: torch.Tensor, other: torch.Tensor) -> float:
    """Peak signal-to-noise ratio of two pictures in [0, 1], dB; at most 99, for equal ones."""
    error = float(torch.mean((one.double() - other.double()) ** 2))
    return 99.0 if error <= 10**-9.9 else min(99.0, -10.0 * math.log10(error))


def png_bytes(picture: torch.Tensor) -> int:
    """Size of a picture [3, H, W] in [0, 1] as PNG."""
    pixels = (picture.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.tell()


NAME = "doctor"


def ten_steps(checkup: Checkup) -> Figures:
    """Train on rendered faces as `diffusioncleft train` would, and time every step but the first."""
    settings, found = checkup.settings, checkup.found
    write_training_folder(
        settings.workspace / "pictures", TRAINING_PICTURES, settings.resolution, settings.prompt
    )
    (settings.workspace / "prompts.txt").write_text(
        f"{settings.prompt} --d {PICTURE_SEED} --w {settings.resolution} --h {settings.resolution}\n",
        encoding="utf-8",
    )
    events: list[tuple[float, Mapping[str, Any]]] = []
    begun = time.monotonic()

    def on_event(event: Mapping[str, Any]) -> None:
        events.append((time.monotonic() - begun, event))
        if event["event"] in ("warning", "notice"):
            checkup.note(f"the trainer: {event['message']}")

    checkup.train(ten_steps_recipe(settings), on_event, lambda: False)
    seconds = [float(event["seconds"]) for _, event in events if event["event"] == "step"]
    losses = [float(event["loss"]) for _, event in events if event["event"] == "step"]
    first = {str(event["event"]): (at, event) for at, event in reversed(events)}
    found.step_seconds = statistics.median(seconds[1:] or seconds)
    found.start_seconds, start = first["start"]
    _, done = first["done"]
    _, planned = first["memory"]
    found.lora = Path(str(done["path"]))
    found.preview = Path(str(first["preview"][1]["path"])) if "preview" in first else None
    return {
        "steps": len(losses),
        "step_seconds": round(found.step_seconds, 3),
        "first_step_seconds": round(seconds[0], 2),
        "start_seconds": round(found.start_seconds, 1),
        "mean_loss": round(statistics.mean(losses), 3),
        "optimizer": str(start["optimizer"]),
        "trainable": int(start["parameters"]),
        "memory": str(start["memory"]),
        "device": str(start["device"]),
        "dtype": str(start["dtype"]),
        "size": settings.resolution,
        **{name: planned[name] for name in ("base_format", "gradient_checkpointing", "blocks_to_swap")},
        "planned_gib": gib(int(planned["estimated"])),
        **{f"trainer_{name}_gib": gib(int(size)) for name, size in done.get("peaks", {}).items()},
    }


def ten_steps_recipe(settings: DoctorSettings) -> Recipe:
    """The planned run's recipe for ten steps, with a preview after the last."""
    recipe = chosen_recipe(settings.recipe, ten_steps_choices(settings))
    return completed_recipe(recipe, picture_facts(settings.condition)).replaced(
        {
            **trainer_device(settings.device, settings.dtype),
            "data.train_dir": settings.workspace / "pictures",
            "output.folder": settings.workspace / "training",
            "output.name": NAME,
            "output.checkpoint_every_n_steps": TRAINING_STEPS,
            "output.report_every_step": True,
            "output.resume": "no",
            "previews.prompts": settings.workspace / "prompts.txt",
            "previews.every_n_steps": TRAINING_STEPS,
        }
    )


def picture_facts(condition: Condition) -> TrainingFacts:
    """What is known of the doctor's own pictures."""
    known = condition.trigger, condition.contrast_trigger
    return TrainingFacts(TRAINING_PICTURES, *known, bracketed=True, max_timestep=condition.max_timestep)


def ten_steps_choices(settings: DoctorSettings) -> dict[str, Any]:
    """Where ten steps must differ from a run: they end before a schedule's warm-up, must show in a picture,
    and their pictures don't say where the finding lies.
    """
    chosen = {
        "optimizer.steps": TRAINING_STEPS,
        "optimizer.schedule": "constant",
        "objective.region_weight": 1.0,
    }
    return chosen if settings.phantom else {**chosen, "optimizer.learning_rate": LEARNING_RATE}


def preview(checkup: Checkup) -> Figures:
    """The preview's picture is there and shows something."""
    path = checkup.found.preview
    if path is None or not path.is_file():
        raise UserError("the trainer drew no preview, as when memory runs out; take a smaller --resolution")
    picture = read_picture(path)
    figures: Figures = {
        "size": f"{picture.shape[2]} x {picture.shape[1]}",
        "contrast": round(float(picture.std()), 3),
    }
    if float(picture.std()) < 0.01:
        raise Failed("the preview is of one colour", "get the base model's files again", figures)
    return figures


def lora_file(checkup: Checkup) -> Figures:
    """kohya's keys, sound numbers, and metadata that name nothing of this machine."""
    from ...diffusioncleft_core.flux.lora_file import inspect_lora

    path = checkup.found.lora
    assert path is not None
    told = inspect_lora(path)
    metadata: dict[str, str] = told["metadata"]
    figures: Figures = {
        "form": str(told["form"]),
        "mib": round(path.stat().st_size / 2**20, 1),
        "modules": int(told["modules"]),
        "scales": ", ".join(f"{scale:g}" for scale in told["scales"]),
        "delta_norm": round(float(told["delta_norm"] or 0), 4),
        "base_model_sha256": metadata.get("base_model_sha256", "?"),
    }
    if told["not_finite"]:
        hint = "get the base model's files again, or try --dtype"
        raise Failed(f"the LoRA holds {told['not_finite']}", hint, figures)
    if told["warnings"]:
        raise Failed("; ".join(told["warnings"]), "", figures)
    named = telling(metadata, checkup.settings.workspace)
    if named:
        raise Failed(f"its metadata name this machine or its folders in {', '.join(named)}", "", figures)
    return figures


def telling(metadata: Mapping[str, str], workspace: Path) -> list[str]:
    """The metadata whose values name the workspace, the home folder, the user or the computer."""
    words = {str(workspace), str(workspace.resolve()), workspace.name, str(home() or ""), platform.node()}
    words |= {user_name(), "pictures", "prompts.txt"}
    words = {word for word in words if len(word) > 3 and word != "root"}
    return sorted(name for name, value in metadata.items() if any(word in value for word in words))
