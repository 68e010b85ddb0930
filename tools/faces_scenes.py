"""Training scenes for the detector: none, one or two phantoms in a square frame."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .faces_pictures import Image, Library, background, cover_eyes, wear, write_text

MOST_FACES = 2


@dataclass(frozen=True)
class Scene:
    """A frame and the faces in it."""

    image: Image
    """[S, S, 3] RGB."""
    boxes: NDArray[np.float32]
    """[2, 4] px; zero where there is no face."""
    landmarks: NDArray[np.float32]
    """[2, 5, 2] px."""
    present: NDArray[np.float32]
    """[2]: 1 a face, 0 none, -1 a face too much cut off to count either way."""


def compose(library: Library, size: int, rng: np.random.Generator) -> Scene:
    """Draw a scene of `size` px: 22 % empty, 50 % one frame-filling face, 19 % a small one, 9 % two faces."""
    boxes = np.zeros((MOST_FACES, 4), np.float32)
    landmarks = np.zeros((MOST_FACES, 5, 2), np.float32)
    present = np.zeros(MOST_FACES, np.float32)
    kind = rng.random()
    if kind < 0.22:
        frame = _without_face(library, size, rng)
    elif kind < 0.72:
        frame, boxes[0], landmarks[0] = _filling(library, size, rng)
        present[0] = 1
        if rng.random() < 0.1:  # another face over a corner
            side = size * rng.uniform(0.33, 0.55)
            place = rng.choice([0.0, size - side]), rng.choice([0.0, size - side])
            boxes[1], landmarks[1] = _paste(frame, library, place, side, rng)
            present[1] = 1
    else:
        frame = background(size, rng)
        two = kind >= 0.91
        for slot in range(2 if two else 1):
            side = size * (rng.uniform(0.28, 0.5) if two else rng.uniform(0.2, 0.95))
            low = slot * size / 2 if two else 0.0
            x = low + rng.uniform(0, (size / 2 if two else size) - side)
            y = rng.uniform(0, size - side)
            boxes[slot], landmarks[slot] = _paste(frame, library, (x, y), side, rng)
            present[slot] = 1
    for slot in range(MOST_FACES):
        if present[slot] and rng.random() < 0.05:
            cover_eyes(frame, landmarks[slot], rng)
    if rng.random() < 0.08:
        write_text(frame, rng)
    frame = wear(frame, rng)
    if rng.random() < 0.12:  # insightface fills what a long image leaves of the square with black
        keep = int(size * rng.uniform(0.6, 0.95))
        if rng.random() < 0.5:
            frame[keep:] = 0
            edge = np.array([0, 0, size, keep], np.float32)
        else:
            frame[:, keep:] = 0
            edge = np.array([0, 0, keep, size], np.float32)
    else:
        edge = np.array([0, 0, size, size], np.float32)
    for slot in range(MOST_FACES):
        if present[slot]:
            inside = _share_inside(boxes[slot], edge)
            present[slot] = 1 if inside > 0.72 else -1 if inside > 0.2 else 0
    return Scene(frame, boxes, landmarks, present)


def _filling(
    library: Library, size: int, rng: np.random.Generator
) -> tuple[Image, NDArray[np.float32], NDArray[np.float32]]:
    """A picture as the demo makes them: the whole rendering, turned, zoomed and shifted a little."""
    row = int(rng.integers(len(library.images)))
    source = library.images.shape[1]
    zoom = size / source * float(np.exp(rng.normal(0, 0.16)))
    angle = np.radians(rng.normal(0, 9))
    c, s = zoom * np.cos(angle), zoom * np.sin(angle)
    middle = np.array([source / 2, source / 2])
    turn = np.array([[c, -s], [s, c]])
    shift = np.array([size / 2, size / 2]) - turn @ middle + rng.normal(0, 0.05 * size, 2)
    if rng.random() < 0.5:
        frame = np.full((size, size, 3), rng.integers(0, 256, 3), np.uint8)
    else:
        frame = background(size, rng)
    border = cv2.BORDER_REPLICATE if rng.random() < 0.6 else cv2.BORDER_TRANSPARENT
    _warp(library.images[row], turn, shift, frame, border)
    return frame, *_moved(library, row, turn, shift)


def _paste(
    frame: Image, library: Library, place: tuple[float, float], side: float, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Put a picture of `side` px on `frame` with its corner at `place`; mirrored half of the time."""
    row = int(rng.integers(len(library.images)))
    zoom = side / library.images.shape[1]
    turn = np.array([[zoom, 0.0], [0.0, zoom]])
    _warp(library.images[row], turn, np.array(place), frame, cv2.BORDER_TRANSPARENT)
    return _moved(library, row, turn, np.array(place))


def _warp(
    source: Image, turn: NDArray[np.float64], shift: NDArray[np.float64], frame: Image, border: int
) -> None:
    zoom = float(np.hypot(turn[0, 0], turn[1, 0]))
    if zoom < 0.7:  # shrink without aliasing first
        smaller = cv2.resize(source, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
        turn, source = turn * (source.shape[1] / smaller.shape[1]), smaller.astype(np.uint8)
    # warpAffine counts from pixel centres, the landmarks from pixel corners
    offset = turn @ np.array([0.5, 0.5]) + shift - 0.5
    affine = np.concatenate([turn, offset[:, None]], axis=1)
    cv2.warpAffine(source, affine, (frame.shape[1], frame.shape[0]), frame, cv2.INTER_LINEAR, border)


def _moved(
    library: Library, row: int, turn: NDArray[np.float64], shift: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    x0, y0, x1, y1 = library.boxes[row]
    centre = turn @ np.array([(x0 + x1) / 2, (y0 + y1) / 2]) + shift
    half = np.hypot(turn[0, 0], turn[1, 0]) * np.array([x1 - x0, y1 - y0]) / 2
    box = np.concatenate([centre - half, centre + half]).astype(np.float32)
    return box, (library.landmarks[row] @ turn.T + shift).astype(np.float32)


def _without_face(library: Library, size: int, rng: np.random.Generator) -> Image:
    kind = rng.random()
    if kind < 0.55:
        return background(size, rng)
    source = library.images[int(rng.integers(len(library.images)))]
    side = source.shape[0]
    if kind < 0.75:  # a face cut into tiles and shuffled
        tiles = int(rng.integers(3, 7))
        edge = side // tiles
        pieces = [
            source[r * edge : (r + 1) * edge, c * edge : (c + 1) * edge]
            for r in range(tiles)
            for c in range(tiles)
        ]
        order = rng.permutation(len(pieces))
        rows = [
            np.concatenate([pieces[i] for i in order[r * tiles : (r + 1) * tiles]], 1) for r in range(tiles)
        ]
        return np.asarray(cv2.resize(np.concatenate(rows), (size, size)), np.uint8)
    part = int(side * rng.uniform(0.08, 0.22))  # a corner: hair, background, clothing
    x = int(rng.choice([0, side - part]))
    y = int(rng.integers(0, side - part))
    return np.asarray(cv2.resize(source[y : y + part, x : x + part], (size, size)), np.uint8)


def _share_inside(box: NDArray[np.float32], edge: NDArray[np.float32]) -> float:
    low, high = np.maximum(box[:2], edge[:2]), np.minimum(box[2:], edge[2:])
    area = np.prod(np.maximum(high - low, 0))
    return float(area / max(float(np.prod(box[2:] - box[:2])), 1e-6))
