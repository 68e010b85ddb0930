"""A training adapter for a few-step base: a LoRA on what the base itself draws in its few steps.

    python -m diffusioncleft.tools.straighten --out build/straightened
    python -m diffusioncleft.tools.train_adapter --base build/straightened --out build/adapter.safetensors

A base that was distilled to few steps predicts where its own next step has to lead, and forgets that under
the plain flow-matching loss. An adapter that has learned nothing but that loss, on the base's own pictures,
has done the forgetting beforehand: it is on while a LoRA is trained and off when it is used
(docs/training.md). The same call goes on where it was.
"""

import argparse
from pathlib import Path

from ..diffusioncleft_core.files import write_bytes
from ..diffusioncleft_core.flux.source import FluxSource
from ..diffusioncleft_core.generation.generate import generate
from ..diffusioncleft_core.generation.settings import GenerationSettings
from ..diffusioncleft_core.imageset.manifest import read_image_set
from .phantom_training import captioned_folder, healthy_plan, phantom_sampling, train_phantom


def train_adapter(
    out: Path,
    work: Path,
    *,
    base: Path,
    images: int,
    drawn_in: int,
    rank: int,
    steps: int,
    rate: float,
    seed: int,
) -> Path:
    """Draw `images` in `drawn_in` steps with the base, a diffusers folder, and train `steps` on them.

    The adapter is `out`.
    """
    drawn = work / "drawn"
    settings = GenerationSettings(FluxSource.from_arguments(base), phantom_sampling(drawn_in))
    generate(settings, healthy_plan(images, seed), drawn)
    rows = read_image_set(drawn)
    plain = captioned_folder(
        [drawn / row.file for row in rows], [row.prompt or "" for row in rows], work / "images"
    )
    lora = train_phantom(
        {
            "data.train_dir": plain,
            "data.batch_size": 4,
            "network.rank": rank,
            "network.alpha": float(rank),
            "optimizer.learning_rate": rate,
            "optimizer.steps": steps,
            "objective.seed": seed,
        },
        work / "training",
        base,
    )
    write_bytes(out, lora.read_bytes())
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", type=Path, required=True, help="a diffusers folder of the phantom's shape")
    parser.add_argument("--images", type=int, default=200, help="pictures to learn from (default 200)")
    parser.add_argument("--drawn-in", type=int, default=1, help="steps in which they are drawn (default 1)")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--steps", type=int, default=400, help="of training, batch 4 (default 400)")
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate (default 1e-3)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("build/training_adapter"))
    parser.add_argument("--out", type=Path, default=Path("build/training_adapter.safetensors"))
    args = parser.parse_args()
    print(
        train_adapter(
            args.out,
            args.work,
            base=args.base,
            images=args.images,
            drawn_in=args.drawn_in,
            rank=args.rank,
            steps=args.steps,
            rate=args.rate,
            seed=args.seed,
        )
    )


if __name__ == "__main__":
    main()
