"""Options that the commands on classifiers share, and what they stand for."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ...diffusioncleft_core.errors import UserError
from ...diffusioncleft_core.ranges import COUNT, CROP_SIDE, SEED

if TYPE_CHECKING:
    import torch

    from ...diffusioncleft_core.downstream.task import Task
    from ...diffusioncleft_core.faces.analyzer import FaceAnalyzer

DEFAULT_FACES = "buffalo_l"
DEFAULT_SEEDS = 5


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Face models, weights, phantoms, caches and the device."""
    parser.add_argument("--faces", help=f"face model pack, name or folder (default {DEFAULT_FACES})")
    parser.add_argument("--weights", type=Path, metavar="DIR", help="own folder of weights")
    parser.add_argument(
        "--phantom", action="store_true", help="phantoms: the embedded face models and backbone"
    )
    parser.add_argument("--cache", type=Path, metavar="DIR", help="where generated sets' crops are kept")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (default auto)")


def add_classifier_options(parser: argparse.ArgumentParser) -> None:
    """The kind of classifier, what it stands on, and how often it is trained."""
    parser.add_argument(
        "--model",
        choices=("paper", "probe"),
        default="paper",
        help="the paper's (default) or a linear probe",
    )
    parser.add_argument(
        "--backbone",
        metavar="NAME",
        help=f"{', '.join(backbones())}, timm:FOLDER or transformers:FOLDER (default: mobilenet_v2; "
        "under --phantom phantom)",
    )
    parser.add_argument(
        "--seeds", type=COUNT, default=DEFAULT_SEEDS, metavar="N", help="so many trainings (default 5)"
    )
    parser.add_argument("--seed", type=SEED, default=0, help="the first one's (default 0)")
    parser.add_argument(
        "--side", type=CROP_SIDE, metavar="PX", help="of the crops (default: the task's, 224)"
    )


def tasks() -> tuple[str, ...]:
    from ...diffusioncleft_core.downstream.task import known_tasks

    return known_tasks()


def backbones() -> tuple[str, ...]:
    from ...diffusioncleft_core.weights.backbones import BACKBONES

    return tuple(BACKBONES)


def picked_device(args: argparse.Namespace) -> torch.device:
    from ...diffusioncleft_core.environment import pick_device

    return pick_device(args.device)


def face_analyzer(args: argparse.Namespace, device: torch.device) -> FaceAnalyzer:
    """The embedded pack under --phantom, else the named one; a missing one stops the command."""
    from ...diffusioncleft_core.faces.analyzer import load_face_analyzer

    if args.phantom and args.faces:
        raise UserError("--phantom brings its own face models; leave out --faces, or --phantom")
    return load_face_analyzer("phantom" if args.phantom else args.faces or DEFAULT_FACES, device=device.type)


def backbone_name(args: argparse.Namespace) -> str:
    """The backbone that is asked for, else the paper's, under --phantom the phantoms'."""
    from ...diffusioncleft_core.faces.analyzer import PHANTOM
    from ...diffusioncleft_core.weights.backbones import DEFAULT

    return str(args.backbone or (PHANTOM if args.phantom else DEFAULT))


def sized(task: Task, side: int | None) -> Task:
    """The task with crops of that side; None leaves them."""
    from dataclasses import replace

    return task if side is None else replace(task, crop=replace(task.crop, side=side))
