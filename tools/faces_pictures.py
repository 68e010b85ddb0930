"""Raw material for the face models: a library of renderings, backgrounds, and the wear of real pictures."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from ..diffusioncleft_core.phantom.face import (
    CLOSE,
    HEALTHY,
    WHOLE_HEAD,
    PhantomFace,
    random_face,
    random_identity,
)
from ..diffusioncleft_core.phantom.render import render
from ..diffusioncleft_core.progress import progress
from . import CONDITION_OF, FINDING_OF

Image = NDArray[np.uint8]
CONDITIONS = (None, "pre_op", "post_op")
CHILDREN = HEALTHY["subject"][:4]


@dataclass(frozen=True)
class Library:
    """Rendered faces with their truth. N pictures of S pixels a side."""

    images: Image
    """[N, S, S, 3] RGB."""
    landmarks: NDArray[np.float32]
    """[N, 5, 2] px."""
    boxes: NDArray[np.float32]
    """[N, 4] px, x0 y0 x1 y1."""
    people: NDArray[np.int64]
    """[N] number of the person."""
    identities: NDArray[np.float32]
    """[P, 40] identity vector of each person."""
    attributes: list[dict[str, str]]
    """[N] attributes of each picture."""
    conditions: list[str]
    """[N] healthy, pre_op or post_op."""


def render_library(people: int, views: int, size: int, seed: int) -> Library:
    """Render `views` pictures of each person: conditions in turn, other pose, light, place and hair length.

    A person keeps subject, skin, eyes, hair colour and texture. Adults are never drawn with an open cleft.
    """
    rng = np.random.default_rng(seed)
    total = people * views
    images = np.empty((total, size, size, 3), np.uint8)
    landmarks = np.empty((total, 5, 2), np.float32)
    boxes = np.empty((total, 4), np.float32)
    identities = np.empty((people, 40), np.float32)
    attributes: list[dict[str, str]] = []
    conditions: list[str] = []
    for person in progress(range(people), "rendering faces", unit="person"):
        face = random_face(rng, identity=random_identity(rng))
        identities[person] = face.identity
        for view in range(views):
            picture = render(_another(face, rng, view + person), size)
            row = person * views + view
            images[row], landmarks[row], boxes[row] = picture.image, picture.landmarks, picture.box
            attributes.append(picture.attributes)
            conditions.append(CONDITION_OF[picture.finding] or "healthy")
    numbers = np.repeat(np.arange(people), views)
    return Library(images, landmarks, boxes, numbers, identities, attributes, conditions)


def _another(face: PhantomFace, rng: np.random.Generator, turn: int) -> PhantomFace:
    condition = CONDITIONS[turn % 3]
    if condition == "pre_op" and face.attributes["subject"] not in CHILDREN:
        condition = "post_op"
    kept = {key: face.attributes[key] for key in HEALTHY}
    if rng.random() < 0.3:
        kept["hair_length"] = str(rng.choice(HEALTHY["hair_length"]))
    seen = random_face(rng, finding=FINDING_OF[condition], attributes=kept, identity=face.identity)
    if rng.random() < 0.3:  # from further away
        seen = replace(seen, view=replace(seen.view, frame=float(rng.uniform(CLOSE, WHOLE_HEAD))))
    return seen


def wear(image: Image, rng: np.random.Generator, strength: float = 1.0) -> Image:
    """What pictures go through: exposure, colour cast, loss of resolution, blur, noise, JPEG. Same shape."""
    picture = image
    size = picture.shape[1], picture.shape[0]
    if rng.random() < 0.5 * strength:
        share = rng.uniform(0.35, 0.9)
        small = (max(8, int(size[0] * share)), max(8, int(size[1] * share)))
        how = int(rng.choice([cv2.INTER_LINEAR, cv2.INTER_CUBIC]))
        picture = cv2.resize(
            cv2.resize(picture, small, interpolation=cv2.INTER_AREA), size, interpolation=how
        )
    if rng.random() < 0.4 * strength:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.3, 1.4) * max(size) / 128)
    wide = picture.astype(np.float32)
    if rng.random() < 0.6 * strength:
        wide = (wide - 128) * rng.uniform(0.75, 1.25) + 128 + rng.uniform(-28, 28)
        wide += rng.uniform(-12, 12, 3).astype(np.float32)
    if rng.random() < 0.3 * strength:  # blotches of colour, as an autoencoder leaves them
        coarse = rng.normal(0, rng.uniform(2, 10), (max(2, size[1] // 8), max(2, size[0] // 8), 3))
        wide += cv2.resize(coarse.astype(np.float32), size, interpolation=cv2.INTER_CUBIC)
    if rng.random() < 0.4 * strength:
        wide += rng.normal(0, rng.uniform(1, 9), wide.shape).astype(np.float32)
    picture = np.clip(wide, 0, 255).astype(np.uint8)
    if rng.random() < 0.4 * strength:
        quality = int(rng.integers(25, 95))
        coded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        picture = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)
    return picture


def background(size: int, rng: np.random.Generator) -> Image:
    """A picture [size, size, 3] without a face: plain, graded or mottled, with shapes and writing on some."""
    colour = rng.uniform(0, 255, 3)
    canvas = np.broadcast_to(colour, (size, size, 3)).astype(np.float32)
    if rng.random() < 0.6:
        ramp = np.linspace(-1, 1, size, dtype=np.float32)
        slope = ramp[:, None, None] * rng.uniform(-60, 60) + ramp[None, :, None] * rng.uniform(-60, 60)
        canvas = canvas + slope
    if rng.random() < 0.5:
        cells = int(rng.integers(3, 40))
        mottle = rng.normal(0, rng.uniform(4, 50), (cells, cells, 3)).astype(np.float32)
        canvas = canvas + cv2.resize(mottle, (size, size), interpolation=cv2.INTER_CUBIC)
    picture = np.ascontiguousarray(np.clip(canvas, 0, 255), dtype=np.uint8)
    for _ in range(int(rng.integers(0, 14)) if rng.random() < 0.6 else 0):
        _draw_shape(picture, rng)
    if rng.random() < 0.15:
        write_text(picture, rng)
    return picture


def _draw_shape(picture: Image, rng: np.random.Generator) -> None:
    size = picture.shape[0]
    shade = tuple(int(value) for value in rng.integers(0, 256, 3))
    x, y = (int(value) for value in rng.integers(0, size, 2))
    kind = rng.integers(4)
    thickness = -1 if rng.random() < 0.6 else int(rng.integers(1, 6))
    if kind == 0:
        axes = (int(rng.integers(2, size // 2)), int(rng.integers(2, size // 2)))
        cv2.ellipse(picture, (x, y), axes, float(rng.uniform(0, 180)), 0, 360, shade, thickness, cv2.LINE_AA)
    elif kind == 1:
        corner = (x + int(rng.integers(2, size)), y + int(rng.integers(2, size)))
        cv2.rectangle(picture, (x, y), corner, shade, thickness)
    elif kind == 2:
        end = tuple(int(value) for value in rng.integers(0, size, 2))
        cv2.line(picture, (x, y), (end[0], end[1]), shade, int(rng.integers(1, 8)), cv2.LINE_AA)
    else:  # a pair of discs, which no detector should take for eyes
        radius, apart = int(rng.integers(2, max(3, size // 10))), int(rng.integers(6, max(7, size // 2)))
        cv2.circle(picture, (x, y), radius, shade, -1, cv2.LINE_AA)
        cv2.circle(picture, (x + apart, y), radius, shade, -1, cv2.LINE_AA)


def write_text(picture: Image, rng: np.random.Generator) -> None:
    """Write a random line of characters somewhere on `picture`, in place."""
    size = picture.shape[0]
    letters = "".join(chr(int(code)) for code in rng.integers(48, 91, int(rng.integers(3, 12))))
    shade = tuple(int(value) for value in rng.integers(0, 256, 3))
    place = int(rng.integers(-size // 8, size // 2)), int(rng.integers(size // 8, size))
    scale = float(rng.uniform(0.3, 1.0)) * size / 160
    cv2.putText(
        picture, letters, place, cv2.FONT_HERSHEY_SIMPLEX, scale, shade, int(rng.integers(1, 3)), cv2.LINE_AA
    )


def cover_eyes(picture: Image, landmarks: NDArray[np.float32], rng: np.random.Generator) -> None:
    """Draw a dark bar over both eyes, in place. landmarks: [5, 2] px."""
    left, right = landmarks[0], landmarks[1]
    reach = (right - left) * rng.uniform(0.35, 0.6)
    start, end = left - reach, right + reach
    thickness = max(1, int(np.linalg.norm(right - left) * rng.uniform(0.25, 0.5)))
    shade = int(rng.integers(0, 50))
    cv2.line(picture, _pixel(start), _pixel(end), (shade, shade, shade), thickness)


def _pixel(point: Sequence[float] | NDArray[np.float32]) -> tuple[int, int]:
    return round(float(point[0])), round(float(point[1]))
