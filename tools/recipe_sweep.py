"""Try training recipes on the demo's phantoms, and count what the oracle sees: the table behind the preset.

    python -m diffusioncleft.tools.recipe_sweep --n 120 --out experiments/recipe_sweep.json
    python -m diffusioncleft.tools.recipe_sweep --conditions pre_op --recipes schnell rank16 --n 60

Every recipe is the demo's `robust` with the changes of `RECIPES`, on the demo's own photographs and seed. The
same call goes on where it was: figures that are in --out are kept.
"""

import argparse
import shlex
import sys
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from ..cli import run as run_command
from ..diffusioncleft_core.conditions.vocabulary import Condition
from ..diffusioncleft_core.files import read_json, write_json
from ..diffusioncleft_core.generation.settings import GenerationSettings
from ..diffusioncleft_core.phantom.experiment import measure_condition, trigger_cells
from ..diffusioncleft_core.recipe.presets import Changes, chosen_recipe
from ..diffusioncleft_core.run.dataset import build, render_photographs
from ..diffusioncleft_core.run.run import Run
from ..diffusioncleft_core.run.training import training_recipe
from ..trainer.events import Events
from ..trainer.flux_train_network import train
from ..trainer.interruption import Interruption

CONDITIONS = ("pre_op", "post_op")
STEADY = {
    "previews.every_n_steps": 0,
    "previews.every_n_epochs": 0,
    "previews.prompts": None,
    "output.checkpoint_every_n_steps": 100000,
}
SCHNELL = {"objective.timestep_sampling": "schnell"}
RANK16 = {
    **SCHNELL,
    "network.rank": 16,
    "network.alpha": 32.0,
    "data.batch_size": 2,
    "optimizer.learning_rate": 4e-3,
    "optimizer.epochs": 20,
}
RECIPES: Mapping[str, Changes] = {
    "robust": {},
    "noise-to-550": {"objective.max_timestep": 550},
    "schnell": SCHNELL,
    "schnell-preservation-0.5": {**SCHNELL, "objective.output_preservation_weight": 0.5},
    "schnell-preservation-4": {**SCHNELL, "objective.output_preservation_weight": 4.0},
    "rank16": RANK16,
    "rank16-balanced": {**RANK16, "data.balance_by": "cleft_type,side"},
}
"""Changes to the demo's `robust` recipe, by the name in the table."""


def demo_run(work: Path, wanted: Collection[str], seed: int = 0, phantoms: int | None = None) -> Run:
    """The demo's run in `work` with the datasets of the conditions `wanted` built, and nothing else done.

    phantoms: photographs a condition, where they are not to be the demo's own number.
    """
    parser = argparse.ArgumentParser()
    run_command.configure(parser)
    given = ["--phantom", "--seed", str(seed), "--out", str(work)]
    given += ["--phantoms", str(phantoms)] if phantoms else []
    run = Run(run_command.settings_from(parser.parse_args(given)))
    last = max(place for place, condition in enumerate(run.conditions) if condition.name in wanted)
    for condition in run.conditions[: last + 1]:  # people are held out of all datasets alike
        photographs = render_photographs(run, condition)
        run.facts[condition.name]["dataset"] = build(run, condition, photographs)
    return run


def train_with(run: Run, condition: Condition, changes: Changes, out: Path) -> tuple[Path, float]:
    """Train the condition's LoRA with `changes`, in this process; its file, and the processor's seconds.

    The seconds are those of the call that finished it.
    """
    places = {**STEADY, "output.folder": out, "output.name": "lora"}
    recipe = chosen_recipe(training_recipe(run, condition), {**places, **changes})
    taken = out / "seconds.json"
    begun, interruption = time.process_time(), Interruption()
    with interruption.of_process(stdin=False):
        result = train(recipe, Events(lambda event: None), interruption)
    if not taken.is_file():
        write_json(taken, round(time.process_time() - begun, 1))
    return result.path, float(read_json(taken))


def figures_of(
    run: Run, condition: Condition, lora: Path, n: int, strength: float, *, selectivity: bool = True
) -> dict[str, Any]:
    """What the oracle reads in the condition's cells at n images each, drawn at `strength`."""
    settings = run.settings
    cells = trigger_cells(condition, n, settings.seed_for("experiment", condition.name))
    if not selectivity:
        cells = dict(list(cells.items())[:1])
    sampling = replace(settings.sampling, strength=strength)
    return measure_condition(
        GenerationSettings(settings.source, sampling, lora), condition, cells, with_drift=False
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=RECIPES)
    parser.add_argument("--conditions", nargs="+", default=list(CONDITIONS), choices=CONDITIONS)
    parser.add_argument("--strengths", nargs="+", type=float, default=[1.0, 1.5])
    parser.add_argument(
        "--full-only", action="store_true", help="draw the full prompt alone, not what shows selectivity"
    )
    parser.add_argument("--n", type=int, default=120, help="images a cell (default 120)")
    parser.add_argument("--steps", type=int, help="optimizer steps, in place of the recipes' own")
    parser.add_argument("--phantoms", type=int, help="photographs a condition (default the demo's)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the run (default 0, the demo's)")
    parser.add_argument("--work", type=Path, default=Path("build/recipe_sweep"))
    parser.add_argument("--out", type=Path, default=Path("experiments/recipe_sweep.json"))
    args = parser.parse_args()
    document: dict[str, Any] = read_json(args.out) if args.out.is_file() else {"schema": 1, "figures": {}}
    document |= {
        "command": shlex.join(["python", "-m", "diffusioncleft.tools.recipe_sweep", *sys.argv[1:]]),
        "date": date.today().isoformat(),
    }
    run = demo_run(args.work / f"seed{args.seed}", args.conditions, args.seed, args.phantoms)
    fewer = {"optimizer.steps": args.steps} if args.steps else {}
    for name in args.recipes:
        for condition in (c for c in run.conditions if c.name in args.conditions):
            where = args.work / f"seed{args.seed}" / name / condition.name
            changes = {**RECIPES[name], **fewer}
            lora, seconds = train_with(run, condition, changes, where)
            for strength in args.strengths:
                cells = "full" if args.full_only else "all"
                key = f"{name}/{condition.name}/strength{strength:g}/seed{args.seed}/{cells}/n{args.n}"
                if key in document["figures"]:
                    continue
                figures = figures_of(run, condition, lora, args.n, strength, selectivity=not args.full_only)
                document["figures"][key] = {
                    "changes": {path: str(value) for path, value in changes.items()},
                    "training_cpu_seconds": seconds,
                    **figures,
                }
                write_json(args.out, document)
                print(key, summary(figures), f"{seconds:.0f} s", flush=True)
    return 0


def summary(figures: Mapping[str, Any]) -> str:
    """One line: obedience, its lowest skin tone, cleft type, and the worst cell without the trigger."""
    obedience = figures["trigger_obedience"]
    tone, low = min(obedience["by_skin"].items(), key=lambda item: item[1]["value"])
    parts = [f"obeys {obedience['value']:.3f} (lowest {tone} {low['value']:.3f})"]
    if kind := figures.get("cleft_type_accuracy"):
        side = kind["side_as_asked"]
        told = "none drawn" if kind["value"] is None else f"{kind['value']:.3f}"
        parts.append(f"type {told} side {side['k']}/{side['n']}")
    parts += [f"{name} {cell['value']:.3f}" for name, cell in figures["trigger_selectivity"].items()]
    return ", ".join(parts)


if __name__ == "__main__":
    sys.exit(main())
