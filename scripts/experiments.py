"""The measurements that the repository keeps: both recipes on phantoms, n >= 500 a cell, read by the oracle,
and how well near copies are found (near_copies.py; with --real on photographs of people too).

    python scripts/experiments.py                     # half an hour on two cores
    python scripts/experiments.py --n 510 --work build/experiments --out experiments/phantom_oracle.json

Each recipe is a `diffusioncleft run --phantom` with the demo's trainings and few pictures of its own; its
LoRAs then draw every cell of the trigger experiment at n. The same call goes on where it was, and a finished
recipe's figures are kept at once.
"""

import argparse
import datetime
import shlex
import sys
from pathlib import Path
from typing import Any

import near_copies

from diffusioncleft.cli import run as run_command
from diffusioncleft.diffusioncleft_core.conditions.loader import load_vocabulary
from diffusioncleft.diffusioncleft_core.files import read_json, write_json
from diffusioncleft.diffusioncleft_core.phantom.experiment import measure_condition, trigger_cells
from diffusioncleft.diffusioncleft_core.recipe.presets import PRESETS
from diffusioncleft.diffusioncleft_core.report.folders import RunFolders
from diffusioncleft.diffusioncleft_core.run.pipeline import run_pipeline
from diffusioncleft.diffusioncleft_core.run.settings import RunSettings
from diffusioncleft.diffusioncleft_core.run.stages import stage_table

LEAST = 500
CELLS = "experiment.json"
FEW = ("--n", "24", "--cell-images", "12", "--metrics", "none")
"""The run's own pictures and figures, of which none is kept here."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=510, help="images a cell (default 510: 85 a skin tone)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the runs (default 0, the demo's)")
    parser.add_argument("--presets", nargs="+", default=list(PRESETS), choices=PRESETS)
    parser.add_argument("--work", type=Path, default=Path("build/experiments"), help="folder of the runs")
    parser.add_argument("--out", type=Path, default=Path("experiments/phantom_oracle.json"))
    parser.add_argument(
        "--real", type=Path, metavar="FOLDER", help="photographs of people, as for tests/real"
    )
    args = parser.parse_args()
    if args.n < LEAST:
        parser.error(f"--n {args.n}: the kept figures need {LEAST} images a cell or more")
    document: dict[str, Any] = {
        "schema": 1,
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "images_a_cell": args.n,
        "seed": args.seed,
        "recipes": {},
    }
    for preset in args.presets:
        document["recipes"][preset] = run_recipe(preset, args.n, args.seed, args.work / preset)
        write_json(args.out, document)
    print(args.out)
    return near_copies.measure(args.real, args.out.with_name("near_copies.json"))


def run_recipe(preset: str, n: int, seed: int, out: Path) -> dict[str, Any]:
    """One run, and its LoRAs' cells at n images each: training settings and the oracle's figures."""
    parser = argparse.ArgumentParser()
    run_command.configure(parser)
    arguments = ["--phantom", "--preset", preset, "--seed", str(seed), *FEW, "--out", str(out)]
    settings = run_command.settings_from(parser.parse_args(arguments))
    result = run_pipeline(settings, run_command.start_trainer, warn=print)
    print(stage_table(result.rows), flush=True)
    report = read_json(result.folders.report)
    return {
        "oracle": {name: cells_of(settings, result.folders, name, n) for name in settings.conditions},
        **{key: report[key] for key in ("notes", "training", "provenance")},
    }


def cells_of(settings: RunSettings, folders: RunFolders, name: str, n: int) -> dict[str, Any]:
    """The trigger experiment of one condition's LoRA with n images a cell, at other seeds than the run's.

    Drift is in the run's own report.
    """
    condition = load_vocabulary().condition(name)
    kept = folders.oracle(name) / CELLS
    if kept.is_file() and read_json(kept)["n"] == n:
        return dict(read_json(kept)["figures"])
    figures = measure_condition(
        settings.with_lora(condition, folders.lora(condition)),
        condition,
        trigger_cells(condition, n, settings.seed_for("experiment", name)),
        with_drift=False,
    )
    write_json(kept, {"n": n, "figures": figures})
    return figures


if __name__ == "__main__":
    sys.exit(main())
