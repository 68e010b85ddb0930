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

from ..diffusioncleft_core.phantom.anatomy.face import AnatomyFace, random_face
from ..diffusioncleft_core.phantom.anatomy.lips import mood
from ..diffusioncleft_core.phantom.anatomy.render import AnatomyRendering, render
from . import FINDING_OF
from .strokes import line, spot, wedge

_CHUNK = 250
_MARKED = 0.55
"""Share of healthy phantoms with a light, dark or red line, wedge or spot somewhere on the skin."""
_SHAPES = {"line": (line, 0.45), "wedge": (wedge, 0.35), "spot": (spot, 0.2)}
"""What marks there are, and how often."""
_TINTS = {"light": (1.0, 0.93, 0.90), "dark": (0.16, 0.10, 0.08), "red": (0.72, 0.26, 0.26)}


def _chunk(
    task: tuple[int, int, str | None, int],
) -> tuple[NDArray[np.uint8], NDArray[np.float32], list[dict[str, str]]]:
    import cv2

    cv2.setNumThreads(1)
    seed, n, condition, size = task
    rng = np.random.default_rng(seed)
    images, boxes, words = [], [], []
    for _ in range(n):
        face = random_face(rng, finding=FINDING_OF[condition])
        made = render(face, size)
        marked = condition is None and rng.random() < _MARKED
        image, mark = draw_mark(made, rng) if marked else (made.image, "none")
        images.append(image)
        boxes.append(np.concatenate([made.landmarks.ravel(), made.box, made.lips]))
        words.append(made.attributes | surroundings(face) | {"mark": mark})
    return np.stack(images), np.stack(boxes), words


def surroundings(face: AnatomyFace) -> dict[str, str]:
    """What else there is to see beside Table 1: the mouth, glasses, colours of cloth and background."""

    def colour(rgb: tuple[float, float, float]) -> str:
        low, high = min(rgb), max(rgb)
        if high - low < 0.08:
            return "grey"
        return ("reddish", "greenish", "bluish")[rgb.index(high)]

    held = mood(face)
    return {
        "mouth": "open" if held.open > 0.15 else "smiling" if held.smile > 0.3 else "closed",
        "glasses": "glasses" if face.glasses else "none",
        "clothing": colour(face.view.clothing),
        "background": colour(face.view.ground) if face.view.background == "plain" else face.view.background,
    }


def draw_mark(made: AnatomyRendering, rng: np.random.Generator) -> tuple[NDArray[np.uint8], str]:
    """The picture with soft lines, spots or a wedge on the skin, and what they are called.

    Lighter, darker or redder than the skin, on one side of the face or on both, anywhere but round the mouth:
    small things that a healthy face may have, so that a network can draw such things at all, and knows what
    unilateral, bilateral, left and right mean. Sides are the patient's own.
    """
    size = made.image.shape[0]
    k = size / 128
    x1, y1, x2, y2 = made.lips
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32)
    skin = made.masks.skin.copy()
    skin[int(y1) : int(np.ceil(y2)) + 1, int(x1) : int(np.ceil(x2)) + 1] = 0
    inside = (columns > made.box[0]) & (columns < made.box[2]) & (rows > made.box[1]) & (rows < made.box[3])
    middle = made.landmarks[:2].mean(0)
    along = made.landmarks[1] - made.landmarks[0]
    along /= np.linalg.norm(along)
    aside = (columns - middle[0]) * along[0] + (rows - middle[1]) * along[1]
    free = np.argwhere((skin > 0.9) & inside & (np.abs(aside) > 5 * k))
    if not len(free):
        return made.image, "none"
    kind = str(rng.choice(list(_TINTS)))
    shape = str(rng.choice(list(_SHAPES), p=[share for _, share in _SHAPES.values()]))
    draw, _ = _SHAPES[shape]
    place = free[int(rng.integers(len(free)))].astype(np.float64)
    right_of_middle = float(aside[tuple(place.astype(int))])
    both = rng.random() < 0.4
    share = np.zeros((size, size), np.float32)
    for _ in range(1 if shape == "wedge" else int(rng.integers(1, 4))):
        at = place + rng.normal(0, 5 * k, 2) * (shape != "wedge")
        share = np.maximum(share, draw(size, at, rng))
    if both:
        other = place - 2 * right_of_middle * along[::-1]
        for _ in range(1 if shape == "wedge" else int(rng.integers(1, 4))):
            at = other + rng.normal(0, 5 * k, 2) * (shape != "wedge")
            share = np.maximum(share, draw(size, at, rng))
    share = (share * skin)[..., None]
    picture = made.image.astype(np.float32)
    picture += share * (np.array(_TINTS[kind], np.float32) * 255 - picture)
    chin = float(made.landmarks[3:, 1].mean())
    brow = float(middle[1]) - 0.35 * (chin - float(middle[1]))
    where = "forehead" if place[0] < brow else "chin" if place[0] > chin else "cheek"
    side = "left" if right_of_middle > 0 else "right"
    named = (
        f"bilateral {kind} {shape} on the {where}"
        if both
        else f"unilateral {kind} {shape} of the {where} on the {side} side"
    )
    return np.clip(picture + 0.5, 0, 255).astype(np.uint8), named


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
