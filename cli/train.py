"""`diffusioncleft train`: train a LoRA in a process of its own, with progress."""

import argparse
import sys
from functools import partial
from typing import Any

from ..diffusioncleft_core.progress import Phases
from ..diffusioncleft_core.ranges import COUNT
from ..diffusioncleft_core.recipe.document import recipe_text
from ..diffusioncleft_core.text import counted
from .options import warn

HELP = "train a LoRA on a dataset"
EXAMPLES = """\
examples:
  diffusioncleft train --pretrained_model_name_or_path FLUX.1-schnell --train_data_dir private/pre_op \\
      --training_adapter training_adapter.safetensors --output_dir loras --output_name pre_op
  diffusioncleft train --phantom --preset robust --train_data_dir private/pre_op --output_dir loras
  diffusioncleft train --preset robust --learning_rate 2e-4 --print_recipe > recipe.json
  diffusioncleft train --recipe recipe.json --pretrained_model_name_or_path FLUX.1-schnell \\
      --train_data_dir private/pre_op --output_dir loras
  diffusioncleft train --num_processes 4 --pretrained_model_name_or_path FLUX.1-schnell \\
      --train_data_dir private/pre_op --output_dir loras

The same command goes on where an interrupted run stopped. docs/training.md explains the options.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the trainer's arguments, named as in kohya's FLUX trainer."""
    from ..trainer.config import add_arguments

    add_arguments(parser)
    parser.add_argument(
        "--print_recipe",
        action="store_true",
        help="print the recipe that these options mean, without its paths, and train nothing",
    )
    parser.add_argument(
        "--num_processes",
        type=COUNT,
        default=1,
        metavar="N",
        help="train in N processes, a GPU each: N times --gradient_accumulation_steps batches in a step "
        "(default: 1; for several machines use accelerate launch, see docs/training.md)",
    )


def run(args: argparse.Namespace) -> int:
    """Train; Ctrl-C saves a checkpoint."""
    from ..trainer.config import recipe_from, unheard
    from ..trainer.interruption import Interrupted
    from ..trainer.launch import train

    if args.print_recipe:
        print(recipe_text(recipe_from(args, places=False)))
        return 0
    recipe = recipe_from(args)
    for message in unheard(args, recipe):
        warn(message)
    with Phases() as bars:
        try:
            result = train(recipe, partial(show, bars), processes=args.num_processes)
        except Interrupted as error:
            raise KeyboardInterrupt from error
    print(result.path)
    return 0


def show(bars: Phases, event: dict[str, Any]) -> None:
    """Show one event: a bar for steps, loading and encoding, a line for what the user should know."""
    kind = event["event"]
    if kind in ("load", "prepare"):
        bars.advance(event["what"], event["done"], event["total"])
    elif kind == "start":
        reg = event["regularisation"]
        reg = f", {counted(reg, 'regularisation image')}" if reg else ""
        _say(bars, f"training on {counted(event['images'], 'image')}{reg}: {event['memory']}")
        bars.advance("training", event["step"], event["total"], "step")
    elif kind == "memory":
        _say(bars, f"memory: {event['message']}")
    elif kind == "step":
        bars.advance("training", event["step"], event["total"], "step", loss=f"{event['loss']:.3f}")
    elif kind == "validation":
        _say(bars, f"validation loss at step {event['step']}: {event['loss']:.4f}")
    elif kind in ("warning", "notice"):
        _say(bars, f"{kind}: {event['message']}")
    elif kind == "stopping":
        _say(bars, event["message"])
    elif kind == "interrupted":
        reached = f"at step {event['step']} of {event['total']}, checkpoint saved"
        _say(bars, f"stopped {reached if event['total'] else 'before the first step'}")


def _say(bars: Phases, text: str) -> None:
    bars.clear()
    print(text, file=sys.stderr)
