"""`diffusioncleft doctor`: does everything work here, with these weights, and what will a run cost?"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.ranges import COUNT
from ..diffusioncleft_core.recipe.recipe import PAPER_SIDE, PHANTOM_SIDE
from .checkup.checkup import RESOLUTION
from .options import add_base_arguments, add_vocabulary_argument, device_and_dtype, found_source
from .recipe_options import add_preset, add_recipe_options, preset_name, recipe_from
from .run import DEFAULT_FACES, start_trainer

if TYPE_CHECKING:
    from .checkup.checkup import Checkup, DoctorSettings
    from .checkup.steps import Step, StepResult

HELP = "ten minutes' field test: load, train ten steps, draw, compare with diffusers, estimate a run"
EXAMPLES = """\
examples:
  diffusioncleft doctor --phantom
  diffusioncleft doctor --base FLUX.1-schnell --faces buffalo_l --training-adapter adapter.safetensors
  diffusioncleft doctor --base FLUX.1-schnell --resolution 512 --blocks-to-swap 20 --json result.json

The block on standard output names no person, computer, file or photograph: paste it into a bug report. What
stands above it, on standard error, may name your files. A real base model needs a CUDA GPU. Exit status: 0
nothing failed, 1 a step failed, 2 a mistake in the options. docs/doctor.md explains every step.
"""
RECIPE_OPTIONS = (
    "network.training_adapter",
    "memory.base_format",
    "memory.blocks_to_swap",
    "memory.gradient_checkpointing",
    "memory.limit",
)
MARK = "diffusioncleft-doctor"
SEARCHED = (
    "DIFFUSIONCLEFT_FACE_PACKS",
    "DIFFUSIONCLEFT_WEIGHTS",
    "COMFYUI_PATH",
    "HF_HOME",
    "HF_HUB_CACHE",
    "TORCH_HOME",
    "XDG_CACHE_HOME",
)
"""Variables that name folders in which models are looked for: a message may name them."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--faces", help=f"face model pack, name or folder (default {DEFAULT_FACES})")
    parser.add_argument(
        "--photo", type=Path, metavar="FILE", help="photograph with one face, for the face pack; not told"
    )
    parser.add_argument(
        "--resolution",
        type=RESOLUTION,
        metavar="PX",
        help="of training and pictures (default 768; phantom 128)",
    )
    add_preset(parser)
    add_recipe_options(parser, RECIPE_OPTIONS)
    add_vocabulary_argument(parser)
    planned = parser.add_argument_group("the planned run, for the estimate")
    planned.add_argument("--photos", type=COUNT, default=301, metavar="N", help="photographs (default 301)")
    planned.add_argument("--images", type=COUNT, default=4000, metavar="N", help="images (default 4000)")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="empty folder to work in, kept (default: a temporary one, erased)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON too")
    add_base_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from ..diffusioncleft_core.files import write_json
    from ..diffusioncleft_core.outputs import check_output
    from .checkup.checkup import Checkup
    from .checkup.examination import document, examine, markdown
    from .checkup.redaction import Redaction

    check_output(args.json)
    with workspace(args.out) as folder:
        settings = settings_from(args, folder)
        checkup = Checkup(settings, start_trainer)
        results = examine(checkup, tell)
        redaction = Redaction(_named(args, checkup))
        told = document(results, checkup.notes, redaction, phantom=settings.phantom)
    print(markdown(told))
    if args.json is not None:
        write_json(args.json, told)
    return 0 if told["ok"] else 1


def settings_from(args: argparse.Namespace, folder: Path) -> DoctorSettings:
    """What the options mean; UserError when no base model is named or there is nothing at its path."""
    from ..diffusioncleft_core.conditions.loader import load_vocabulary
    from .checkup.checkup import DoctorSettings, PlannedRun

    if args.phantom and args.faces:
        raise UserError("--phantom brings its own face models: leave out --faces, or leave out --phantom")
    source, absent = found_source(args)
    if "base" in absent:
        raise absent["base"]
    device, dtype = device_and_dtype(args)
    default = PHANTOM_SIDE if args.phantom else PAPER_SIDE
    side = default if args.resolution is None else args.resolution
    return DoctorSettings(
        source=source,
        recipe=recipe_from(args, RECIPE_OPTIONS, {}).replaced({"data.resolution": (side,)}),
        device=device,
        dtype=dtype,
        faces=args.faces or ("phantom" if args.phantom else DEFAULT_FACES),
        workspace=folder,
        absent=absent,
        photo=args.photo,
        planned=PlannedRun(args.photos, args.images, preset_name(args)),
        vocabulary=load_vocabulary(args.vocabulary),
    )


@contextlib.contextmanager
def workspace(out: Path | None) -> Iterator[Path]:
    """An empty folder to work in: the user's, which is kept, or a temporary one, which is erased.

    A folder that holds anything but an earlier examination raises UserError.
    """
    from ..diffusioncleft_core.files import explained

    if out is None:
        folder = Path(tempfile.mkdtemp(prefix=f"{MARK}-"))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: give an empty folder, or leave out --out")
    folder = out / MARK
    if out.is_dir() and any(path != folder for path in out.iterdir()):
        raise UserError(f"{out} is not empty: give an empty folder, or leave out --out")
    with explained(folder):
        if folder.is_dir():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
    yield folder


def tell(number: int, step: Step | StepResult) -> None:
    """Say on standard error what is being done, and what became of it."""
    from .checkup.steps import StepResult

    if not isinstance(step, StepResult):
        print(f"{number:2d} {step.name}: {step.proves} ... ", end="", file=sys.stderr, flush=True)
        return
    print(f"{step.outcome} ({step.seconds:.1f} s)", file=sys.stderr)
    for text in filter(None, (step.message, step.hint)):
        print(f"   {text}", file=sys.stderr)


def _named(args: argparse.Namespace, checkup: Checkup) -> list[Path]:
    """Every path that a message of this examination might name."""
    from .checkup.face_pack import PUBLIC_PACKS

    models = ("base", "clip_l", "t5xxl", "ae", "tokenizer_clip", "tokenizer_t5", "training_adapter")
    paths = [getattr(args, name) for name in (*models, "recipe", "photo", "out", "json")]
    paths += [Path(args.faces)] if args.faces and args.faces not in PUBLIC_PACKS else []
    for name in SEARCHED:
        paths += [Path(entry) for entry in os.environ.get(name, "").split(os.pathsep) if entry]
    paths.append(checkup.settings.workspace)
    source = checkup.settings.source
    for component in () if args.phantom else ("transformer", "vae", "clip_l", "t5xxl"):
        with contextlib.suppress(UserError, OSError):
            paths += source.files(component)
    return [path for path in paths if path is not None]
