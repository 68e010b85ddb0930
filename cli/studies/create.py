"""`diffusioncleft study create`: pictures drawn and written blind."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...diffusioncleft_core.errors import UserError
from ...diffusioncleft_core.ranges import COUNT, NONE_OR_MORE, SEED
from ...diffusioncleft_core.study.design import MARGIN
from ..options import add_vocabulary_argument, named_folder, warn

if TYPE_CHECKING:
    from ...diffusioncleft_core.study.design import Design
    from ...diffusioncleft_core.study.sources import Source


def add(commands: Any) -> None:
    """Declare the subcommand."""
    parser = commands.add_parser(
        "create",
        help="draw pictures of a run, or of bare folders, and write them blind",
    )
    parser.add_argument("run_folder", nargs="?", type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument(
        "--set",
        dest="sets",
        type=named_folder,
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="folder of one origin: real=photos, generated=pictures, cleftgan=others; may be repeated",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="STUDY", help="a new folder, which is private"
    )
    parser.add_argument(
        "--design", default="paper", help="paper, paper_plus, or a TOML file (default paper; docs/study.md)"
    )
    parser.add_argument(
        "--n",
        dest="counts",
        type=named_count,
        action="append",
        default=[],
        metavar="NAME=N",
        help="pictures of a set (default: the design's, 50 generated and 10 real)",
    )
    parser.add_argument("--repeats", type=NONE_OR_MORE, help="pictures shown twice (default 0)")
    parser.add_argument(
        "--practice", type=NONE_OR_MORE, help="pictures that come first and don't count (default 2)"
    )
    parser.add_argument("--seed", type=SEED, help="decides which are drawn (default 0)")
    parser.add_argument(
        "--margin",
        type=MARGIN,
        help="margin of equivalence in points of the scale (default 0.5)",
    )
    parser.add_argument("--raw", action="store_true", help="generated images as first drawn, also rejected")
    parser.add_argument(
        "--phantom", action="store_true", help="the photographs are phantoms, for which nobody need be asked"
    )
    add_vocabulary_argument(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Make the study."""
    from ...diffusioncleft_core.conditions.loader import load_vocabulary
    from ...diffusioncleft_core.run.rated import sets_of_run, vocabulary_of_run
    from ...diffusioncleft_core.study.choose import Wanted
    from ...diffusioncleft_core.study.create import counts_of, create_study
    from ...diffusioncleft_core.study.design_file import load_design

    design = _changed(load_design(args.design), args)
    sources = sets_of_run(args.run_folder) if args.run_folder else []
    sources += [_source(name, folder, design, args.phantom) for name, folder in args.sets]
    if args.vocabulary is None and args.run_folder is not None:
        vocabulary = vocabulary_of_run(args.run_folder)
    else:
        vocabulary = load_vocabulary(args.vocabulary)
    twice = sorted({name for name, _ in args.counts if [name for name, _ in args.counts].count(name) > 1})
    if twice:
        raise UserError(f"--n names the set {twice[0]} twice; keep one")
    study, notices = create_study(
        args.out, design, sources, vocabulary, Wanted(dict(args.counts), raw=args.raw)
    )
    for notice in notices:
        warn(notice)
    print(
        f"{args.out}: {len(study.rated)} pictures of {study.design.side} px, practice: {len(study.practice)}"
    )
    for line in counts_of(study):
        print(f"  {line}")
    if study.design.repeats:
        print(f"  shown twice: {study.design.repeats}")
    if study.design.of_phantoms:
        print("phantoms stand for people in this study: what comes of it says nothing about people")
    return 0


def _changed(design: Design, args: argparse.Namespace) -> Design:
    names = ("repeats", "practice", "seed", "margin")
    return replace(design, **{name: getattr(args, name) for name in names if getattr(args, name) is not None})


def _source(name: str, folder: Path, design: Design, phantom: bool) -> Source:
    from ...diffusioncleft_core.study.design import check_origin, usual_role
    from ...diffusioncleft_core.study.sources import Source

    return Source(check_origin(name), folder, design.roles.get(name) or usual_role(name), phantom=phantom)


def named_count(text: str) -> tuple[str, int]:
    """`generated=50` → (`generated`, 50)."""
    name, equals, count = text.partition("=")
    if not (name.strip() and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is no NAME=N such as generated=50")
    return name.strip(), COUNT(count)
