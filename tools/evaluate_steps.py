"""Whether the embedded base is a few-step model, and whether long training costs it anything at four steps.

    python -m diffusioncleft.tools.evaluate_steps --out experiments/training_adapter.json
    python -m diffusioncleft.tools.evaluate_steps --base-only --n 96

A distilled base is as good in four steps as in many; training on it without an adapter costs the four steps
first. Pictures drawn in 4 and in 28 steps are compared with rendered phantoms of the same attributes: the
Fréchet distance between the oracle's features, after the autoencoder. First the base alone, at 1 to 28 steps;
then LoRAs in the course of a long training, with and without the adapter of `train_adapter`, for each seed.
The same call goes on where it was.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..diffusioncleft_core.conditions.loader import load_vocabulary
from ..diffusioncleft_core.conditions.plan import PlanRow, sampling_plan
from ..diffusioncleft_core.faces.analyzer import PHANTOM, load_face_analyzer
from ..diffusioncleft_core.files import read_json, write_bytes, write_json
from ..diffusioncleft_core.flux.components import load_vae
from ..diffusioncleft_core.flux.source import phantom_source
from ..diffusioncleft_core.generation.settings import GenerationSettings
from ..diffusioncleft_core.metrics.fid import frechet_distance
from ..diffusioncleft_core.phantom.experiment import FULL, Cell, draw_cells
from ..diffusioncleft_core.phantom.face import CLEFT, random_face
from ..diffusioncleft_core.phantom.oracle import Oracle, load_oracle
from ..diffusioncleft_core.phantom.render import render
from .evaluate_steps_plot import steps_drawing
from .phantom_training import CONDITION, healthy_plan, phantom_people, phantom_sampling, train_phantom
from .train_adapter import train_adapter
from .train_oracle import through_vae

FEW, MANY = 4, 28
BASE_STEPS = (1, 2, FEW, MANY)
Pictures = NDArray[np.uint8]


@torch.no_grad()
def features(oracle: Oracle, pictures: Pictures) -> NDArray[np.float32]:
    """[N, 128, 128, 3] -> the oracle's last hidden layer [N, 384]."""
    x = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
    found: NDArray[np.float32] = oracle.net.mix(oracle.net.features(x)).numpy()
    return found


def rendered(rows: Sequence[PlanRow], finding: str | None, seed: int) -> Pictures:
    """Phantoms with the attributes of the rows, after the autoencoder, which no sampler can surpass."""
    rng = np.random.default_rng(seed)
    faces = [random_face(rng, finding=finding, attributes=dict(row.attributes)) for row in rows]
    vae = load_vae(phantom_source(), torch.device("cpu"), torch.float32)
    with torch.no_grad():
        return through_vae(vae, np.stack([render(face).image for face in faces]), 0.0, seed)


def drawn(rows: Sequence[PlanRow], steps: int, lora: Path | None = None) -> Pictures:
    """The rows' pictures in so many steps."""
    settings = GenerationSettings(phantom_source(), phantom_sampling(steps), lora)
    return draw_cells(settings, [Cell(FULL, tuple(rows))], [])[0][FULL]


def distance(oracle: Oracle, first: Pictures, second: Pictures) -> float:
    """Fréchet distance between the oracle's features of two sets."""
    return frechet_distance(features(oracle, first), features(oracle, second))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base-only", action="store_true", help="measure the base, train nothing")
    parser.add_argument("--n", type=int, default=64, help="pictures a measurement (default 64)")
    parser.add_argument("--seeds", type=int, default=5, help="measurements of each kind (default 5)")
    parser.add_argument("--people", type=int, default=40, help="training images (default 40)")
    parser.add_argument("--steps", type=int, default=1200, help="of training (default 1200)")
    parser.add_argument("--every", type=int, default=400, help="steps between measurements (default 400)")
    parser.add_argument("--adapter-steps", type=int, default=400, help="of the adapter (default 400)")
    parser.add_argument("--adapter-images", type=int, default=200, help="that it learns from (default 200)")
    parser.add_argument("--work", type=Path, default=Path("build/training_adapter"))
    parser.add_argument("--out", type=Path, default=Path("experiments/training_adapter.json"))
    parser.add_argument("--plot", type=Path, default=Path("docs/images/training_adapter.png"))
    args = parser.parse_args()
    document: dict[str, Any] = {
        "schema": 1,
        "what": "Fréchet distance of drawn to rendered phantoms, oracle's features, by steps and seed.",
        "command": shlex.join(["python", "-m", "diffusioncleft.tools.evaluate_steps", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "pictures": args.n,
        "base": {},
        "loras": {},
    }
    if args.out.is_file() and (kept := read_json(args.out))["pictures"] == args.n:
        document |= {"base": kept["base"], "loras": kept["loras"]}
    oracle = load_oracle()

    def keep(part: str, name: str, figure: float) -> None:
        document[part][name] = figure
        write_json(args.out, document)
        print(part, name, round(figure, 3), flush=True)

    for seed in range(args.seeds):
        names = {f"{steps} steps/seed{seed}": steps for steps in BASE_STEPS}
        names |= {f"rendered/seed{seed}": 0}
        if names.keys() <= document["base"].keys():
            continue
        rows = healthy_plan(args.n, seed)
        reference = rendered(rows, None, seed)
        for name, steps in names.items():
            pictures = drawn(rows, steps) if steps else rendered(rows, None, 1000 + seed)
            keep("base", name, distance(oracle, pictures, reference))
    if not args.base_only:
        measure_training(args, oracle, keep, document["loras"])
    write_bytes(args.plot, steps_drawing(document).render("png")[0])
    print(args.plot)
    return 0


def measure_training(args: argparse.Namespace, oracle: Oracle, keep: Any, known: dict[str, float]) -> None:
    """Train with and without the adapter for each seed; 4-step and 28-step distance on the way."""
    condition = load_vocabulary().condition(CONDITION)
    dataset = phantom_people(args.work, args.people, 0, load_face_analyzer(PHANTOM, threads=1))
    adapter = train_adapter(
        args.work / "adapter.safetensors",
        args.work / "adapter",
        images=args.adapter_images,
        drawn_in=FEW,
        rank=16,
        steps=args.adapter_steps,
        rate=1e-3,
        seed=0,
    )
    for seed in range(args.seeds):
        rows = sampling_plan(condition, args.n, seed)
        reference = rendered(rows, CLEFT, seed)
        for kind, path in (("without", None), ("with", adapter)):
            folder = args.work / f"{kind}-seed{seed}" / "training"
            last = train_phantom(
                {
                    "data.train_dir": dataset,
                    "data.trigger": condition.trigger,
                    "network.training_adapter": path,
                    "optimizer.schedule": "constant_with_warmup",
                    "optimizer.warmup_steps": 50,
                    "optimizer.learning_rate": 2e-3,
                    "optimizer.steps": args.steps,
                    "output.save_every_n_steps": args.every,
                    "objective.seed": seed,
                },
                folder,
            )
            for step in range(args.every, args.steps + 1, args.every):
                lora = last if step == args.steps else last.with_name(f"lora-step{step:06d}.safetensors")
                for steps in (FEW, MANY):
                    name = f"{kind}/step{step}/{steps} steps/seed{seed}"
                    if name not in known:
                        keep("loras", name, distance(oracle, drawn(rows, steps, lora), reference))


if __name__ == "__main__":
    sys.exit(main())
