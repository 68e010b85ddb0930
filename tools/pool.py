"""A pool of rendered phantoms on disk, so that a training does not wait for the renderer.

python -m diffusioncleft.tools.pool --out POOL --n 20000 --seed 1
"""

import argparse
import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..diffusioncleft_core.phantom.anatomy.lips import mood
from ..diffusioncleft_core.phantom.face import PhantomFace, random_face
from ..diffusioncleft_core.phantom.render import Rendering, render
from . import FINDING_OF
from .strokes import Share, line, spot, wedge

Draw = Callable[[int, NDArray[np.float64], np.random.Generator], Share]

_CHUNK = 250
_MARKED = 0.55
"""Share of healthy phantoms with a light, dark or red line, wedge or spot somewhere on the skin."""
_SHAPES: Mapping[str, tuple[Draw, float]] = {
    "line": (partial(line, upright=True), 0.45),
    "wedge": (wedge, 0.35),
    "spot": (spot, 0.2),
}
"""What marks there are, and how often."""
SITES = {"cheek": (0.62, 0.62), "forehead": (0.40, -0.55), "chin": (0.36, 1.42)}
"""Where they lie: from the middle between the eyes, in distances of the eyes across and of the mouth down.

Each has its place, as a cleft has: of marks that may lie anywhere four steps draw the mean, nothing.
"""
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


def surroundings(face: PhantomFace) -> dict[str, str]:
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


def draw_mark(made: Rendering, rng: np.random.Generator) -> tuple[NDArray[np.uint8], str]:
    """The picture with a soft line, spot or wedge on the skin, or one on each side, and what it is called.

    Lighter, darker or redder than the skin, never round the mouth: small things that a healthy face may have,
    so that a network can draw such things at all, and knows what unilateral, bilateral, left and right mean.
    Sides are the patient's own.
    """
    size = made.image.shape[0]
    kind = str(rng.choice(list(_TINTS)))
    shape = str(rng.choice(list(_SHAPES), p=[share for _, share in _SHAPES.values()]))
    where = str(rng.choice(list(SITES)))
    side = str(rng.choice(["left", "right", "both"], p=[0.3, 0.3, 0.4]))
    draw, _ = _SHAPES[shape]
    share = np.zeros((size, size), np.float32)
    for away in {"left": (1,), "right": (-1,), "both": (-1, 1)}[side]:
        at = site(made.landmarks, where, away) + rng.normal(0, size / 128, 2)
        row, column = at.astype(int)
        if not (0 <= row < size and 0 <= column < size and made.masks.skin[row, column] > 0.9):
            return made.image, "none"  # under hair, or turned away
        share = np.maximum(share, draw(size, at, rng))
    x1, y1, x2, y2 = made.lips
    skin = made.masks.skin.copy()
    skin[int(y1) : int(np.ceil(y2)) + 1, int(x1) : int(np.ceil(x2)) + 1] = 0
    share = (share * skin)[..., None]
    picture = made.image.astype(np.float32)
    picture += share * (np.array(_TINTS[kind], np.float32) * 255 - picture)
    named = (
        f"bilateral {kind} {shape} on the {where}"
        if side == "both"
        else f"unilateral {kind} {shape} of the {where} on the {side} side"
    )
    return np.clip(picture + 0.5, 0, 255).astype(np.uint8), named


def site(landmarks: NDArray[np.floating], where: str, away: int) -> NDArray[np.float64]:
    """Row and column of a place of the face with these five landmarks [5, 2].

    away: 1 to the picture's right, the patient's left, or -1.
    """
    middle, mouth = landmarks[:2].mean(0), landmarks[3:].mean(0)
    across, down = SITES[where]
    point = middle + away * across * (landmarks[1] - landmarks[0]) + down * (mouth - middle)
    return np.asarray(point[::-1], np.float64)


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
