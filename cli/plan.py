"""`diffusioncleft plan`: a stratified plan of prompts with seeds, as JSON Lines."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.ranges import COUNT, SEED
from ..diffusioncleft_core.text import counted
from .options import (
    add_attribute_arguments,
    add_condition_arguments,
    choices_from,
    condition_from,
    print_listing,
    tokenizer_from,
    warn,
)

if TYPE_CHECKING:
    from ..diffusioncleft_core.conditions.plan_rows import PlanRow
    from ..diffusioncleft_core.conditions.vocabulary import Condition

HELP = "write a stratified plan of prompts with seeds"
EXAMPLES = """\
examples:
  diffusioncleft plan --condition pre_op --n 2000 --out plan.jsonl
  diffusioncleft plan --condition pre_op --n 2000 --mode clinical --out clinical.jsonl
  diffusioncleft plan --condition post_op --n 500 --set skin=dark --omit eyes --out dark.jsonl
  diffusioncleft plan --condition post_op --n 500 --weight subject=man:1,woman:3 --out adults.jsonl
  diffusioncleft plan --list

The same settings give the same rows. A larger --n makes an existing plan longer and keeps the rows it has.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    add_condition_arguments(parser)
    add_attribute_arguments(parser)
    parser.add_argument("--n", "--count", type=COUNT, metavar="N", help="rows in the plan")
    parser.add_argument("--seed", type=SEED, default=0, help="seed of the plan (default 0)")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="plan to write or to make longer (JSON Lines)"
    )


def run(args: argparse.Namespace) -> int:
    from ..diffusioncleft_core.conditions.plan import sampling_plan
    from ..diffusioncleft_core.conditions.plan_rows import extend_plan
    from ..diffusioncleft_core.outputs import check_output

    if args.list:
        print_listing(args)
        return 0
    check_output(args.out)
    condition = condition_from(args)
    if args.n is None or args.out is None:
        raise UserError("--n or --out is missing; say how many rows and into which file")
    rows = sampling_plan(
        condition,
        args.n,
        args.seed,
        choices_from(args),
        bracketed=not args.bare_trigger,
        extra=args.extra,
    )
    _warn_about_length(rows, args.tokenizer)
    before = extend_plan(args.out, rows)
    if before > len(rows):
        has = counted(before, "row")
        warn(f"{args.out} has {has} and keeps them; give another file for a plan of {len(rows)}")
    print(f"{args.out}: {counted(max(before, len(rows)), 'row')}, {before} of them there before")
    _print_counts(condition, rows)
    return 0


def _warn_about_length(rows: Sequence[PlanRow], tokenizer: Path | None) -> None:
    from ..diffusioncleft_core.conditions.prompts import CLIP_LIMIT, prompt_length

    count = tokenizer_from(tokenizer)
    lengths = {prompt: prompt_length(prompt, count) for prompt in dict.fromkeys(row.prompt for row in rows)}
    longest = max(lengths.values(), key=lambda length: length.tokens)
    warning = longest.warning()
    if warning:
        too_long = sum(lengths[row.prompt].tokens > CLIP_LIMIT for row in rows)
        warn(f"{too_long} of {len(rows)} prompts are too long; of the longest: {warning}")


def _print_counts(condition: Condition, rows: Sequence[PlanRow]) -> None:
    for name, values in condition.attributes.items():
        counts = Counter(row.attributes.get(name) for row in rows)
        said = [f"{value} {counts[value]}" for value in values if counts[value]]
        if said:
            print(f"  {name}: {', '.join(said)}")
