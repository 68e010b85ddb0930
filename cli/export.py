"""`diffusioncleft export`: a generated set as shards that other programs load."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.imageset.shards import FORMATS, PER_SHARD
from ..diffusioncleft_core.ranges import COUNT
from ..diffusioncleft_core.text import counted
from .options import warn

HELP = "write a generated set as WebDataset or Parquet shards, for `datasets`, webdataset and others"
EXAMPLES = """\
examples:
  diffusioncleft export run/generated/pre_op --format webdataset --out shards/pre_op
  diffusioncleft export run/generated/pre_op --format parquet --all --out parquet/pre_op
  diffusioncleft export run/generated/pre_op --format webdataset --out s3://bucket/pre_op
  diffusioncleft export run/generated/pre_op --format parquet --all --out gs://bucket/pre_op --private-place

Every picture goes with its sidecar and keeps its mark. Without --all only what the filters accepted is
written. A URL is any of fsspec's (s3 needs the package s3fs, gs gcsfs, az adlfs); credentials come from the
environment, never from the URL. Run again after an interruption, it goes on. docs/scale.md shows how the
shards are loaded; `diffusioncleft import` makes the set of them again.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("set", type=Path, metavar="SET", help="folder of a generated set")
    parser.add_argument("--format", choices=FORMATS, required=True, help="form of the shards")
    parser.add_argument(
        "--out", required=True, metavar="PLACE", help="folder for the shards, or a URL as s3://bucket/folder"
    )
    parser.add_argument(
        "--all", action="store_true", help="every image as it was first drawn, rejected ones too"
    )
    parser.add_argument(
        "--private-place",
        action="store_true",
        help="declare that the URL leads to a private place, where images may go that look like a person of "
        "the photographs, or were never compared with them",
    )
    parser.add_argument(
        "--per-shard", type=COUNT, default=PER_SHARD, metavar="N", help=f"images in a shard ({PER_SHARD})"
    )


def run(args: argparse.Namespace) -> int:
    """Write the shards."""
    from ..diffusioncleft_core.dataset.drawn import refuse_withdrawn_set, remember_place, set_names
    from ..diffusioncleft_core.dataset.photographs import refuse_photograph_folder
    from ..diffusioncleft_core.filters.sharing import refuse_private
    from ..diffusioncleft_core.imageset.shards import chosen_rows, write_shards
    from ..diffusioncleft_core.imageset.storage import place_of
    from ..diffusioncleft_core.outputs import check_output

    place = place_of(args.out)
    refuse_photograph_folder(args.set)
    refuse_withdrawn_set(args.set)
    if place.folder is not None:
        if args.private_place:
            raise UserError("--private-place belongs to a URL; a folder has the rights that you give it")
        check_output(place.folder / "shard")
        if args.all:
            warn("--all: images that the filters rejected, leaks among them, are exported too")
    elif not args.private_place:
        refuse_private(args.set, chosen_rows(args.set, not args.all), place.name)
    loras = set_names(args.set)
    remember_place(place.folder or place.name, loras)
    shards = write_shards(
        args.set,
        place,
        args.format,
        accepted=not args.all,
        per_shard=args.per_shard,
        private=args.private_place,
        loras=loras,
    )
    kept = f" ({shards.kept} there already)" if shards.kept else ""
    written = f"{counted(shards.pictures, 'image')} in {counted(len(shards.files), 'shard')}"
    print(f"{written}{kept}: {place.name}")
    return 0
