"""`diffusioncleft downstream run`: everything that a run's folder says of what its images are good for."""

from __future__ import annotations

import argparse
from pathlib import Path

from ...diffusioncleft_core.errors import UserError
from ...diffusioncleft_core.ranges import whole
from ..options import add_vocabulary_argument, warn
from .options import (
    add_classifier_options,
    add_model_options,
    backbone_name,
    face_analyzer,
    picked_device,
    sized,
    tasks,
)

EXAMPLES = """\
examples:
  diffusioncleft downstream run demo --phantom --task pre_post
  diffusioncleft downstream run runs/first --control healthy
  diffusioncleft downstream run runs/first --control healthy --model probe --backbone timm:models/vit \\
      --foreign cleftgan=cleftgan/images,healthy

Test set are the hold-out photographs of the run, of healthy faces one person in five of --control; under
--phantom 400 phantoms of new people. RUN/downstream.json may be shared; what was said of each image lies in
RUN/private/downstream. What is done is kept: run the same command again after an interruption.
Not a diagnostic device.
"""
FOLDS = whole(2, 100)


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="folder that `diffusioncleft run` wrote")
    parser.add_argument(
        "--task",
        action="append",
        metavar="NAME",
        help=f"{', '.join(tasks())}, or a TOML file; repeat it for others (default: all that come along)",
    )
    parser.add_argument("--control", type=Path, metavar="DIR", help="healthy faces of people")
    parser.add_argument(
        "--foreign",
        action="append",
        default=[],
        type=foreign_source,
        metavar="NAME=POSITIVE,NEGATIVE",
        help="sets of another source, as one to compare with; repeat it for others",
    )
    parser.add_argument("--folds", type=FOLDS, default=5, help="of the cross-validation on photographs")
    parser.add_argument(
        "--paper", action="store_true", help="allow people who were learned from, and mark it"
    )
    add_classifier_options(parser)
    add_vocabulary_argument(parser)
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    """Train and test, write the document, and print what comes first in it."""
    from ...diffusioncleft_core.conditions.loader import load_vocabulary
    from ...diffusioncleft_core.dataset.folder import holds_phantoms
    from ...diffusioncleft_core.downstream.cropper import Cropper
    from ...diffusioncleft_core.downstream.document import FILE_NAME, NOTICE
    from ...diffusioncleft_core.downstream.experiment import ExperimentSettings
    from ...diffusioncleft_core.downstream.task import load_task
    from ...diffusioncleft_core.downstream.training import TrainSettings, frozen_part_of
    from ...diffusioncleft_core.downstream.trainings import check_foreign
    from ...diffusioncleft_core.outputs import check_output
    from ...diffusioncleft_core.report.downstream_words import told
    from ...diffusioncleft_core.report.folders import RunFolders
    from ...diffusioncleft_core.run.downstream import try_tasks
    from ...diffusioncleft_core.run.downstream_material import Holdings
    from ...diffusioncleft_core.weights.backbones import load_backbone, refuse_photographs

    check_foreign([name for name, _ in args.foreign])
    chosen = [sized(load_task(name), args.side) for name in args.task or tasks()]
    folders = RunFolders(args.run)
    if not (args.run / "generated").is_dir():
        raise UserError(f"{args.run} is no folder of a run: it has no generated images; name a run's folder")
    if not (args.phantom or args.faces) and any(map(holds_phantoms, folders.datasets())):
        raise UserError(f"the photographs of the run {args.run} are phantoms: give --phantom")
    for file in (folders.root / FILE_NAME, folders.downstream / FILE_NAME):
        check_output(file)
    settings = ExperimentSettings(TrainSettings(kind=args.model), args.seeds, args.seed, args.folds)
    device = picked_device(args)
    backbone = load_backbone(backbone_name(args), device, args.weights)
    frozen_part_of(backbone, settings.train)
    analyzer = face_analyzer(args, device)
    refuse_photographs(backbone, phantom=analyzer.phantom_only)
    holdings = Holdings(
        folders,
        Cropper.of(chosen[0].crop, analyzer, args.cache or folders.faces),
        load_vocabulary(args.vocabulary),
        args.control,
        dict(args.foreign),
        warn=warn,
    )
    document = try_tasks(holdings, chosen, backbone, settings, paper=args.paper, warn=warn)
    for task in document["tasks"].values():
        print("\n".join(told(task)))
    print(NOTICE)
    print(f"figures: {folders.root / FILE_NAME}; what was said of each image, private: {folders.downstream}")
    return 0


def foreign_source(text: str) -> tuple[str, tuple[Path, Path]]:
    """`cleftgan=images,healthy` → (`cleftgan`, (path, path))."""
    name, _, sets = text.partition("=")
    positive, comma, negative = sets.partition(",")
    if not (name.strip() and comma and positive.strip() and negative.strip()) or "," in negative:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no NAME=POSITIVE,NEGATIVE such as cleftgan=cleftgan/images,healthy"
        )
    return name.strip(), (Path(positive.strip()), Path(negative.strip()))
