"""`diffusioncleft downstream`: classifiers trained on generated images, and what they say of others."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.ranges import COUNT, SEED
from .options import warn

if TYPE_CHECKING:
    import torch

    from ..diffusioncleft_core.downstream.cropper import Cropper
    from ..diffusioncleft_core.downstream.crops import Crops
    from ..diffusioncleft_core.downstream.predictions import Predictions
    from ..diffusioncleft_core.downstream.task import Task
    from ..diffusioncleft_core.faces.analyzer import FaceAnalyzer

HELP = "train a classifier on generated images and try it on photographs: what are the images good for?"
EXAMPLES = """\
examples:
  diffusioncleft downstream train --task pre_post --out models/pre_post \\
      --positive run/generated/pre_op --negative run/generated/post_op
  diffusioncleft downstream evaluate models/pre_post --out private/pre_post \\
      --test real=run/private/pre_op --test real=run/private/post_op
  diffusioncleft downstream train --task lip_anomaly --out models/demo --phantom \\
      --positive demo/generated/post_op --negative healthy
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
EVALUATE_EXAMPLES = """\
examples:
  diffusioncleft downstream evaluate models/pre_post --out private/pre_post \\
      --test real=run/private/pre_op --test real=run/private/post_op
  diffusioncleft downstream evaluate models/lip --out private/lip \\
      --test real.positive=photos/repaired --test real.negative=photos/healthy

Sets of one name are one test set. Which class a set shows its manifest says, or NAME.positive and
NAME.negative. Of a dataset the hold-out is the test set, all of it where nothing is held out. OUT is private:
it tells what was said of each image.
"""
DEFAULT_FACES, DEFAULT_TASK = "buffalo_l", "lip_anomaly"
DEFAULT_SEEDS = 5


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommands."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="train|evaluate")
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
    train.add_argument(
        "--model",
        choices=("paper", "probe"),
        default="paper",
        help="the paper's (default) or a linear probe",
    )
    train.add_argument(
        "--backbone",
        metavar="NAME",
        help=f"{', '.join(backbones())}, timm:FOLDER or transformers:FOLDER (default: mobilenet_v2; "
        "under --phantom phantom)",
    )
    train.add_argument(
        "--view",
        choices=("whole", "lip_masked", "lip_alone", "background"),
        default="whole",
        help="what of the pictures it sees (default: the whole crop)",
    )
    train.add_argument(
        "--seeds", type=COUNT, default=DEFAULT_SEEDS, metavar="N", help="so many trainings (default 5)"
    )
    train.add_argument("--seed", type=SEED, default=0, help="the first one's (default 0)")
    train.add_argument("--side", type=int, metavar="PX", help="of the crops (default: the task's, 224)")
    evaluate = actions.add_parser(
        "evaluate",
        help="let a model judge test sets",
        description="let a model judge test sets, image by image",
        epilog=EVALUATE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    evaluate.add_argument("model", type=Path, metavar="MODEL", help="folder that `downstream train` wrote")
    evaluate.add_argument(
        "--test",
        action="append",
        required=True,
        type=named_set,
        metavar="NAME=SET",
        help="a test set; repeat it for its other sets, and for other test sets",
    )
    evaluate.add_argument("--out", type=Path, required=True, metavar="DIR", help="private folder")
    evaluate.add_argument("--backbone", metavar="NAME", help="where the model stands on one of your own")
    for action in (train, evaluate):
        action.add_argument("--faces", help=f"face model pack, name or folder (default {DEFAULT_FACES})")
        action.add_argument("--weights", type=Path, metavar="DIR", help="own folder of weights")
        action.add_argument(
            "--phantom", action="store_true", help="phantoms: the embedded face models and backbone"
        )
        action.add_argument("--cache", type=Path, metavar="DIR", help="where generated sets' crops are kept")
        action.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (default auto)")


def run(args: argparse.Namespace) -> int:
    return train(args) if args.action == "train" else evaluate(args)


def train(args: argparse.Namespace) -> int:
    """Train, once a seed, and write the model's folder."""
    from ..diffusioncleft_core.downstream.backbones import DEFAULT, load_backbone, refuse_photographs
    from ..diffusioncleft_core.downstream.cropper import Cropper
    from ..diffusioncleft_core.downstream.crops import View, joined
    from ..diffusioncleft_core.downstream.model import counts_of, write_model
    from ..diffusioncleft_core.downstream.training import TrainSettings, frozen_part_of, train_classifiers
    from ..diffusioncleft_core.faces.analyzer import PHANTOM

    task = sized_task(args)
    settings = TrainSettings(kind=args.model, view=View(args.view))
    device = picked_device(args)
    backbone = load_backbone(args.backbone or (PHANTOM if args.phantom else DEFAULT), device, args.weights)
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


def evaluate(args: argparse.Namespace) -> int:
    """Write what each of a model's classifiers says of each image of the test sets."""
    from ..diffusioncleft_core.downstream.cropper import Cropper
    from ..diffusioncleft_core.downstream.crops import joined
    from ..diffusioncleft_core.downstream.model import read_model

    model = read_model(args.model)
    sets = test_sets(args.test, model.task)
    device = picked_device(args)
    analyzer = face_analyzer(args, device)
    if model.phantom != analyzer.phantom_only:
        kind = "phantoms: give --phantom" if model.phantom else "photographs: leave --phantom out"
        raise UserError(f"the model {args.model} was trained on {kind}")
    cropper = Cropper.of(model.task.crop, analyzer, args.cache)
    model.check_faces(cropper)
    classifiers = model.classifiers(device, args.weights, args.backbone)
    for name, labelled in sets.items():
        crops = joined([cropper.test_set(folder, label) for folder, label in labelled])
        for classifier in classifiers:
            predictions = classifier.predict(crops)
            predictions.write(args.out / name / f"seed-{classifier.seed}.jsonl")
            print(f"{name}, seed {classifier.seed}: {counted(predictions)}")
        if crops.n_not_found:
            print(f"{name}: in {crops.n_not_found} images no lip was found; they count apart")
    print(f"what was said of each image, private: {args.out}")
    return 0


def tasks() -> tuple[str, ...]:
    from ..diffusioncleft_core.downstream.task import known_tasks

    return known_tasks()


def backbones() -> tuple[str, ...]:
    from ..diffusioncleft_core.downstream.backbones import BACKBONES

    return tuple(BACKBONES)


def sized_task(args: argparse.Namespace) -> Task:
    """The task that the options name, its crops of the side they name."""
    from dataclasses import replace

    from ..diffusioncleft_core.downstream.task import CROP_SIDE, load_task

    task = load_task(args.task)
    if args.side is None:
        return task
    return replace(task, crop=replace(task.crop, side=CROP_SIDE.check(args.side, "--side")))


def picked_device(args: argparse.Namespace) -> torch.device:
    from ..diffusioncleft_core.environment import pick_device

    return pick_device(args.device)


def face_analyzer(args: argparse.Namespace, device: torch.device) -> FaceAnalyzer:
    """The embedded pack under --phantom, else the named one; a missing one stops the command."""
    from ..diffusioncleft_core.faces.analyzer import load_face_analyzer

    if args.phantom and args.faces:
        raise UserError("--phantom brings its own face models; leave out --faces, or --phantom")
    return load_face_analyzer("phantom" if args.phantom else args.faces or DEFAULT_FACES, device=device.type)


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


def named_set(text: str) -> tuple[str, str, Path]:
    """`real.positive=photos` → (`real`, `positive`, path); the class is empty where it is not told."""
    name, equals, folder = text.partition("=")
    name, _, side = name.strip().partition(".")
    if not (name and equals and folder.strip()) or side not in ("", "positive", "negative"):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no NAME=SET such as real=private/pre_op or real.positive=photos"
        )
    return name, side, Path(folder.strip())


def test_sets(named: list[tuple[str, str, Path]], task: Task) -> dict[str, list[tuple[Path, int]]]:
    """Folders and labels by the test set's name; UserError where a class is not told or missing."""
    sets: dict[str, list[tuple[Path, int]]] = {}
    for name, side, folder in named:
        label = int(side == "positive") if side else told_label(folder, task)
        if label is None:
            raise UserError(
                f"the images of {folder} don't say their class; name it: "
                f"--test {name}.positive={folder} or --test {name}.negative={folder}"
            )
        sets.setdefault(name, []).append((folder, label))
    for name, labelled in sets.items():
        if len({label for _, label in labelled}) < 2:
            missing = "negative" if labelled[0][1] else "positive"
            raise UserError(f"the test set {name} has no {missing} images; add --test {name}.{missing}=SET")
    return sets


def told_label(folder: Path, task: Task) -> int | None:
    """The class of a set whose manifest tells it: all its images' conditions and roles give the same one."""
    from ..diffusioncleft_core.imageset.manifest import read_image_set

    labels = {task.label_of(row.condition, row.role) for row in read_image_set(folder)}
    return labels.pop() if len(labels) == 1 else None


def counted(predictions: Predictions) -> str:
    """`87 of 100 right (positive 45 of 50, negative 42 of 50)`."""
    right = (predictions.scores >= 0.5) == (predictions.labels == 1)
    parts = []
    for word, label in (("positive", 1), ("negative", 0)):
        inside = right[predictions.labels == label]
        parts.append(f"{word} {int(inside.sum())} of {len(inside)}")
    return f"{int(right.sum())} of {len(right)} right ({', '.join(parts)})"
