"""The measurements that the repository keeps: both recipes on phantoms, n >= 500 a cell, read by the oracle.

    python scripts/experiments.py                     # half an hour on two cores
    python scripts/experiments.py --n 600 --work build/experiments --out experiments/phantom_oracle.json

Each recipe is a whole `diffusioncleft run --phantom` with more images; the same call goes on where it was.
"""

import argparse
import datetime
import shlex
import sys
from pathlib import Path

from diffusioncleft.diffusioncleft_core.commands import run as run_command
from diffusioncleft.diffusioncleft_core.files import read_json, write_json
from diffusioncleft.diffusioncleft_core.pipeline import run_pipeline
from diffusioncleft.diffusioncleft_core.run_settings import PRESETS

LEAST = 500


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=600, help="images a cell (default 600: 100 a skin tone)")
    parser.add_argument("--seed", type=int, default=1, help="another seed than the demo's (default 1)")
    parser.add_argument("--presets", nargs="+", default=list(PRESETS), choices=PRESETS)
    parser.add_argument("--work", type=Path, default=Path("build/experiments"), help="folder of the two runs")
    parser.add_argument("--out", type=Path, default=Path("experiments/phantom_oracle.json"))
    args = parser.parse_args()
    if args.n < LEAST:
        parser.error(f"--n {args.n}: the kept figures need {LEAST} images a cell or more")
    recipes = {}
    for preset in args.presets:
        recipes[preset] = run_recipe(preset, args.n, args.seed, args.work / preset)
    document = {
        "schema": 1,
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "images_a_cell": args.n,
        "seed": args.seed,
        "recipes": recipes,
    }
    write_json(args.out, document)
    print(args.out)
    return 0


def run_recipe(preset: str, n: int, seed: int, out: Path) -> dict[str, object]:
    """One whole run with `n` images a cell; returns its report."""
    parser = argparse.ArgumentParser()
    run_command.configure(parser)
    arguments = ["--phantom", "--preset", preset, "--n", str(n), "--cell-images", str(n)]
    arguments += ["--seed", str(seed), "--out", str(out)]
    settings = run_command.settings_from(parser.parse_args(arguments))
    result = run_pipeline(settings, run_command.start_trainer, warn=print)
    print(result.table)
    report: dict[str, object] = read_json(result.folders.report)
    return report


if __name__ == "__main__":
    sys.exit(main())
