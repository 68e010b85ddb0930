"""Train the phantoms' backbone, a MobileNetV2 a quarter wide, on healthy phantoms alone.

It learns what a picture shows, where in the face it was cut out, and where the landmarks lie: what ImageNet
is to photographs. It never sees a cleft or a scar.

    python -m diffusioncleft.tools.pool --out POOL --n 6000 --seed 41
    python -m diffusioncleft.tools.train_lip_backbone --pool POOL --out OUT --minutes 25
"""

import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import cross_entropy, smooth_l1_loss

from ..diffusioncleft_core.downstream.lips import cut_square
from ..diffusioncleft_core.weights.backbones import phantom_network
from ..diffusioncleft_core.weights.networks import draw_from_seed
from .pool import training_parser

SIDE = 96
WORDS = ("subject", "skin", "hair_color", "eyes", "mouth", "glasses", "mark")
MEAN = torch.tensor((0.485, 0.456, 0.406))[:, None, None]
STD = torch.tensor((0.229, 0.224, 0.225))[:, None, None]


def random_square(rng: np.random.Generator, marks: NDArray[np.float32], size: int) -> NDArray[np.float64]:
    """A square of the picture: half of them near the mouth, the others anywhere in the face."""
    side = rng.uniform(0.22, 0.75) * size
    middle = marks[6:10].reshape(2, 2).mean(0) if rng.random() < 0.5 else rng.uniform(0.3, 0.7, 2) * size
    centre = middle + rng.normal(0, 0.12 * side, 2)
    return np.concatenate([centre - side / 2, centre + side / 2])


def main() -> None:
    parser = training_parser(__doc__, minutes=25, batch=32, lr=2e-3)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    from safetensors.torch import save_file

    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    images = np.load(args.pool / "images.npy", mmap_mode="r")
    marks = np.load(args.pool / "marks.npy")
    words = json.loads((args.pool / "attributes.json").read_text(encoding="utf-8"))
    values = [sorted({row[name] for row in words}) for name in WORDS]
    truth = np.array([[v.index(row[n]) for n, v in zip(WORDS, values, strict=True)] for row in words])
    sizes = [len(v) for v in values]
    network = phantom_network()
    draw_from_seed(network.features, args.seed)
    heads = nn.Linear(network.last_channel, sum(sizes) + 10)
    parameters = [*network.features.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=args.lr, weight_decay=0.01)
    start, step = time.time(), 0
    while (share := (time.time() - start) / (60 * args.minutes)) < 1:
        for group in optimiser.param_groups:
            group["lr"] = args.lr * max(0.01, 0.5 * (1 + math.cos(math.pi * share)))
        pick = rng.integers(0, len(images), args.batch)
        squares = np.stack([random_square(rng, marks[i], images.shape[1]) for i in pick])
        cut = np.stack([cut_square(images[i], s, SIDE) for i, s in zip(pick, squares, strict=True)])
        x = (torch.from_numpy(cut).permute(0, 3, 1, 2).float() / 255 - MEAN) / STD
        scale = (squares[:, 2] - squares[:, 0])[:, None, None]
        places = (marks[pick, :10].reshape(-1, 5, 2) - squares[:, None, :2]) / scale - 0.5
        *logits, where = heads(network.features(x).mean((2, 3))).split([*sizes, 10], 1)
        seen = sum(
            (cross_entropy(part, torch.from_numpy(truth[pick, i])) for i, part in enumerate(logits)),
            start=torch.zeros(()),
        )
        target = torch.from_numpy(places.reshape(-1, 10).astype(np.float32)).clamp(-1.5, 1.5)
        loss = seen + 20 * smooth_l1_loss(where, target, beta=0.05)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        step += 1
        if step % 50 == 0:
            print(
                f"{time.time() - start:5.0f} s  step {step}  words {seen.item():.3f}  all {loss.item():.3f}",
                flush=True,
            )
    args.out.mkdir(parents=True, exist_ok=True)
    state = {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in network.features.state_dict().items()
    }
    save_file(
        {name: tensor.contiguous() for name, tensor in state.items()}, args.out / "backbone.safetensors"
    )
    figures = {"steps": step, "minutes": args.minutes, "pictures": len(images), "loss": loss.item()}
    (args.out / "training.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
