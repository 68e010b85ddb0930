"""`diffusioncleft downstream evaluate`: what a model says of test sets, and how good it is there."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ...diffusioncleft_core.errors import UserError
from ..options import warn
from .options import add_model_options, face_analyzer, picked_device

if TYPE_CHECKING:
    from ...diffusioncleft_core.downstream.evaluate_model import Examined, Judge
    from ...diffusioncleft_core.downstream.leak import People
    from ...diffusioncleft_core.downstream.model import SavedModel
    from ...diffusioncleft_core.downstream.predictions import Predictions
    from ...diffusioncleft_core.downstream.task import Task

EXAMPLES = """\
examples:
  diffusioncleft downstream evaluate models/pre_post --out evaluated \\
      --test real=run/private/pre_op --test real=run/private/post_op \\
      --trained-on run/private/pre_op run/private/post_op
  diffusioncleft downstream evaluate models/lip --out evaluated --trained-on run/private/post_op \\
      --test real.positive=photos/repaired --test real.negative=photos/healthy

Sets of one name are one test set. Which class a set shows its manifest says, or NAME.positive and
NAME.negative. Of a dataset the hold-out is the test set, all of it where nothing is held out. A test set with
people of the datasets of --trained-on is refused, and so is one with pictures that the model learned from.
OUT/downstream.json holds the figures and may be shared; OUT/NAME holds what was said of each image and is
private. Not a diagnostic device.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help="folder that `downstream train` wrote")
    parser.add_argument(
        "--test",
        action="append",
        required=True,
        type=named_set,
        metavar="NAME=SET",
        help="a test set; repeat it for its other sets, and for other test sets",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="figures and private predictions"
    )
    parser.add_argument(
        "--trained-on",
        nargs="+",
        action="extend",
        type=Path,
        default=[],
        metavar="DATASET",
        help="datasets that LoRAs or classifier learned from: a test set with their people is refused",
    )
    parser.add_argument(
        "--paper", action="store_true", help="allow such a test set, and mark every figure of it"
    )
    parser.add_argument("--backbone", metavar="NAME", help="where the model stands on one of your own")
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    """Write what each of a model's classifiers says of each image of the test sets, and the figures."""
    from ...diffusioncleft_core.dataset.drawn import remember_place
    from ...diffusioncleft_core.dataset.folder import is_dataset
    from ...diffusioncleft_core.downstream.cropper import Cropper
    from ...diffusioncleft_core.downstream.document import (
        FILE_NAME,
        NOTICE,
        training_names,
        write_document,
    )
    from ...diffusioncleft_core.downstream.evaluate_model import SOURCE, Judge
    from ...diffusioncleft_core.downstream.evidence import downstream_document
    from ...diffusioncleft_core.downstream.held_out import TOUCHED, learned_people
    from ...diffusioncleft_core.downstream.leak import choosing_people
    from ...diffusioncleft_core.downstream.model import read_model
    from ...diffusioncleft_core.downstream.withdrawn import refuse_withdrawn_model
    from ...diffusioncleft_core.outputs import check_output
    from ...diffusioncleft_core.report.downstream_words import told

    model = read_model(args.model)
    refuse_withdrawn_model(model)
    sets = test_sets(args.test, model.task)
    for file in (args.out / FILE_NAME, *(args.out / name / TOUCHED for name in sets)):
        check_output(file)
    device = picked_device(args)
    if args.phantom or args.faces is None:  # before a face pack is looked for
        check_kind(args, model, phantom=args.phantom)
    analyzer = face_analyzer(args, device)
    check_kind(args, model, phantom=analyzer.phantom_only)
    cropper = Cropper.of(model.task.crop, analyzer, args.cache, warn)
    judge = Judge.of(model, cropper, device, args.weights, args.backbone)
    at_hand = [folder for labelled in sets.values() for folder, _ in labelled if is_dataset(folder)]
    learned = learned_people(model.learners, args.trained_on, at_hand)
    choosers = choosing_people(model.loras, [*args.trained_on, *at_hand])
    tests = {name: examined(judge, name, sets, learned, choosers, paper=args.paper) for name in sets}
    found = {}
    for name, test in tests.items():
        if test.chosen:
            warn(f"{name}: {test.chosen}")
        evidence = judge.judged(test, args.out / name)
        for seed, predictions in zip(model.seeds, evidence.sources[SOURCE], strict=True):
            print(f"{name}, seed {seed}: {counted(predictions)}")
        found[model.task.name if len(sets) == 1 else f"{model.task.name}-{name}"] = evidence
    document = downstream_document(found)
    remember_place(args.out, training_names(document))
    write_document(args.out / FILE_NAME, document)
    for name, task in zip(sets, document["tasks"].values(), strict=True):
        print("\n".join([*([f"test set {name}:"] if len(sets) > 1 else []), *told(task)]))
    print(NOTICE)
    private = ", ".join(str(args.out / name) for name in sets)
    print(f"figures: {args.out / FILE_NAME}; what was said of each image, private: {private}")
    return 0


def check_kind(args: argparse.Namespace, model: SavedModel, *, phantom: bool) -> None:
    """UserError where a model of phantoms would judge photographs, or the other way round."""
    if model.phantom != phantom:
        kind = "phantoms: give --phantom" if model.phantom else "photographs: leave --phantom out"
        raise UserError(f"the model {args.model} was trained on {kind}")


def examined(
    judge: Judge,
    name: str,
    sets: Mapping[str, list[tuple[Path, int]]],
    learned: Mapping[str, People | None],
    choosers: Mapping[str, People],
    *,
    paper: bool,
) -> Examined:
    """One of the test sets; a refusal says which where there are several."""
    try:
        return judge.examined(sets[name], learned, choosers=choosers, paper=paper)
    except UserError as error:
        raise UserError(f"test set {name}: {error}" if len(sets) > 1 else str(error)) from error


def named_set(text: str) -> tuple[str, str, Path]:
    """`real.positive=photos` → (`real`, `positive`, path); the class is empty where it is not told."""
    name, equals, folder = text.partition("=")
    name, _, side = name.strip().partition(".")
    if not (name and equals and folder.strip()) or side not in ("", "positive", "negative"):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no NAME=SET such as real=photographs or real.positive=photographs"
        )
    return name, side, Path(folder.strip())


def test_sets(named: list[tuple[str, str, Path]], task: Task) -> dict[str, list[tuple[Path, int]]]:
    """Folders and labels by the test set's name; UserError where a class is not told or missing, or both
    have the same folder.
    """
    from ...diffusioncleft_core.downstream.document import check_name
    from ...diffusioncleft_core.downstream.held_out import refuse_same_classes

    sets: dict[str, list[tuple[Path, int]]] = {}
    for name, side, folder in named:
        check_name(name, "a test set")
        if name not in sets and name.lower() in {other.lower() for other in sets}:
            raise UserError(
                f"two test sets' names differ in capitals alone, as {name}; some systems have one folder for "
                "both: give another name"
            )
        label = int(side == "positive") if side else told_label(folder, task)
        if label is None:
            raise UserError(
                f"the images of {folder} don't say their class; name it: "
                f"--test {name}.positive={folder} or --test {name}.negative={folder}"
            )
        sets.setdefault(name, []).append((folder, label))
    for name, labelled in sets.items():
        refuse_same_classes(labelled)
        if len({label for _, label in labelled}) < 2:
            missing = "negative" if labelled[0][1] else "positive"
            raise UserError(f"the test set {name} has no {missing} images; add --test {name}.{missing}=SET")
    return sets


def told_label(folder: Path, task: Task) -> int | None:
    """The class of a set whose manifest tells it: all its images' conditions and roles give the same one."""
    from ...diffusioncleft_core.imageset.manifest import image_set_rows

    labels = {task.label_of(row.condition, row.role) for row in image_set_rows(folder)}
    return labels.pop() if len(labels) == 1 else None


def counted(predictions: Predictions) -> str:
    """`87 of 100 right (positive 45 of 50, negative 42 of 50)`."""
    from ...diffusioncleft_core.downstream.resampling import is_right

    right = is_right(predictions)
    parts = []
    for word, label in (("positive", 1), ("negative", 0)):
        inside = right[predictions.labels == label]
        parts.append(f"{word} {int(inside.sum())} of {len(inside)}")
    return f"{int(right.sum())} of {len(right)} right ({', '.join(parts)})"
