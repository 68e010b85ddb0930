"""How rank, steps and captions trade memorising for obedience: LoRAs on a few phantoms, and a plot of both.

    python -m diffusioncleft.tools.memorisation --out experiments/memorisation.json
    python -m diffusioncleft.tools.memorisation --ranks 4 --steps 10 30 --n 24 --work build/few

Each LoRA is the paper's recipe on the embedded model, with its own rank, number of steps an image, and with
whole captions or the trigger alone. Memorising is what a generated face has in common with its nearest
training face beyond what it has with the nearest of as many people of the same kind that no LoRA saw. The
same call goes on where it was; the plot is drawn of what is in --out.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from datetime import date
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..diffusioncleft_core.conditions.loader import load_vocabulary
from ..diffusioncleft_core.conditions.plan import sampling_plan
from ..diffusioncleft_core.conditions.plan_rows import PlanRow
from ..diffusioncleft_core.conditions.vocabulary import Condition
from ..diffusioncleft_core.faces.analyzer import PHANTOM, FaceAnalyzer, load_face_analyzer
from ..diffusioncleft_core.files import read_json, write_bytes, write_json
from ..diffusioncleft_core.flux.source import phantom_source
from ..diffusioncleft_core.generation.settings import GenerationSettings
from ..diffusioncleft_core.imageset.decode import read_image
from ..diffusioncleft_core.imageset.manifest import read_image_set
from ..diffusioncleft_core.phantom.experiment import FULL, Cell, asked, draw_cells
from ..diffusioncleft_core.phantom.oracle import finding_rate, load_oracle
from .memorisation_plot import memorisation_drawing
from .phantom_training import CONDITION, captioned_folder, phantom_people, phantom_sampling, train_phantom

CAPTIONS = ("full", "trigger")
RESAMPLES = 2000


def embedded(images: Sequence[NDArray[np.uint8]], analyzer: FaceAnalyzer) -> NDArray[np.float32]:
    """Embeddings [N, 512] of the largest face of each image [H, W, 3] that shows one, L2 norm 1."""
    found = [faces[0].embedding for image in images if (faces := analyzer.analyze(image))]
    return np.stack(found) if found else np.zeros((0, 512), np.float32)


def resembles(
    generated: NDArray[np.float32],
    training: NDArray[np.float32],
    control: NDArray[np.float32],
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Cosine similarity of each generated face to its nearest training face and its nearest control face.

    Args:
        generated: [N, 512], as `training` and `control` with L2 norm 1.
        training: [M, 512] faces that were learned from.
        control: [M, 512] faces that were not; equally many, so that the nearest of each is as near by chance.
        seed: of the bootstrap over generated faces.

    Returns:
        means `to_training`, `to_control`, and `excess`, the first minus the second, each with `value`, `ci95`
        and `n`; None and the widest interval where there is no face.

    Raises:
        ValueError: the two sets differ in size.
    """
    if len(training) != len(control):
        raise ValueError(f"{len(training)} training faces and {len(control)} control faces can't be compared")
    names = ("to_training", "to_control", "excess")
    if not len(generated):
        return {name: {"value": None, "ci95": [-1.0, 1.0], "n": 0} for name in names}
    nearest = [(generated @ faces.T).max(axis=1).astype(np.float64) for faces in (training, control)]
    draws = np.random.default_rng(seed).integers(len(generated), size=(RESAMPLES, len(generated)))
    figures = {}
    for name, values in zip(names, (*nearest, nearest[0] - nearest[1]), strict=True):
        low, high = np.percentile(values[draws].mean(axis=1), (2.5, 97.5))
        figures[name] = {
            "value": float(values.mean()),
            "ci95": [float(low), float(high)],
            "n": len(generated),
        }
    return figures


def measure(
    lora: Path | None,
    condition: Condition,
    rows: Sequence[PlanRow],
    faces: tuple[NDArray[np.float32], NDArray[np.float32]],
    analyzer: FaceAnalyzer,
) -> dict[str, Any]:
    """Draw the prompts with a LoRA (None: the base alone); obedience, and how near the training faces are."""
    cell = Cell(FULL, tuple(rows))
    assert condition.phantom is not None
    sampling = phantom_sampling(strength=condition.phantom.strength)
    settings = GenerationSettings(phantom_source(), sampling, lora)
    pictures = draw_cells(settings, [cell], [])[0][FULL]
    rate = finding_rate(condition.phantom.finding, load_oracle().read(pictures), asked(rows))
    generated = embedded(list(pictures), analyzer)
    return {"obedience": {key: rate[key] for key in ("value", "ci95", "n")}, **resembles(generated, *faces)}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--people", type=int, default=20, help="training images, each of another person")
    parser.add_argument("--ranks", nargs="+", type=int, default=[4, 16, 64])
    parser.add_argument("--steps", nargs="+", type=int, default=[10, 30, 100], help="steps an image")
    parser.add_argument("--captions", nargs="+", default=list(CAPTIONS), choices=CAPTIONS)
    parser.add_argument("--n", type=int, default=120, help="pictures a LoRA (default 120)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("build/memorisation"))
    parser.add_argument("--out", type=Path, default=Path("experiments/memorisation.json"))
    parser.add_argument("--plot", type=Path, default=Path("docs/images/memorisation.png"))
    args = parser.parse_args()
    condition = load_vocabulary().condition(CONDITION)
    assert condition.phantom is not None
    document: dict[str, Any] = {
        "schema": 1,
        "what": "LoRAs of the embedded model on few phantoms: likeness to training faces, and obedience.",
        "command": shlex.join(["python", "-m", "diffusioncleft.tools.memorisation", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "people": args.people,
        "seed": args.seed,
        "strength": condition.phantom.strength,
        "loras": {},
    }
    if args.out.is_file() and (kept := read_json(args.out))["people"] == args.people:
        document["loras"] = kept["loras"]
    analyzer = load_face_analyzer(PHANTOM, threads=1)
    trigger = f"[{condition.trigger}]"
    dataset = phantom_people(args.work, args.people, args.seed, analyzer)
    rows = read_image_set(dataset)
    train_rows = [row for row in rows if row.role == "train"]
    apart = [row for row in rows if row.role == "holdout"]
    known, unknown = (
        embedded([read_image(dataset / row.file) for row in part], analyzer) for part in (train_rows, apart)
    )
    faces = (known[: len(unknown)], unknown[: len(known)])
    plan = sampling_plan(condition, args.n, args.seed)
    cases: list[tuple[str, int, int]] = [("base", 0, 0)]
    cases += list(product(args.captions, args.ranks, args.steps))
    for captions, rank, steps in cases:
        name = "base" if captions == "base" else f"{captions}/rank{rank}/steps{steps}N"
        if document["loras"].get(name, {}).get("pictures") == args.n:
            continue
        lora = None
        if captions != "base":
            told = [row.caption or "" if captions == "full" else trigger for row in train_rows]
            images = [dataset / row.file for row in train_rows]
            lora = train_phantom(
                {
                    "data.train_dir": captioned_folder(images, told, args.work / captions / "images"),
                    "data.trigger": condition.trigger,
                    "network.rank": rank,
                    "network.alpha": 2.0 * rank,
                    "optimizer.steps": steps * len(train_rows),
                    "objective.seed": args.seed,
                },
                args.work / captions / f"rank{rank}-steps{steps}",
            )
        figures = measure(lora, condition, plan, faces, analyzer)
        document["loras"][name] = {
            "captions": captions,
            "rank": rank,
            "steps_per_image": steps,
            "pictures": args.n,
            **figures,
        }
        write_json(args.out, document)
        print(name, {key: value["value"] for key, value in figures.items()}, flush=True)
    write_bytes(args.plot, memorisation_drawing(document).render("png")[0])
    print(args.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
