"""`diffusioncleft downstream`: classifiers trained on generated images, and what they say of others."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..diffusioncleft_core.errors import UserError
from .classifiers import evaluate, experiment
from .classifiers.options import (
    add_classifier_options,
    add_model_options,
    backbone_name,
    face_analyzer,
    picked_device,
    sized,
    tasks,
)
from .options import warn

if TYPE_CHECKING:
    from ..diffusioncleft_core.downstream.cropper import Cropper
    from ..diffusioncleft_core.downstream.crops import Crops

HELP = "train a classifier on generated images and try it on photographs: what are the images good for?"
EXAMPLES = """\
examples:
  diffusioncleft downstream train --task pre_post --out models/pre_post \\
      --positive run/generated/pre_op --negative run/generated/post_op
  diffusioncleft downstream evaluate models/pre_post --out private/pre_post \\
      --test real=run/private/pre_op --test real=run/private/post_op
  diffusioncleft downstream train --task lip_anomaly --out models/demo --phantom \\
      --positive demo/generated/post_op --negative healthy
  diffusioncleft downstream run runs/first --control healthy
  diffusioncleft downstream train --task my_task.toml --model probe --backbone timm:models/vit \\
      --positive a b --negative c --out models/mine

A SET is a folder that `generate` or `dataset build` made, or a bare folder of images.
Not a diagnostic device.
"""
TRAIN_EXAMPLES = """\
examples:
  diffusioncleft downstream train --task pre_post --out models/pre_post \\
      --positive run/generated/pre_op --negative run/generated/post_op
  diffusioncleft downstream train --task lip_anomaly --out models/demo --phantom \\
      --positive demo/generated/post_op --negative healthy

The paper's model needs torchvision's MobileNetV2: diffusioncleft weights fetch mobilenet-v2. Run the same
command again after an interruption: crops and features that are done stay.
"""
DEFAULT_TASK = "lip_anomaly"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommands."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="train|evaluate|run")
    train = actions.add_parser(
        "train",
        help="train a classifier on two sets of images",
        description="train a classifier on two sets of images, once a seed",
        epilog=TRAIN_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, what in (("positive", "which show the finding"), ("negative", "which don't")):
        train.add_argument(
            f"--{name}",
            nargs="+",
            action="extend",
            type=Path,
            required=True,
            metavar="SET",
            help=f"sets of images {what}; of a dataset its training photographs",
        )
    train.add_argument("--out", type=Path, required=True, metavar="MODEL", help="the model's folder")
    train.add_argument(
        "--task", default=DEFAULT_TASK, metavar="NAME", help=f"{', '.join(tasks())}, or a TOML file"
    )
    add_classifier_options(train)
    train.add_argument(
        "--view",
        choices=("whole", "lip_masked", "lip_alone", "background"),
        default="whole",
        help="what of the pictures it sees (default: the whole crop)",
    )
    add_model_options(train)
    judged = actions.add_parser(
        "evaluate",
        help="let a model judge test sets",
        description="let a model judge test sets: figures with intervals, and what it says of each image",
        epilog=evaluate.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    evaluate.configure(judged)
    whole = actions.add_parser(
        "run",
        help="all trainings of a task on a run's folder: sources, controls, learning curve",
        description="train and test all that a task asks for on a run's folder, with its controls",
        epilog=experiment.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    experiment.configure(whole)


def run(args: argparse.Namespace) -> int:
    actions = {"train": train, "evaluate": evaluate.run, "run": experiment.run}
    return actions[args.action](args)


def train(args: argparse.Namespace) -> int:
    """Train, once a seed, and write the model's folder."""
    from ..diffusioncleft_core.downstream.backbones import load_backbone, refuse_photographs
    from ..diffusioncleft_core.downstream.cropper import Cropper
    from ..diffusioncleft_core.downstream.crops import View, joined
    from ..diffusioncleft_core.downstream.model import counts_of, write_model
    from ..diffusioncleft_core.downstream.task import load_task
    from ..diffusioncleft_core.downstream.training import TrainSettings, frozen_part_of, train_classifiers

    task = sized(load_task(args.task), args.side)
    settings = TrainSettings(kind=args.model, view=View(args.view))
    device = picked_device(args)
    backbone = load_backbone(backbone_name(args), device, args.weights)
    frozen_part_of(backbone, settings)
    refuse_used_folder(args.out)
    analyzer = face_analyzer(args, device)
    refuse_photographs(backbone, phantom=analyzer.phantom_only)
    cropper = Cropper.of(task.crop, analyzer, args.cache)
    classes = {
        label: joined([training_crops(cropper, folder, label) for folder in folders])
        for label, folders in ((1, args.positive), (0, args.negative))
    }
    positive, negative = classes[1], classes[0]
    classifiers = []
    for classifier in train_classifiers(
        task, positive, negative, backbone, settings, range(args.seed, args.seed + args.seeds)
    ):
        facts = classifier.facts
        how = f"C {facts['C']:g}" if "C" in facts else f"epoch {facts['best_epoch']} of {facts['epochs']}"
        print(
            f"seed {classifier.seed}: {how}, {100 * facts['validation_accuracy']:.1f} % of the "
            "validation images right"
        )
        classifiers.append(classifier)
    counts = counts_of(positive, negative)
    write_model(args.out, classifiers, counts, cropper)
    if backbone.info.phantom:
        print("a backbone of phantoms: this model says nothing about photographs")
    print(f"{len(positive)} positive and {len(negative)} negative images: {args.out}")
    return 0


def refuse_used_folder(folder: Path) -> None:
    """Raise UserError for a folder that holds something else than a model."""
    from ..diffusioncleft_core.downstream.model import FILE_NAME

    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; give another --out")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / FILE_NAME).is_file():
        raise UserError(f"{folder} holds something else than a model; give a new folder as --out")


def training_crops(cropper: Cropper, folder: Path, label: int) -> Crops:
    """The crops of one set; what is not among them is warned of."""
    from ..diffusioncleft_core.imageset.manifest import unlisted

    crops = cropper.training_set(folder, label)
    for message in unlisted(folder):
        warn(message)
    if crops.n_not_found:
        total = len(crops) + crops.n_not_found
        warn(f"no lip was found in {crops.n_not_found} of {total} images of {folder}; they are left out")
    return crops
