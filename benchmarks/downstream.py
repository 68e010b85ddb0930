"""`python -m benchmarks.downstream`: the paper's classifier, frozen part run once, against the plain loop.

The plain loop runs the whole network on every picture in every epoch, as a training script does that freezes
tensors by `requires_grad = False`; both sides keep the frozen batch norms' statistics, and start from the
same weights with the same batches, so the losses must agree. Rounds alternate, so that a busy machine hurts
both alike; the medians count. Also: how long a picture's crop takes the first time, and from the cache.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import cross_entropy
from torchvision.models import mobilenet_v2

from diffusioncleft.diffusioncleft_core.downstream.cropper import Cropper
from diffusioncleft.diffusioncleft_core.downstream.network import LipClassifier, frozen_part
from diffusioncleft.diffusioncleft_core.downstream.task import Crop
from diffusioncleft.diffusioncleft_core.environment import hardware, pick_device, versions
from diffusioncleft.diffusioncleft_core.faces.analyzer import load_face_analyzer
from diffusioncleft.diffusioncleft_core.files import write_json
from diffusioncleft.diffusioncleft_core.phantom.face import random_face
from diffusioncleft.diffusioncleft_core.phantom.render import render
from diffusioncleft.diffusioncleft_core.weights.backbones import Backbone, phantom
from diffusioncleft.diffusioncleft_core.weights.networks import NetworkInfo, draw_from_seed

RESULTS = Path(__file__).resolve().parent / "results"
BATCH, RATE = 16, 1e-5


def full_width() -> Backbone:
    """MobileNetV2 as wide as the paper's, with seeded weights: its times don't hang on them."""
    network = mobilenet_v2(weights=None)
    info = NetworkInfo("seeded-random MobileNetV2", draw_from_seed(network.features, 0), True, "none")
    return Backbone("full", info, network.features, network.last_channel)


def train(
    network: LipClassifier, pictures: torch.Tensor, frozen: Any, epochs: int, *, once: bool
) -> list[float]:
    """Losses of all steps. once: run the frozen part before the first epoch, and never again."""
    labels = torch.arange(len(pictures)) % 2
    network.train()
    optimiser = torch.optim.Adam(network.trained_parameters(), lr=RATE)
    if once:
        with torch.no_grad():
            pictures = torch.cat([frozen(part) for part in pictures.split(BATCH)])
    losses = []
    for _ in range(epochs):
        for batch in torch.arange(len(pictures)).split(BATCH):
            x = pictures[batch]
            if not once:
                with torch.no_grad():
                    x = frozen(x)
            loss = cross_entropy(network(x), labels[batch])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    return losses


def compare(backbone: Backbone, n: int, side: int, epochs: int, rounds: int) -> dict[str, Any]:
    """Seconds of both loops on n random crops, the cached side with its one pass over the frozen part."""
    backbone.stages.eval().requires_grad_(False)
    rng = np.random.default_rng(0)
    pictures = backbone.prepare(rng.integers(0, 256, (n, side, side, 3), dtype=np.uint8))
    frozen = frozen_part(backbone)
    seconds: dict[str, list[float]] = {"once": [], "plain": []}
    losses: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, times in seconds.items():
            torch.manual_seed(0)
            network = LipClassifier(backbone, dropout=0.0)
            started = time.perf_counter()
            losses[name] = train(network, pictures, frozen, epochs, once=name == "once")
            times.append(time.perf_counter() - started)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        "n": n,
        "side": side,
        "epochs": epochs,
        "seconds": {name: [round(t, 3) for t in times] for name, times in seconds.items()},
        "times_faster": round(medians["plain"] / medians["once"], 2),
        "largest_difference_of_losses": float(np.abs(np.subtract(losses["once"], losses["plain"])).max()),
    }


def crops(n: int, side: int) -> dict[str, Any]:
    """Milliseconds a picture: face, crop and surroundings the first time, then from the caches."""
    with tempfile.TemporaryDirectory() as folder:
        for index in range(n):
            face = random_face(np.random.default_rng(index), finding="cleft")
            Image.fromarray(render(face, 256).image).save(Path(folder) / f"{index:04d}.png")
        cropper = Cropper.of(Crop(side=side), load_face_analyzer("phantom"))
        times = []
        for _ in range(2):
            started = time.perf_counter()
            cropper.read(Path(folder), 1)
            times.append(1000 * (time.perf_counter() - started) / n)
    return {"n": n, "side": side, "first_ms": round(times[0], 1), "cached_ms": round(times[1], 1)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.downstream", description=__doc__)
    parser.add_argument("--n", type=int, default=64, help="pictures")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    device = pick_device("cpu")
    result: dict[str, Any] = {
        "what": "seconds of a training; once: the frozen part runs once a picture, plain: in every epoch",
        "full_width_224": compare(full_width(), args.n, 224, args.epochs, args.rounds),
        "phantom_96": compare(phantom(None), args.n, 96, args.epochs, args.rounds),
        "crops_224": crops(args.n, 224),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "hardware": hardware(),
    }
    path = args.out / f"downstream_{device.type}.json"
    write_json(path, result)
    for name in ("full_width_224", "phantom_96"):
        print(f"{name}: {result[name]['times_faster']} times faster than the plain loop")
    print(f"crops: {result['crops_224']}; kept in {path}")


if __name__ == "__main__":
    main()
