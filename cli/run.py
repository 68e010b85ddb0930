"""`diffusioncleft run`: from photographs to LoRAs and synthetic sets, in one command."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..diffusioncleft_core.conditions.loader import load_vocabulary
from ..diffusioncleft_core.dataset.settings import SMALLEST_SIDE
from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.ranges import (
    COUNT,
    HOLDOUT,
    NONE_OR_MORE,
    PAPER_SIMILARITY,
    PHANTOMS,
    REFILLS,
    SAMPLING_STEPS,
    SEED,
    SIMILARITY,
    STRENGTH,
)
from ..diffusioncleft_core.recipe.checks import check_places, check_recipe
from ..diffusioncleft_core.recipe.recipe import PHANTOM_SIDE
from ..diffusioncleft_core.text import counted
from .options import (
    add_base_arguments,
    add_limit_argument,
    add_ray_arguments,
    add_vocabulary_argument,
    engine_from,
    found_source,
    limits_from,
    named_folder,
    parse_size,
    sampling_from,
    warn,
)
from .recipe_options import add_preset, add_recipe_options, preset_name, recipe_from

if TYPE_CHECKING:
    from ..diffusioncleft_core.dataset.settings import Photographs
    from ..diffusioncleft_core.recipe.recipe import Recipe
    from ..diffusioncleft_core.run.settings import RunSettings

HELP = "photographs in, LoRAs and sets of new faces out; --phantom does it without any photograph"
EXAMPLES = """\
examples:
  diffusioncleft run --phantom --out demo
  diffusioncleft run --photos-pre photos/pre --photos-post photos/post --base FLUX.1-schnell \\
      --faces buffalo_l --training-adapter adapter.safetensors --out runs/first
  diffusioncleft run --photos-pre photos/pre --base FLUX.1-schnell --preset paper --n 500 --out runs/paper
  diffusioncleft run --photos-pre photos/pre --base FLUX.1-schnell --out runs/first --check
  diffusioncleft run --vocabulary facial_palsy.toml --photos acute=photos --base FLUX.1-schnell --out palsy

metadata.csv, or else CONSENT.txt (docs/dataset.md), is looked for in each folder of photographs. Everything
that comes from photographs lies in the run folder's `private` part, and `diffusioncleft dataset purge` erases
it. Run the same command again after an interruption: finished stages are skipped.
"""
DEFAULT_FACES = "buffalo_l"
RECIPE_OPTIONS = (
    "optimizer.learning_rate",
    "data.resolution",
    "data.mirror",
    "network.training_adapter",
    "optimizer.name",
    "memory.base_format",
    "memory.blocks_to_swap",
    "memory.gradient_checkpointing",
    "memory.limit",
    "optimizer.steps",
)
"""Fields of the recipe that are options here; all others come by --recipe."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the run's folder")
    photos = parser.add_argument_group("photographs")
    photos.add_argument(
        "--photos",
        type=named_folder,
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="photographs of a condition of the vocabulary; once a condition",
    )
    photos.add_argument(
        "--metadata",
        type=named_folder,
        action="append",
        default=[],
        metavar="NAME=CSV",
        help="their table (default: metadata.csv in the folder, or its CONSENT.txt)",
    )
    for condition in load_vocabulary().conditions.values():
        if condition.option:
            photos.add_argument(
                f"--photos-{condition.option}",
                type=Path,
                metavar="DIR",
                help=f"short for --photos {condition.name}=DIR",
            )
            photos.add_argument(
                f"--metadata-{condition.option}",
                type=Path,
                metavar="CSV",
                help=f"short for --metadata {condition.name}=CSV",
            )
    add_vocabulary_argument(photos)
    photos.add_argument("--faces", help=f"face model pack, name or folder (default {DEFAULT_FACES})")
    photos.add_argument(
        "--holdout", type=HOLDOUT, default=0.1, help="share of subjects not trained on (default 0.1)"
    )
    photos.add_argument(
        "--phantoms",
        type=PHANTOMS,
        metavar="N",
        help="photographs that --phantom renders and each condition trains on (default: the vocabulary's)",
    )
    photos.add_argument(
        "--min-side", type=SMALLEST_SIDE, help="smallest side of a photograph, px (default 256, phantoms 64)"
    )
    training = parser.add_argument_group("training")
    add_preset(training)
    training.add_argument(
        "--regularization-images",
        type=NONE_OR_MORE,
        default=0,
        metavar="N",
        help="also train on so many images of the base model (default 0)",
    )
    add_recipe_options(training, RECIPE_OPTIONS)
    images = parser.add_argument_group("images")
    images.add_argument(
        "--n", type=COUNT, help="images a condition (default: the paper's 2000; phantoms 200)"
    )
    images.add_argument("--mode", default="paper", help="paper (uniform) or clinical (default paper)")
    images.add_argument(
        "--size", type=parse_size, metavar="PX", help="768 or 768x1024 (default 768; phantom 128)"
    )
    images.add_argument(
        "--steps", type=SAMPLING_STEPS, default=4, help="sampling steps (default 4, schnell's)"
    )
    images.add_argument(
        "--strength",
        type=STRENGTH,
        help="of the LoRAs in generation (default 1; on phantoms what the vocabulary says)",
    )
    images.add_argument("--batch", type=COUNT, help="images at once (default 1; phantom 16)")
    images.add_argument(
        "--bare-trigger", action="store_true", help="CLP instead of [CLP], in captions and prompts"
    )
    images.add_argument(
        "--cell-images", type=COUNT, help="phantoms: images a cell of the trigger experiment (default 100)"
    )
    judging = parser.add_argument_group("filters and measurements")
    judging.add_argument(
        "--threshold",
        type=SIMILARITY,
        default=PAPER_SIMILARITY,
        help="cosine from which a face counts as a training face's (default %(default)s, the paper's)",
    )
    add_limit_argument(judging)
    judging.add_argument(
        "--refill",
        type=REFILLS,
        default=0,
        metavar="N",
        help="make rejected images again, each up to N times (default 0)",
    )
    judging.add_argument(
        "--metrics",
        default="fid,lpips",
        help="beside FIR: fid,lpips, one of them, or none (default fid,lpips)",
    )
    judging.add_argument(
        "--control",
        type=Path,
        metavar="DIR",
        help="healthy faces for the face map, as the paper's Figure 7 has; never shown, only counted",
    )
    judging.add_argument(
        "--downstream",
        nargs="*",
        metavar="TASK",
        help="train classifiers on the images and test them on the hold-out: tasks by name or file "
        "(default: all that come along)",
    )
    judging.add_argument(
        "--audit",
        type=NONE_OR_MORE,
        default=0,
        metavar="K",
        help="audit each LoRA: K drawings of every caption it learned from, and its loss (default 0: none)",
    )
    judging.add_argument(
        "--study",
        action="store_true",
        help="phantoms: make a rater study of the images, rated by a program, which the report says",
    )
    parser.add_argument("--seed", type=SEED, default=0, help="seed of everything that is drawn (default 0)")
    parser.add_argument(
        "--redo",
        action="store_true",
        help="make everything anew; LoRAs and images that are there are set aside in the run's folder",
    )
    parser.add_argument(
        "--plan", action="store_true", help="print what each stage would do and why, and start nothing"
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="print all that the run needs, what is missing and how it is fetched, and start nothing",
    )
    add_base_arguments(parser)
    add_ray_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from ..diffusioncleft_core.report.run_folder import HTML
    from ..diffusioncleft_core.run.need import needs_table
    from ..diffusioncleft_core.run.needs import needs_of
    from ..diffusioncleft_core.run.pipeline import plan_notes, plan_run, run_pipeline
    from ..diffusioncleft_core.run.stages import plan_table, stage_table

    settings = settings_from(args)
    if args.check:
        needs = needs_of(settings)
        print(needs_table(needs))
        return 2 if any(need.problem for need in needs) else 0
    if args.plan:
        print(plan_table(plan_run(settings)))
        for line in plan_notes(settings):
            warn(line)
        return 0
    with engine_from(args) as engine:
        result = run_pipeline(replace(settings, engine=engine), start_trainer, warn=warn)
    print(stage_table(result.rows))
    for name, stages in result.facts.items():
        tell_photographs(name, stages["dataset"], result.folders.dataset(name))
    print(f"summary: {result.folders.summary}")
    print(f"sheets:  {result.folders.sheets}")
    print(f"figures: {result.folders.report}")
    print(f"report:  {result.folders.root / HTML}")
    return 0


def tell_photographs(condition: str, dataset: Mapping[str, Any], folder: Path) -> None:
    """Print how many photographs of a condition were used, and how many were set aside for what reason."""
    from ..diffusioncleft_core.imageset.decode import OVERRULABLE, REASONS

    aside = dataset["set_aside"]
    print(
        f"{condition}: {counted(dataset['training_images'], 'photograph')} trained on, "
        f"{dataset['holdout_images']} held out, {sum(aside.values())} set aside"
    )
    for reason, count in aside.items():
        back = " (can be taken back)" if reason in OVERRULABLE else ""
        print(f"  {count:5d}  {reason}: {REASONS.get(reason, reason)}{back}")
    if aside:
        print(f"  their names: diffusioncleft dataset show {shlex.quote(str(folder))} --list")


def settings_from(args: argparse.Namespace) -> RunSettings:
    """The run's settings from the command line; what is missing is found by `needs`, all of it at once."""
    from ..diffusioncleft_core.run.settings import (
        PHANTOM_CELL_IMAGES,
        PHANTOM_IMAGES,
        RunSettings,
    )

    if args.phantom and args.faces:
        raise UserError(
            "--phantom brings its own face models: leave out --faces, or --phantom for photographs"
        )
    photographs = photographs_from(args)
    if args.phantoms and (photographs or not args.phantom):
        raise UserError(
            f"--phantoms {args.phantoms} counts the photographs that --phantom renders: leave it out, or "
            "give --phantom and no photographs"
        )
    source, absent = found_source(args)
    sampling = sampling_from(args, 1.0)
    if args.phantom and (sampling.width, sampling.height) != (PHANTOM_SIDE, PHANTOM_SIDE):
        raise UserError(
            f"--size {sampling.width}x{sampling.height}: on phantoms a run draws {PHANTOM_SIDE} px, which "
            "its models and what reads its pictures are made for; leave --size out"
        )
    return RunSettings(
        out=args.out,
        source=source,
        sampling=sampling,
        faces=args.faces or ("phantom" if args.phantom else DEFAULT_FACES),
        phantom=args.phantom,
        phantoms=args.phantoms,
        strength=args.strength,
        vocabulary=load_vocabulary(args.vocabulary),
        photographs=photographs,
        preset=preset_name(args),
        n=(PHANTOM_IMAGES if args.phantom else 2000) if args.n is None else args.n,
        mode=args.mode,
        bracketed=not args.bare_trigger,
        holdout=args.holdout,
        min_side=args.min_side,
        seed=args.seed,
        regularization_images=args.regularization_images,
        control=args.control,
        cell_images=PHANTOM_CELL_IMAGES if args.cell_images is None else args.cell_images,
        threshold=args.threshold,
        limits=limits_from(args),
        refill=args.refill,
        metrics=metrics_from(args.metrics),
        downstream=downstream_from(args.downstream),
        study=args.study,
        audit=args.audit,
        recipe=recipe_from(
            args, RECIPE_OPTIONS, {"data.resolution": (sampling.width,)} if args.phantom else {}
        ),
        redo=args.redo,
        absent=absent,
    )


def metrics_from(text: str) -> tuple[str, ...]:
    from ..diffusioncleft_core.run.settings import METRICS

    wanted = [part.strip().lower() for part in text.split(",") if part.strip() not in ("", "none")]
    unknown = [name for name in wanted if name not in METRICS]
    if unknown:
        raise UserError(f"--metrics has no {unknown[0]!r}: give {','.join(METRICS)}, one of them, or none")
    return tuple(name for name in METRICS if name in wanted)


def downstream_from(tasks: list[str] | None) -> tuple[str, ...]:
    """The tasks that are asked for: none without the option, all that come along where it names none."""
    from ..diffusioncleft_core.downstream.task import known_tasks

    return () if tasks is None else tuple(dict.fromkeys(tasks)) or known_tasks()


def photographs_from(args: argparse.Namespace) -> dict[str, Photographs]:
    """Photographs by condition, from --photos and --metadata and from their short forms."""
    from ..diffusioncleft_core.dataset.folder_consent import usual_table
    from ..diffusioncleft_core.dataset.settings import Photographs

    folders = given_by_condition(args, "photos")
    tables = given_by_condition(args, "metadata")
    for name, table in tables.items():
        if name not in folders:
            raise UserError(f"{table} is the table of no photographs: add --photos {name}=DIR")
    return {
        name: Photographs(folder, tables.get(name) or usual_table(folder)) for name, folder in folders.items()
    }


def given_by_condition(args: argparse.Namespace, option: str) -> dict[str, Path]:
    """The paths of a repeatable NAME=PATH option and of its short forms; UserError for a name given twice."""
    pairs = list(getattr(args, option))
    for condition in load_vocabulary().conditions.values():
        if condition.option and (path := getattr(args, f"{option}_{condition.option}")) is not None:
            pairs.append((condition.name, path))
    found: dict[str, Path] = {}
    for name, path in pairs:
        if name in found:
            raise UserError(f"--{option} names {name} twice: give one path for a condition")
        found[name] = path
    return found


def start_trainer(recipe: Recipe, on_event: Any, stop: Any) -> None:
    """Start the trainer, a process of its own, and report its events."""
    from ..trainer.launch import train

    train(check_places(check_recipe(recipe)), on_event, stop)
