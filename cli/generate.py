"""`diffusioncleft generate`: images from a plan, a base model and a LoRA."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.ranges import COUNT, SAMPLING_STEPS, SEED
from ..diffusioncleft_core.text import counted
from .options import (
    add_attribute_arguments,
    add_base_arguments,
    add_ray_arguments,
    add_strength_argument,
    add_vocabulary_argument,
    choices_from,
    engine_from,
    parse_size,
    paths,
    sampling_from,
    source_from,
    strength_from,
    strengths,
    warn,
)

if TYPE_CHECKING:
    from ..diffusioncleft_core.conditions.plan_rows import Plan

HELP = "draw the images of a prompt plan with a base model and a LoRA"
EXAMPLES = """\
examples:
  diffusioncleft generate --plan plan.jsonl --base FLUX.1-schnell --lora clp.safetensors --out pre_op
  diffusioncleft generate --n 20 --condition pre_op --set skin=dark \\
      --base FLUX.1-schnell --lora clp.safetensors --out dark
  diffusioncleft generate --plan plan.jsonl --base FLUX.1-schnell --lora clp.safetensors --out pre_op \\
      --ray head:6379
  diffusioncleft generate --n 4 --condition pre_op --base FLUX.1-schnell --out grid \\
      --grid-loras clp-step000500.safetensors,clp.safetensors --grid-strengths 0.6,0.8,1.0

Run the same command again after an interruption: what is done stays.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    plan = parser.add_argument_group("what to draw")
    plan.add_argument("--plan", type=Path, metavar="FILE", help="a plan written by `diffusioncleft plan`")
    plan.add_argument("--n", type=COUNT, help="without --plan: make a plan of so many images")
    plan.add_argument("--condition", metavar="NAME", help="without --plan: pre_op or post_op")
    add_vocabulary_argument(plan)
    plan.add_argument("--seed", type=SEED, default=0, help="without --plan: seed of the plan (default 0)")
    plan.add_argument("--bare-trigger", action="store_true", help="without --plan: CLP instead of [CLP]")
    add_attribute_arguments(parser)
    parser.add_argument("--lora", type=Path, metavar="FILE", help="LoRA; without one the base model draws")
    add_strength_argument(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the images")
    parser.add_argument(
        "--size", type=parse_size, metavar="PX", help="768 or 768x1024 (default 768; phantom 128)"
    )
    parser.add_argument(
        "--steps", type=SAMPLING_STEPS, default=4, help="sampling steps (default 4, schnell's)"
    )
    parser.add_argument("--batch", type=COUNT, help="images at once (default 1; phantom 16)")
    grid = parser.add_argument_group("a grid picture instead of images")
    grid.add_argument(
        "--grid-strengths", type=strengths, metavar="A,B", help="strengths, across; 0 is the base model"
    )
    grid.add_argument(
        "--grid-loras", type=paths, metavar="FILE,FILE", help="LoRA files, down (default: --lora)"
    )
    grid.add_argument(
        "--grid-rows", type=COUNT, default=4, help="for the first so many rows of the plan (default 4)"
    )
    add_base_arguments(parser)
    add_ray_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from ..diffusioncleft_core.generation.generate import draw_all
    from ..diffusioncleft_core.generation.settings import GenerationSettings

    plan = plan_from(args)
    if args.grid_strengths or args.grid_loras:
        if args.ray is not None:
            raise UserError("a grid is drawn in one process: leave out --ray, or the grid's options")
        return draw_grid(args, plan)
    source = source_from(args)
    with engine_from(args) as engine:
        sampling = sampling_from(args, strength_from(args, (row.condition for row in plan)), engine)
        settings = GenerationSettings(source, sampling, args.lora)
        result = draw_all(settings, plan, args.out, warn=warn, engine=engine)
    before = result.total - result.made
    print(f"{counted(result.made, 'image')} drawn, {before} there before: {result.folder}")
    return 0


def draw_grid(args: argparse.Namespace, plan: Plan) -> int:
    from ..diffusioncleft_core.generation.grid import Grid, generate_grid

    loras = args.grid_loras or ([args.lora] if args.lora else [])
    strength = strength_from(args, (row.condition for row in plan))
    source, grid = source_from(args), Grid(loras, args.grid_strengths or [strength])
    sampling = sampling_from(args, strength)
    for picture in generate_grid(source, grid, plan[: args.grid_rows], args.out, sampling):
        print(picture)
    return 0


def plan_from(args: argparse.Namespace) -> Plan:
    """The plan file, or a plan made from --n and --condition."""
    from ..diffusioncleft_core.conditions.loader import load_vocabulary
    from ..diffusioncleft_core.conditions.plan import sampling_plan
    from ..diffusioncleft_core.conditions.plan_rows import read_plan

    if args.plan is not None:
        if args.n is not None or args.condition or args.set or args.weight or args.omit or args.draw:
            raise UserError("--plan already says what to draw: leave out --n, --condition and the attributes")
        return read_plan(args.plan)
    if args.n is None or args.condition is None:
        raise UserError("there is nothing to draw: give --plan FILE, or --n and --condition")
    condition = load_vocabulary(args.vocabulary).condition(args.condition)
    return sampling_plan(condition, args.n, args.seed, choices_from(args), bracketed=not args.bare_trigger)
