"""`diffusioncleft study plan`: what a study of a size can show, before it is made."""

from __future__ import annotations

import argparse

from ...diffusioncleft_core.ranges import SEED, number, whole

IMAGES = whole(2, 10_000)


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the parser."""
    parser = commands.add_parser("plan", help="how many images and raters for which margin")
    parser.add_argument("--generated", type=IMAGES, default=50, help="images (default 50, the paper's)")
    parser.add_argument("--real", type=IMAGES, default=10, help="images (default 10, the paper's)")
    parser.add_argument("--raters", type=whole(1, 200), default=2, help="default 2, the paper's")
    parser.add_argument(
        "--margin", type=number(0, 4, above=True), default=0.5, help="of equivalence, points (default 0.5)"
    )
    parser.add_argument(
        "--mean",
        type=number(1.05, 4.98),
        default=4.8,
        help="the rating that you expect, 1 to 5 (default 4.8)",
    )
    parser.add_argument("--seed", type=SEED, default=0, help="of the simulated studies (default 0)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Simulate studies of that size, and say what they show."""
    from ...diffusioncleft_core.study.statistics.power import Plan, plan_words, planned

    plan = Plan(args.generated, args.real, args.raters, args.margin, args.mean, args.seed)
    print("\n".join(plan_words(planned(plan))))
    return 0
