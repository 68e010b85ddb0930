"""`diffusioncleft prompt`: one prompt in the paper's form."""

from __future__ import annotations

import argparse
from dataclasses import replace

from ..diffusioncleft_core.ranges import SEED
from .options import (
    add_attribute_arguments,
    add_condition_arguments,
    choices_from,
    condition_from,
    print_listing,
    tokenizer_from,
    warn,
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
    choices = choices_from(args)
    attributes = choices.fixed
    if args.random or choices.weights or choices.draw:
        if not args.random:
            named = {*choices.fixed, *choices.weights, *choices.draw, *choices.omit}
            unasked = [name for name in condition.mode(args.mode).draw if name not in named]
            choices = replace(choices, omit=[*choices.omit, *unasked])
        attributes = sampling_plan(condition, 1, args.seed, choices)[0].attributes
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
