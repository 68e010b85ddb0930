"""`diffusioncleft export`: a generated set as shards that other programs load."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..diffusioncleft_core.imageset.shards import FORMATS, PER_SHARD
from ..diffusioncleft_core.ranges import COUNT
from ..diffusioncleft_core.text import counted
from .options import warn

HELP = "write a generated set as WebDataset or Parquet shards, for `datasets`, webdataset and others"
EXAMPLES = """\
examples:
  diffusioncleft export run/generated/pre_op --format webdataset --out shards/pre_op
  diffusioncleft export run/generated/pre_op --format parquet --all --out parquet/pre_op

Every picture goes with its sidecar and keeps its mark. Without --all only what the filters accepted is
written. docs/scale.md shows how the shards are loaded.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("set", type=Path, metavar="SET", help="folder of a generated set")
    parser.add_argument("--format", choices=FORMATS, required=True, help="form of the shards")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the shards")
    parser.add_argument(
        "--all", action="store_true", help="every image as it was first drawn, rejected ones too"
    )
    parser.add_argument(
        "--per-shard", type=COUNT, default=PER_SHARD, metavar="N", help=f"images in a shard ({PER_SHARD})"
    )


def run(args: argparse.Namespace) -> int:
    """Write the shards."""
    from ..diffusioncleft_core.dataset.drawn import refuse_withdrawn_set, remember_place, set_names
    from ..diffusioncleft_core.dataset.photographs import refuse_photograph_folder
    from ..diffusioncleft_core.imageset.shards import write_shards
    from ..diffusioncleft_core.outputs import check_output

    refuse_photograph_folder(args.set)
    check_output(args.out / "shard")
    refuse_withdrawn_set(args.set)
    if args.all:
        warn("--all: images that the filters rejected, leaks among them, are exported too")
    remember_place(args.out, set_names(args.set))
    shards = write_shards(args.set, args.out, args.format, accepted=not args.all, per_shard=args.per_shard)
    print(f"{counted(shards.pictures, 'image')} in {counted(len(shards.files), 'shard')}: {args.out}")
    return 0
