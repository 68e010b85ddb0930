"""`diffusioncleft import`: the set that an export was made of, from a folder or a store."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..diffusioncleft_core.text import counted

HELP = "bring an exported set back into a folder: pictures, sidecars and manifest, byte for byte"
EXAMPLES = """\
examples:
  diffusioncleft import s3://bucket/pre_op --out pre_op
  diffusioncleft import shards/pre_op --out pre_op

Every shard is compared with the hash in the export's index; one that was changed or truncated is named. Run
again after an interruption, it goes on. What was not exported is not brought back: without --all the rejected
images. Credentials come from the environment, never from the URL.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "place", metavar="PLACE", help="where an export lies: a folder, or a URL as s3://bucket/folder"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the set")


def run(args: argparse.Namespace) -> int:
    """Write the set."""
    import tempfile

    from ..diffusioncleft_core.dataset.drawn import remember_place
    from ..diffusioncleft_core.dataset.photographs import refuse_photograph_folder
    from ..diffusioncleft_core.dataset.withdrawn import refuse_withdrawn_names
    from ..diffusioncleft_core.imageset.storage import place_of
    from ..diffusioncleft_core.imageset.unpack import import_set, read_export
    from ..diffusioncleft_core.outputs import check_output

    place = place_of(args.place)
    refuse_photograph_folder(args.out, "the folder of a set that is brought back; give another one")
    check_output(args.out / "manifest")
    with tempfile.TemporaryDirectory(prefix="diffusioncleft-") as work:
        export = read_export(place, Path(work))
    refuse_withdrawn_names(export.loras, place.name)
    remember_place(args.out, export.loras)
    fetched = import_set(place, export, args.out)
    what = counted(export.images, "image")
    print(f"{what} of {place.name}: {args.out}" if fetched else f"{args.out} holds the {what} already")
    return 0
