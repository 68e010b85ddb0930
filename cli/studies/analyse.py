"""`diffusioncleft study analyse`: ratings to figures, words and a page."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ...diffusioncleft_core.errors import UserError
from ...diffusioncleft_core.ranges import SEED
from ..options import warn
from .serve import add_database_argument

if TYPE_CHECKING:
    from ...diffusioncleft_core.study.design import Design
    from ...diffusioncleft_core.study.ratings import RatingTable


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the parser."""
    parser = commands.add_parser("analyse", help="ratings to figures, plots, words and a page")
    parser.add_argument("study", type=Path, nargs="?", metavar="STUDY")
    parser.add_argument(
        "--ratings",
        type=Path,
        metavar="CSV",
        help="ratings in place of the study's database, or made elsewhere: rater, item, origin, question, "
        "value (docs/study-statistics.md)",
    )
    parser.add_argument(
        "--design", metavar="TOML", help="what a CSV's questions are, and the margin; or paper, paper_plus"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: the study's folder `results`")
    parser.add_argument("--seed", type=SEED, default=0, help="of the resampling (default 0)")
    parser.add_argument("--phantom", action="store_true", help="a CSV on phantoms: no count is withheld")
    parser.add_argument("--simulated", action="store_true", help="nobody rated; every page says so")
    add_database_argument(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Analyse, write, and print what the figures say."""
    from ...diffusioncleft_core.report.study_page import PHANTOM, write_study_results
    from ...diffusioncleft_core.study.folder import RESULTS
    from ...diffusioncleft_core.study.statistics.document import study_document

    table, design = ratings_of(args)
    out = args.out or (args.study / RESULTS if args.study else None)
    if out is None:
        raise UserError("say where the results go: --out DIR")
    document = study_document(table, design, phantom=args.phantom, simulated=args.simulated, seed=args.seed)
    page = write_study_results(document, table, out)
    print("\n".join(document["words"]))
    for name, part in document["questions"].items():
        if part["words"]:
            print("\n".join(["", f"{name}:", *(f"- {line}" for line in part["words"])]))
    if document["phantom"]:
        print(f"\n{' '.join(PHANTOM)}")
    print(f"\n{page}")
    return 0


def ratings_of(args: argparse.Namespace) -> tuple[RatingTable, Design | None]:
    """The ratings and what was asked: of the study's database, or of a CSV."""
    from ...diffusioncleft_core.study.design_file import load_design
    from ...diffusioncleft_core.study.folder import open_study
    from ...diffusioncleft_core.study.ratings_file import read_ratings
    from ...diffusioncleft_core.study.web.store import stored_ratings

    if args.study is None and args.ratings is None:
        raise UserError("name a study, or a CSV of ratings with --ratings")
    study = open_study(args.study) if args.study else None
    design = load_design(args.design) if args.design else study.design if study else None
    if args.ratings is not None:
        table = read_ratings(args.ratings, design)
        for notice in table.notices:
            warn(notice)
        return table, design
    assert study is not None
    return stored_ratings(study, args.database), design
