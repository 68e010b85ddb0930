"""`diffusioncleft train`: train a LoRA in a process of its own, with progress."""

import argparse
import sys
from typing import Any

from ..diffusioncleft_core.progress import progress
from ..diffusioncleft_core.recipe.document import recipe_text

HELP = "train a LoRA on a dataset"
EXAMPLES = """\
examples:
  diffusioncleft train --pretrained_model_name_or_path FLUX.1-schnell --train_data_dir private/pre_op \\
      --training_adapter training_adapter.safetensors --output_dir loras --output_name pre_op
  diffusioncleft train --phantom --preset robust --train_data_dir private/pre_op --output_dir loras
  diffusioncleft train --preset robust --learning_rate 2e-4 --print_recipe > recipe.json
  diffusioncleft train --recipe recipe.json --pretrained_model_name_or_path FLUX.1-schnell \\
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


def run(args: argparse.Namespace) -> int:
    """Train; Ctrl-C saves a checkpoint."""
    from ..trainer.config import recipe_from
    from ..trainer.interruption import Interrupted
    from ..trainer.launch import train

    if args.print_recipe:
        print(recipe_text(recipe_from(args, places=False)))
        return 0
    recipe = recipe_from(args)
    with _Display() as display:
        try:
            result = train(recipe, display.show)
        except Interrupted as error:
            raise KeyboardInterrupt from error
    print(result.path)
    return 0


class _Display:
    """Shows the trainer's events on standard error."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._what = ""

    def __enter__(self) -> "_Display":
        return self

    def __exit__(self, *exception: object) -> None:
        self._close()

    def show(self, event: dict[str, Any]) -> None:
        """Show one event: a progress bar for steps and encoding, a line for what the user should know."""
        kind = event["event"]
        if kind == "prepare":
            self._advance(event["what"], event["done"], event["total"], "item")
        elif kind == "start":
            reg = f", {event['regularisation']} regularisation images" if event["regularisation"] else ""
            self._say(f"training on {event['images']} images{reg}: {event['memory']}")
            self._advance("training", event["step"], event["total"], "step")
        elif kind == "step":
            self._advance("training", event["step"], event["total"], "step")
            self._bar.set_postfix(loss=f"{event['loss']:.3f}", refresh=False)
        elif kind in ("warning", "notice"):
            self._say(f"{kind}: {event['message']}")
        elif kind == "interrupted":
            reached = f"at step {event['step']} of {event['total']}, checkpoint saved"
            self._say(f"stopped {reached if event['total'] else 'before the first step'}")

    def _advance(self, what: str, done: int, total: int, unit: str) -> None:
        if self._what != what:
            self._close()
            self._what, self._bar = what, progress(total, what, unit=unit)
            self._bar.initial = done if what == "training" else 0
            self._bar.n = self._bar.initial
        self._bar.update(done - self._bar.n)

    def _say(self, text: str) -> None:
        if self._bar is not None:
            self._bar.clear()
        print(text, file=sys.stderr)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar, self._what = None, ""
