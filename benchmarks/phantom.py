"""`python -m benchmarks.phantom`: how long the phantom's renderer takes for a picture, by size and finding.

One thread. Processor seconds, which other work on the machine changes little, with the wall beside them, for
the same faces in every size. The goal is 30 ms at 128 px.
"""

import argparse
import statistics
import time
from datetime import date
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from diffusioncleft.diffusioncleft_core.environment import hardware
from diffusioncleft.diffusioncleft_core.files import write_json
from diffusioncleft.diffusioncleft_core.phantom.face import FINDINGS, PhantomFace, random_face
from diffusioncleft.diffusioncleft_core.phantom.render import render

RESULTS = Path(__file__).resolve().parent / "results"


def timed(faces: list[PhantomFace], size: int) -> dict[str, float]:
    """Milliseconds a picture of `size` px: of the processor (median, 95th of a hundred) and of the wall."""
    processor, wall = [], []
    for face in faces:
        begun, started = time.process_time(), time.perf_counter()
        render(face, size)
        processor.append(1000 * (time.process_time() - begun))
        wall.append(1000 * (time.perf_counter() - started))
    return {
        "processor_ms": round(statistics.median(processor), 1),
        "processor_p95_ms": round(statistics.quantiles(processor, n=20)[-1], 1),
        "wall_ms": round(statistics.median(wall), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.phantom", description=__doc__)
    parser.add_argument("--n", type=int, default=100, help="faces of each finding")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256, 512, 1024])
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)
    faces = {
        name or "healthy": [random_face(rng, finding=name) for _ in range(args.n)]
        for name in (None, *FINDINGS)
    }
    render(faces["healthy"][0], min(args.sizes))
    found: dict[str, Any] = {
        str(size): {name: timed(group, size) for name, group in faces.items()} for size in args.sizes
    }
    result = {
        "what": "milliseconds a rendered phantom, one thread, by size in px and finding",
        "date": date.today().isoformat(),
        "n": args.n,
        "milliseconds": found,
        "hardware": hardware(),
    }
    path = args.out / "phantom_cpu.json"
    write_json(path, result)
    for size, groups in found.items():
        print(size, {name: times["processor_ms"] for name, times in groups.items()})
    print(f"kept in {path}")


if __name__ == "__main__":
    main()
