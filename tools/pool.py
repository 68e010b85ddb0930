"""A pool of rendered phantoms on disk, so that a training does not wait for the renderer.

python -m diffusioncleft.tools.pool --out POOL --n 20000 --seed 1
"""

import argparse
import json
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..diffusioncleft_core.phantom.canvas import geometry
from ..diffusioncleft_core.phantom.face import PhantomFace, random_face
from ..diffusioncleft_core.phantom.render import render
from . import FINDING_OF

_CHUNK = 500


def _chunk(
    task: tuple[int, int, str | None, int],
) -> tuple[NDArray[np.uint8], NDArray[np.float32], list[dict[str, str]]]:
    import cv2

    cv2.setNumThreads(1)
    seed, n, condition, size = task
    rng = np.random.default_rng(seed)
    faces = [random_face(rng, finding=FINDING_OF[condition]) for _ in range(n)]
    renderings = [render(face, size) for face in faces]
    boxes = np.stack([np.concatenate([r.landmarks.ravel(), r.box, r.lips]) for r in renderings])
    words = [r.attributes | surroundings(face) for r, face in zip(renderings, faces, strict=True)]
    return np.stack([r.image for r in renderings]), boxes, words


def surroundings(face: PhantomFace) -> dict[str, str]:
    """What else there is to see beside Table 1: an open mouth, a mole, colours of cloth and background."""

    def colour(rgb: tuple[float, float, float]) -> str:
        low, high = min(rgb), max(rgb)
        if high - low < 30:
            return "grey"
        return ("reddish", "greenish", "bluish")[rgb.index(high)]

    return {
        "mouth": "open" if face.pose.mouth_open > 0.3 else "closed",
        "mole": "mole" if geometry(face).mole[2] else "none",
        "clothing": colour(face.pose.clothing),
        "background": colour(face.pose.background),
    }


def make_pool(out: Path, n: int, seed: int, condition: str | None, size: int, workers: int) -> None:
    """Write images.npy [n, S, S, 3] uint8, marks.npy [n, 18] px (landmarks, box, lips), attributes.json."""
    out.mkdir(parents=True, exist_ok=True)
    tasks = [(seed * 1_000_003 + i, min(_CHUNK, n - i), condition, size) for i in range(0, n, _CHUNK)]
    images = np.lib.format.open_memmap(out / "images.npy", "w+", np.uint8, (n, size, size, 3))
    marks, attributes = [], []
    with ProcessPoolExecutor(workers) as pool:
        done = 0
        for pictures, boxes, words in pool.map(_chunk, tasks):
            images[done : done + len(pictures)] = pictures
            done += len(pictures)
            marks.append(boxes)
            attributes += words
    images.flush()
    np.save(out / "marks.npy", np.concatenate(marks))
    (out / "attributes.json").write_text(json.dumps(attributes), encoding="utf-8")


def training_parser(about: str | None, *, minutes: float, batch: int, lr: float) -> argparse.ArgumentParser:
    """The options of a training on a pool, with their defaults."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=minutes)
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--lr", type=float, default=lr)
    parser.add_argument("--seed", type=int, default=0)
    return parser


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--n", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--condition", choices=["pre_op", "post_op"])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    make_pool(args.out, args.n, args.seed, args.condition, args.size, args.workers)


if __name__ == "__main__":
    main()
