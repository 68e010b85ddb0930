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
    from ...diffusioncleft_core.study.folder import open_study

    study = open_study(args.study)
    n = pictures_to_erase(study)
    refusal = f"close ends the study {args.study} and erases {n} pictures for good; give --yes to do it"
    question = f"End the study {args.study}, and erase {n} pictures for good? Ratings stay."
    if not agreed(args, refusal, question):
        return 1
    erased = close_study(study)
    print(f"{args.study} is closed; pictures of photographs erased: {erased}; ratings kept")
    return 0
