"""`diffusioncleft study close`: pictures of photographs are erased, ratings are kept."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..options import agreed


def add(commands: Any) -> None:
    """Declare the subcommand."""
    parser = commands.add_parser(
        "close", help="end a study: its copies of photographs are erased, its ratings are kept"
    )
    parser.add_argument("study", type=Path, metavar="STUDY")
    parser.add_argument("--yes", action="store_true", help="don't ask")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Close the study."""
    from ...diffusioncleft_core.study.close import close_study, pictures_to_erase
    from ...diffusioncleft_core.study.folder import IMAGES, open_study

    study = open_study(args.study)
    if n := pictures_to_erase(study):
        does = f"erases {n} pictures for good"
    else:
        does = "holds no copy of a photograph to erase; its pictures stay"
    if not agreed(
        args,
        f"close ends the study {args.study}, which takes no ratings any more. It {does}; give --yes to do it",
        f"End the study {args.study}, so that it takes no ratings any more? It {does}. Ratings stay.",
    ):
        return 1
    erased = close_study(study)
    left = sum(study.has_image(item.id) for item in study.items)
    what = "phantoms and generated images" if study.design.of_phantoms else "generated images"
    stays = f"; its {left} pictures of {what} stay in {args.study / IMAGES}" if left else ""
    gone = f"pictures of photographs erased: {erased}" if n else "it holds no copy of a photograph"
    print(f"{args.study} is closed; {gone}{stays}; ratings kept")
    return 0
