"""`diffusioncleft phantom render`: rendered photographs with their metadata."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.ranges import COUNT, SEED, whole
from ..diffusioncleft_core.text import counted

PHANTOM_SIDE = whole(64, 1024)
HELP = "draw phantom photographs with known properties, to try the pipeline without real photographs"
EXAMPLES = """\
examples:
  diffusioncleft phantom render --condition pre_op --n 100 --out photos/pre_op
  diffusioncleft phantom render --condition post_op --n 201 --out photos/post_op --size 256 --seed 7
  diffusioncleft phantom render --condition pre_op --n 12 --out heads --size 512
"""


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    render = actions.add_parser(
        "render",
        help="write PNG photographs and metadata.csv",
        description="write phantom photographs and metadata.csv, as `dataset build` reads them",
    )
    render.add_argument("--condition", required=True, metavar="NAME", help="pre_op or post_op")
    render.add_argument(
        "--n", type=COUNT, required=True, help="how many photographs; a larger one goes on in the folder"
    )
    render.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="a new folder, or one to go on in",
    )
    render.add_argument("--seed", type=SEED, default=0, help="same seed, same photographs (default 0)")
    render.add_argument("--size", type=PHANTOM_SIDE, default=128, help="side in px, 64 to 1024 (default 128)")
    render.add_argument(
        "--subjects",
        type=COUNT,
        help="so many people, photographed in turn (default: nine in ten photographs)",
    )


def run(args: argparse.Namespace) -> int:
    from ..diffusioncleft_core.conditions.loader import load_vocabulary
    from ..diffusioncleft_core.files import remove_leftovers
    from ..diffusioncleft_core.phantom.photographs import holds_others, write_photographs

    if args.subjects is not None and args.subjects > args.n:
        raise UserError(f"--subjects {args.subjects} is not possible: give 1 to --n, which is {args.n}")
    if args.out.exists() and not args.out.is_dir():
        raise UserError(f"{args.out} is a file: give a new folder, it was not touched")
    condition = load_vocabulary().condition(args.condition)
    if condition.phantom is None:
        raise UserError(f"the phantom draws no {condition.name}: choose another --condition")
    finding = condition.phantom.finding
    photographs = (args.out, args.n, finding, args.seed, args.size, args.subjects)
    if args.out.is_dir():
        if holds_others(*photographs):
            raise UserError(
                f"{args.out} holds something else than these photographs: give a new folder, or a larger --n "
                "and else the same options to go on; nothing in it was touched"
            )
        remove_leftovers(args.out)
    write_photographs(*photographs)
    print(f"{counted(args.n, 'phantom photograph')} and metadata.csv: {args.out}")
    return 0
