"""The recipe's groups on how a training is watched: the loss on a hold-out, and trackers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..ranges import NONE_OR_MORE, SEED
from .setting import Group, setting


@dataclass(frozen=True)
class Validation(Group):
    """The loss on images that are not trained on."""

    data_dir: Path | None = setting(
        None,
        "held-out images: a built dataset, or a plain folder with captions (default: the hold-out of the "
        "datasets that are trained on)",
        location=True,
    )
    every_n_steps: int = setting(0, "validate every so many steps (0: never)", range=NONE_OR_MORE)
    every_n_epochs: int = setting(0, "validate after every so many epochs", range=NONE_OR_MORE)
    max_images: int = setting(0, "validate on so many images at most (0: on all)", range=NONE_OR_MORE)
    seed: int | None = setting(None, "seed of the validation's noise (default: the run's seed)", range=SEED)
    early_stop: int = setting(
        0,
        "stop after so many validations without improvement, and keep the LoRA of the least validation loss "
        "(0: train to the end)",
        range=NONE_OR_MORE,
    )


@dataclass(frozen=True)
class Tracking(Group):
    """Where losses are shown beside `loss.jsonl`: a machine's own affair, so no part of a shared recipe."""

    log_with: str | None = setting(
        None,
        "show losses in TensorBoard, wandb or both (default: TensorBoard where there is a folder for logs)",
        choices=("tensorboard", "wandb", "all"),
        location=True,
    )
    logging_dir: Path | None = setting(
        None, "folder of the trackers' files (default: logs in the output folder)", location=True
    )
    tracker_name: str = setting(
        "diffusioncleft", "name of TensorBoard's run, or wandb's project", location=True
    )
    wandb_run_name: str | None = setting(None, "name of wandb's run (default: one of wandb's)", location=True)
    wandb_online: bool = setting(
        False, "let wandb upload losses and settings; without it they stay in the folder", location=True
    )
