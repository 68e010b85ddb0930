"""`diffusioncleft sweep`: a LoRA for every combination of settings, and one table of them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .options import add_ray_arguments, engine_from, warn

if TYPE_CHECKING:
    from ..trainer.sweep_table import Row

HELP = "train a LoRA for each combination of settings, and compare them in one table"
EXAMPLES = """\
examples:
  diffusioncleft sweep sweep.toml --dry-run
  diffusioncleft sweep sweep.toml --pretrained_model_name_or_path FLUX.1-schnell \\
      --train_data_dir private/pre_op --output_dir sweeps/pre_op
  diffusioncleft sweep sweep.toml --phantom --train_data_dir private/pre_op --output_dir sweeps/phantom
  diffusioncleft sweep sweep.toml --output_dir /shared/sweep --ray head:6379

with sweep.toml, every combination of these values (8 runs):
  preset = "robust"
  [optimizer]
  steps = 700
  [sweep]
  network.rank = [4, 16]
  optimizer.learning_rate = [1e-4, 3e-4]
  objective.seed = [0, 1]

The options are those of `diffusioncleft train`. The same command goes on after an interruption: what is done
stays. docs/training.md explains the file and the table.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the sweep's file, and the trainer's arguments for what all runs have in common."""
    from ..trainer.config import add_arguments

    parser.add_argument(
        "sweep", type=Path, metavar="TOML", help="a recipe, and in [sweep] lists of values by field"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="list what would be trained, and train nothing"
    )
    add_ray_arguments(parser, timeout=False)
    add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Train; 0 when every run is done, 2 when some failed."""
    from ..diffusioncleft_core.outputs import check_output
    from ..trainer.config import choices_from
    from ..trainer.interruption import Interrupted
    from ..trainer.sweep import run_sweep, sweep_rows
    from ..trainer.sweep_recipe import combinations, read_sweep
    from ..trainer.sweep_table import DONE, TABLE, shown_table

    below, given = choices_from(args)
    found = combinations(read_sweep(args.sweep), below, given)
    folder = next(one.recipe.output.folder.parent for one in found if one.recipe is not None)
    if args.dry_run:
        rows = sweep_rows(folder, found)
        print(shown_table(rows))
        say_problems(rows)
        return 0 if all(row.combination.recipe for row in rows) else 2
    check_output(folder / f"{TABLE}.json")
    with engine_from(args, timeout=None) as engine:
        try:
            rows = run_sweep(folder, found, engine, warn)
        except Interrupted as error:
            raise KeyboardInterrupt from error
    print(shown_table(rows))
    validated = [row for row in rows if row.validation_loss is not None]
    if validated:
        best = min(validated, key=lambda row: row.validation_loss or 0.0)
        print(f"least validation loss: {best.combination.name}")
    print(f"{sum(row.state == DONE for row in rows)} of {len(rows)} runs done: {folder / TABLE}.json, .csv")
    return 0 if all(row.state == DONE for row in rows) else 2


def say_problems(rows: list[Row]) -> None:
    """Why runs can't be trained, on standard error."""
    for row in rows:
        if row.combination.problem:
            print(f"{row.combination.name} can't be trained: {row.combination.problem}", file=sys.stderr)
