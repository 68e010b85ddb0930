"""What a long training costs a few-step base in its few steps, with and without a training adapter.

    python -m diffusioncleft.tools.evaluate_steps --out experiments/training_adapter.json
    python -m diffusioncleft.tools.evaluate_steps --bases-only --n 96

The few-step base is the embedded one after `straighten`, which draws in one step nearly as well as in many.
Pictures are compared with rendered phantoms of the same attributes: the Fréchet distance between the
oracle's features, after the autoencoder. First both bases alone, at 1 to 8 steps; then LoRAs in the course
of a long training of the straightened one, with and without the adapter of `train_adapter`, in one step and
in four, for each seed. The same call goes on where it was.
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
from ..diffusioncleft_core.conditions.plan import sampling_plan
from ..diffusioncleft_core.conditions.plan_rows import PlanRow
from ..diffusioncleft_core.faces.analyzer import PHANTOM, load_face_analyzer
from ..diffusioncleft_core.files import read_json, write_bytes, write_json
from ..diffusioncleft_core.flux.components import load_vae
from ..diffusioncleft_core.flux.source import FluxSource, phantom_source
from ..diffusioncleft_core.generation.settings import GenerationSettings
from ..diffusioncleft_core.metrics.fid import frechet_distance
from ..diffusioncleft_core.phantom.experiment import FULL, Cell, draw_cells
from ..diffusioncleft_core.phantom.face import CLEFT, random_face
from ..diffusioncleft_core.phantom.oracle import Oracle, load_oracle
from ..diffusioncleft_core.phantom.render import render
from .evaluate_steps_plot import steps_drawing
from .phantom_training import CONDITION, healthy_plan, phantom_people, phantom_sampling, train_phantom
from .straighten import straightened_base
from .train_adapter import train_adapter
from .train_oracle import through_vae

BASE_STEPS = (1, 2, 4, 8)
LORA_STEPS = (1, 4)
EMBEDDED, STRAIGHT = "embedded", "straightened"
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


def drawn(source: FluxSource, rows: Sequence[PlanRow], steps: int, lora: Path | None = None) -> Pictures:
    """The rows' pictures in so many steps."""
    settings = GenerationSettings(source, phantom_sampling(steps), lora)
    return draw_cells(settings, [Cell(FULL, tuple(rows))], [])[0][FULL]


def distance(oracle: Oracle, first: Pictures, second: Pictures) -> float:
    """Fréchet distance between the oracle's features of two sets."""
    return frechet_distance(features(oracle, first), features(oracle, second))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bases-only", action="store_true", help="measure the bases, train no LoRA")
    parser.add_argument("--n", type=int, default=128, help="pictures a measurement (default 128)")
    parser.add_argument("--seeds", type=int, default=5, help="measurements of each kind (default 5)")
    parser.add_argument("--people", type=int, default=40, help="training images (default 40)")
    parser.add_argument("--steps", type=int, default=800, help="of training (default 800)")
    parser.add_argument("--every", type=int, default=200, help="steps between measurements (default 200)")
    parser.add_argument("--straighten-steps", type=int, default=1200, help="of the base (default 1200)")
    parser.add_argument("--straighten-pictures", type=int, default=4000, help="that it learns from")
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
        "bases": {},
        "loras": {},
    }
    if args.out.is_file() and (kept := read_json(args.out))["pictures"] == args.n:
        document |= {"bases": kept["bases"], "loras": kept["loras"]}
    oracle = load_oracle()

    def keep(part: str, name: str, figure: float) -> None:
        document[part][name] = figure
        write_json(args.out, document)
        print(part, name, round(figure, 3), flush=True)

    straight = straightened_base(
        args.work / "straightened", pictures=args.straighten_pictures, steps=args.straighten_steps
    )
    bases = {EMBEDDED: phantom_source(), STRAIGHT: FluxSource.from_arguments(straight)}
    for seed in range(args.seeds):
        names = {f"{base}/{steps} steps/seed{seed}": (base, steps) for base in bases for steps in BASE_STEPS}
        others = f"rendered/seed{seed}"
        if {*names, others} <= document["bases"].keys():
            continue
        rows = healthy_plan(args.n, seed)
        reference = rendered(rows, None, seed)
        keep("bases", others, distance(oracle, rendered(rows, None, 1000 + seed), reference))
        for name, (base, steps) in names.items():
            keep("bases", name, distance(oracle, drawn(bases[base], rows, steps), reference))
    if not args.bases_only:
        measure_training(args, straight, oracle, keep, document["loras"])
    write_bytes(args.plot, steps_drawing(document).render("png")[0])
    print(args.plot)
    return 0


def measure_training(
    args: argparse.Namespace, base: Path, oracle: Oracle, keep: Any, known: dict[str, float]
) -> None:
    """Train on `base` with and without the adapter for each seed, and measure on the way."""
    condition = load_vocabulary().condition(CONDITION)
    source = FluxSource.from_arguments(base)
    dataset = phantom_people(args.work, args.people, 0, load_face_analyzer(PHANTOM, threads=1))
    adapter = train_adapter(
        args.work / "adapter.safetensors",
        args.work / "adapter",
        base=base,
        images=args.adapter_images,
        drawn_in=1,
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
                base,
            )
            for step in range(args.every, args.steps + 1, args.every):
                lora = last if step == args.steps else last.with_name(f"lora-step{step:06d}.safetensors")
                for steps in LORA_STEPS:
                    name = f"{kind}/step{step}/{steps} steps/seed{seed}"
                    if name not in known:
                        keep("loras", name, distance(oracle, drawn(source, rows, steps, lora), reference))


if __name__ == "__main__":
    sys.exit(main())
