"""`python -m benchmarks`: our generation against diffusers' FluxPipeline, same prompts and seeds.

Both sides hold the model in memory and end with pictures as uint8. Ours encodes each distinct prompt once, as
`diffusioncleft generate` does; the pipeline encodes within each call, as it does when used plainly. Rounds
alternate, so that a busy machine hurts both alike; the medians count. The pictures must be the same ones.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import FluxPipeline

from diffusioncleft.diffusioncleft_core.conditions.loader import load_vocabulary
from diffusioncleft.diffusioncleft_core.conditions.plan import sampling_plan
from diffusioncleft.diffusioncleft_core.environment import default_dtype, hardware, pick_device, versions
from diffusioncleft.diffusioncleft_core.files import write_json
from diffusioncleft.diffusioncleft_core.flux.components import load_text_encoders
from diffusioncleft.diffusioncleft_core.flux.sampling import encode_prompts, initial_noise, pack_latents
from diffusioncleft.diffusioncleft_core.flux.source import FluxSource, phantom_source
from diffusioncleft.diffusioncleft_core.generation.sampler import ImageSampler
from diffusioncleft.diffusioncleft_core.generation.settings import ImageSize

STEPS = 4
RESULTS = Path(__file__).resolve().parent / "results"


def ours(sampler: ImageSampler, text: Any, rows: Sequence[Any], batch: int, size: int) -> np.ndarray:
    """[N, size, size, 3], uint8."""
    distinct = list(dict.fromkeys(row.prompt for row in rows))
    encoded = dict(zip(distinct, encode_prompts(text, distinct, sampler.device), strict=True))
    pictures = []
    for start in range(0, len(rows), batch):
        chunk = rows[start : start + batch]
        embeddings = [encoded[row.prompt] for row in chunk]
        pictures.append(sampler.draw(embeddings, [row.seed for row in chunk], ImageSize(size, size), STEPS))
    return np.concatenate(pictures)


def peers(pipeline: FluxPipeline, length: int, rows: Sequence[Any], batch: int, size: int) -> np.ndarray:
    """[N, size, size, 3], uint8."""
    pictures = []
    for start in range(0, len(rows), batch):
        chunk = rows[start : start + batch]
        noise = torch.stack([initial_noise(row.seed, size, size) for row in chunk])
        drawn = pipeline(
            [row.prompt for row in chunk],
            height=size,
            width=size,
            num_inference_steps=STEPS,
            guidance_scale=1.0,
            latents=pack_latents(noise).to(pipeline.device, pipeline.dtype),
            max_sequence_length=length,
            output_type="np",
        ).images
        pictures.append((drawn * 255).round().astype(np.uint8))
    return np.concatenate(pictures)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--model", type=Path, help="a diffusers folder of FLUX.1 schnell; default: phantom-flux"
    )
    parser.add_argument("--n", type=int, default=32, help="pictures a round")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()

    device = pick_device(args.device)
    dtype = default_dtype(device)
    source = FluxSource(folder=args.model) if args.model else phantom_source()
    rows = sampling_plan(load_vocabulary().condition("pre_op"), args.n, 0)
    text = load_text_encoders(source, device, dtype)
    sampler = ImageSampler(source, device, dtype)
    pipeline = FluxPipeline.from_pretrained(source.folder, torch_dtype=dtype, local_files_only=True).to(
        device
    )
    pipeline.set_progress_bar_config(disable=True)

    sides: dict[str, Callable[[], np.ndarray]] = {
        "diffusioncleft": lambda: ours(sampler, text, rows, args.batch, args.size),
        "diffusers": lambda: peers(pipeline, text.t5_length, rows, args.batch, args.size),
    }
    with torch.inference_mode():
        pictures = {name: draw().astype(np.int16) for name, draw in sides.items()}
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(args.rounds):
            for name, draw in sides.items():
                started = time.perf_counter()
                draw()
                seconds[name].append(time.perf_counter() - started)
    difference = int(np.abs(pictures["diffusioncleft"] - pictures["diffusers"]).max())
    rates = {name: round(args.n / statistics.median(times), 3) for name, times in seconds.items()}
    result = {
        "what": "images a second, 4 steps, median of the rounds",
        "model": "given" if args.model else "phantom-flux",
        "n": args.n,
        "batch": args.batch,
        "size": args.size,
        "rounds": args.rounds,
        "dtype": str(dtype).removeprefix("torch."),
        "images_per_second": rates,
        "seconds": {name: [round(t, 4) for t in times] for name, times in seconds.items()},
        "largest_pixel_difference_of_255": difference,
        "versions": versions(),
        "hardware": hardware(),
    }
    path = args.out / f"generation_{result['model']}_{device.type}.json"
    write_json(path, result)
    print(f"images a second: {rates}; largest pixel difference {difference} of 255; kept in {path}")


if __name__ == "__main__":
    main()
