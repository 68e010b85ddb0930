"""`diffusioncleft prompt`: one prompt in the paper's form."""

from __future__ import annotations

import argparse

from ..diffusioncleft_core.ranges import SEED
from .options import (
    add_attribute_arguments,
    add_condition_arguments,
    condition_from,
    fixed_from,
    names_from,
    print_listing,
    tokenizer_from,
    warn,
    weights_from,
)

HELP = "write one prompt in the paper's form"
EXAMPLES = """\
examples:
  diffusioncleft prompt --condition pre_op --set subject=girl --set cleft_type=unilateral --set skin=light
  diffusioncleft prompt --condition post_op --set skin=dark --random --seed 7
  diffusioncleft prompt --condition pre_op --set subject=boy --healthy --no-trigger
  diffusioncleft prompt --list

Attributes that are not set are left out; with --random they are drawn as in a plan.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    add_condition_arguments(parser)
    add_attribute_arguments(parser)
    parser.add_argument("--random", action="store_true", help="draw the attributes that are not set")
    parser.add_argument("--seed", type=SEED, default=0, help="seed of --random (default 0)")
    parser.add_argument("--no-trigger", action="store_true", help="leave the trigger out")
    parser.add_argument("--healthy", action="store_true", help="the same person without the anomaly")


def run(args: argparse.Namespace) -> int:
    from ..diffusioncleft_core.conditions.plan import sampling_plan
    from ..diffusioncleft_core.conditions.prompts import build_prompt, prompt_length

    if args.list:
        print_listing(args)
        return 0
    condition = condition_from(args)
    fixed, weights, omit, draw = (
        fixed_from(args.set),
        weights_from(args.weight),
        names_from(args.omit),
        names_from(args.draw),
    )
    attributes: dict[str, str] = fixed
    if args.random or weights or draw:
        if not args.random:
            omit += [
                name
                for name in condition.mode(args.mode).draw
                if name not in {*fixed, *weights, *draw, *omit}
            ]
        rows = sampling_plan(
            condition, 1, args.seed, mode=args.mode, fixed=fixed, weights=weights, omit=omit, draw=draw
        )
        attributes = dict(rows[0].attributes)
    prompt = build_prompt(
        condition,
        attributes,
        bracketed=not args.bare_trigger,
        trigger="" if args.no_trigger else None,
        cleft=not args.healthy,
        extra=args.extra,
    )
    warning = prompt_length(prompt, tokenizer_from(args.tokenizer)).warning()
    if warning:
        warn(warning)
    print(prompt)
    return 0
