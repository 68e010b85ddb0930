"""The examination: which steps there are, and in which order."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from . import environment, estimate, face_pack, loading, model_files, reload, training
from .checkup import Checkup
from .steps import Figures, Step, StepResult, run_steps


def examine(checkup: Checkup, tell: Callable[[int, StepResult | Step], None]) -> list[StepResult]:
    """Do every step; `tell` is called before and after each."""
    return run_steps(steps_of(checkup), checkup.settings.device.type, tell)


def steps_of(checkup: Checkup) -> list[Step]:
    """The steps in order. What needs what is said here and nowhere else."""

    def step(name: str, proves: str, work: Callable[[Checkup], Figures], *needs: str) -> Step:
        return Step(name, proves, partial(work, checkup), needs)

    def loads(name: str, proves: str, work: Callable[[Checkup], Figures], *needs: str) -> Step:
        return Step(name, proves, partial(work, checkup), needs, weighs=True)

    files = ("transformer file", "autoencoder file", "text encoder files")
    return [
        step("environment", "the libraries are there and can be imported", environment.environment),
        step("transformer file", "its header is readable and whole", model_files.transformer),
        step("autoencoder file", "its header is readable and whole", model_files.autoencoder),
        step("text encoder files", "headers readable, tokenizers there", model_files.text_encoders),
        step("schnell", "the shapes are FLUX.1 schnell's", model_files.is_schnell, *files),
        step("training adapter", "it is a LoRA file", model_files.adapter),
        step("measuring models", "the models that measure a set are there", model_files.measuring),
        step("disk", "the folder can be written and has room", environment.disk),
        step("memory", "the device can carry the base model", environment.room),
        loads("text encoders", "they load and encode", loading.text_encoders, "text encoder files", "memory"),
        loads("autoencoder", "it gives a picture back", loading.autoencoder, "autoencoder file"),
        loads(
            "transformer", "it loads and draws", loading.transformer,
            "transformer file", "memory", "text encoders", "autoencoder",
        ),
        loads("face pack", "detector and recogniser open", face_pack.opens),
        step("face", "the face pack finds a face", face_pack.finds, "face pack"),
        step("filters", "artifacts are looked for, text too", face_pack.filters, "face pack"),
        step("training", "ten steps in the trainer's process", training.ten_steps, *files, "memory", "disk"),
        step("preview", "the trainer drew what it learns", training.preview, "training"),
        step("LoRA file", "well formed, and names no file or folder", training.lora_file, "training"),
        loads(
            "reload", "diffusers draws the same picture from the file", reload.same_picture,
            "LoRA file", "transformer",
        ),
        step("estimate", "what the planned run will take", estimate.planned_run, "training", "transformer"),
    ]  # fmt: skip
