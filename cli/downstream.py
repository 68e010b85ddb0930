"""`diffusioncleft downstream`: classifiers trained on generated images, and what they say of others."""

from __future__ import annotations

import argparse
from pathlib import Path

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

HELP = "train a classifier on generated images and try it on photographs: what are the images good for?"
EXAMPLES = """\
examples:
  diffusioncleft downstream train --task pre_post --out models/pre_post \\
      --positive run/generated/pre_op --negative run/generated/post_op
  diffusioncleft downstream evaluate models/pre_post --out private/pre_post \\
      --test real=run/private/pre_op --test real=run/private/post_op
  diffusioncleft downstream train --task lip_anomaly --out models/demo --phantom --model probe \\
      --positive demo/generated/post_op --negative demo/private/phantom_photographs/control
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
  diffusioncleft downstream train --task lip_anomaly --out models/demo --phantom --model probe \\
      --positive demo/generated/post_op --negative demo/private/phantom_photographs/control

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
    from ..diffusioncleft_core.downstream.cropper import Cropper
    from ..diffusioncleft_core.downstream.crops import View, refuse_same_sets
    from ..diffusioncleft_core.downstream.task import load_task
    from ..diffusioncleft_core.downstream.train_model import (
        ModelTraining,
        refuse_used_folder,
        words_of,
    )
    from ..diffusioncleft_core.downstream.training import TrainSettings, frozen_part_of
    from ..diffusioncleft_core.weights.backbones import load_backbone

    refuse_same_sets(args.positive, args.negative)
    refuse_used_folder(args.out)
    task = sized(load_task(args.task), args.side)
    settings = TrainSettings(kind=args.model, view=View(args.view))
    device = picked_device(args)
    backbone = load_backbone(backbone_name(args), device, args.weights)
    frozen_part_of(backbone, settings)
    analyzer = face_analyzer(args, device)
    cropper = Cropper.of(task.crop, analyzer, args.cache, warn)
    seeds = range(args.seed, args.seed + args.seeds)
    training = ModelTraining(task, cropper, backbone, settings, seeds, warn)
    positive, negative = training.crops(args.positive, args.negative)
    training.run(
        positive,
        negative,
        args.out,
        lambda classifier: print(words_of({"seed": classifier.seed, **classifier.facts})),
    )
    if backbone.info.phantom:
        print("a backbone of phantoms: this model says nothing about photographs")
    print(f"{len(positive)} positive and {len(negative)} negative images: {args.out}")
    return 0
