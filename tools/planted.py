"""Plant a known artifact on any picture of one face, a generated one too, for proving that filters find it.

Unlike `artifacts`, which knows what the renderer drew, this needs no more than the five landmarks and the
face box that a detector gives. Every plant is drawn from `rng` alone: the same generator, the same bytes.
"""

from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from .covered_eyes import blurred, pixelated

Image = NDArray[np.uint8]
Shade = NDArray[np.float64]
PlantedKind = Literal["no_face", "several_faces", "cropped_face", "eye_bar", "text", "hidden_eyes"]
PLANTED: tuple[PlantedKind, ...] = (
    "no_face",
    "several_faces",
    "cropped_face",
    "eye_bar",
    "text",
    "hidden_eyes",
)

_WORDS = (
    "CLINIC",
    "before",
    "SAMPLE",
    "Dr. Lee",
    "2019-04",
    "patient 7",
    "stock",
    "PREVIEW",
    "www.photo",
    "after",
    "DRAFT 12",
    "Copyright",
    "Case 31",
    "do not copy",
    "month 3",
    "HOSPITAL",
    "shutter",
    "No. 84",
)
_HERSHEY = (
    cv2.FONT_HERSHEY_SIMPLEX,
    cv2.FONT_HERSHEY_DUPLEX,
    cv2.FONT_HERSHEY_COMPLEX,
    cv2.FONT_HERSHEY_TRIPLEX,
    cv2.FONT_HERSHEY_COMPLEX_SMALL,
    cv2.FONT_HERSHEY_DUPLEX | cv2.FONT_ITALIC,
    cv2.FONT_HERSHEY_COMPLEX | cv2.FONT_ITALIC,
)
_LEAST_LETTER = 9
"""Smallest height of planted letters, px: below it a 128 px picture shows marks, not letters."""


def plant(
    image: Image,
    landmarks: NDArray[np.float32],
    box: NDArray[np.float32],
    kind: PlantedKind,
    rng: np.random.Generator,
    others: Sequence[Image] = (),
) -> Image:
    """`image` [H, W, 3] RGB with one artifact; the input is not changed, the size stays.

    landmarks: [5, 2] px, insightface's order; box: [4] px; others: pictures of other people, needed for
    `several_faces`. Raises ValueError for another kind.
    """
    if kind == "eye_bar":
        return _eye_bar(image, landmarks, rng)
    if kind == "hidden_eyes":
        return _hidden_eyes(image, landmarks, rng)
    if kind == "text":
        return _text(image, rng)
    if kind == "several_faces":
        return _several(image, others[int(rng.integers(len(others)))], rng)
    if kind == "cropped_face":
        return _cropped(image, box, rng)
    if kind == "no_face":
        return _no_face(image, box, rng)
    raise ValueError(f"there is no planted artifact {kind!r}; there are {', '.join(PLANTED)}")


def lettered(image: Image, opacity: float, dark: bool, rng: np.random.Generator) -> Image:
    """`image` with one level line of dark or light letters, 6.5 to 15 % of its height."""
    height, width = image.shape[:2]
    stamp = _stamp(str(rng.choice(_WORDS)), max(_LEAST_LETTER, height * rng.uniform(0.065, 0.15)), rng)
    fit = min(1.0, 0.92 * width / stamp.shape[1])
    stamp = cv2.resize(stamp, None, fx=fit, fy=fit, interpolation=cv2.INTER_AREA)
    mask = np.zeros((height, width), np.float32)
    x, y = rng.integers(0, np.maximum(1, np.subtract((width, height), stamp.shape[::-1])))
    _lay(mask, np.asarray(stamp, np.float32), int(x), int(y))
    layer = np.full_like(image, 10 if dark else 245)
    return _mix(image, layer, (opacity * mask)[..., None])


def worn_copy(image: Image, rng: np.random.Generator) -> Image:
    """A copy that is not bit for bit one: brighter or darker, softer, re-encoded, cut by up to 4 %."""
    height, width = image.shape[:2]
    margin = rng.uniform(0, 0.04, 4) * [width, height, width, height]
    target = np.array([[0, 0], [width, 0], [0, height]], np.float32)
    source = np.array(
        [[margin[0], margin[1]], [width - margin[2], margin[1]], [margin[0], height - margin[3]]], np.float32
    )
    picture = cv2.warpAffine(
        image, cv2.getAffineTransform(source, target), (width, height), flags=cv2.INTER_CUBIC
    )
    picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.2, 0.8) * max(width, height) / 128)
    bright = np.clip(picture.astype(np.float32) * rng.uniform(0.88, 1.12) + rng.uniform(-8, 8), 0, 255)
    quality = int(rng.integers(55, 95))
    coded = cv2.imencode(".jpg", bright.astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)


def _mix(image: Image, layer: Image, share: float | NDArray[np.float32]) -> Image:
    mixed = image + share * (layer.astype(np.float32) - image)
    return np.asarray(np.clip(mixed + 0.5, 0, 255), np.uint8)


def _eye_bar(image: Image, landmarks: NDArray[np.float32], rng: np.random.Generator) -> Image:
    """Mostly dark, as in clinics' archives, but of any colour that differs from the skin under the eyes."""
    left, right = landmarks[0].astype(float), landmarks[1].astype(float)
    span = right - left
    apart, tilt = float(np.linalg.norm(span)), float(np.degrees(np.arctan2(span[1], span[0])))
    size = apart * rng.uniform(1.6, 2.6), apart * rng.uniform(0.38, 0.8)
    centre = (left + right) / 2 + rng.normal(0, 0.04, 2) * apart
    corners = cv2.boxPoints(
        (
            (float(centre[0]), float(centre[1])),
            (float(size[0]), float(size[1])),
            tilt + float(rng.normal(0, 4)),
        )
    )
    skin = _mean_near(image, (left + right) / 2 + [0, 0.75 * apart], 0.2 * apart)
    layer = image.copy()
    opacity = float(rng.uniform(0.75, 1.0))
    shade = _bar_shade(rng)
    while np.linalg.norm(opacity * (shade - skin)) < 60:
        shade = _bar_shade(rng)
    cv2.fillPoly(
        layer, [np.round(corners * 16).astype(np.int32)], tuple(float(c) for c in shade), cv2.LINE_AA, 4
    )
    return _mix(image, layer, opacity)


def _hidden_eyes(image: Image, landmarks: NDArray[np.float32], rng: np.random.Generator) -> Image:
    """A mosaic or a blur over the eyes, strong enough to hide them."""
    if rng.random() < 0.5:
        return pixelated(image, landmarks, int(rng.choice([4, 5, 6, 8])), rng)
    return blurred(image, landmarks, float(rng.uniform(0.12, 0.3)), rng)


def _bar_shade(rng: np.random.Generator) -> Shade:
    draw = rng.random()
    if draw < 0.55:
        return np.clip(rng.uniform(0, 45) + rng.normal(0, 4, 3), 0, 255)
    if draw < 0.7:
        return np.clip(rng.uniform(215, 255) + rng.normal(0, 4, 3), 0, 255)
    return rng.uniform(0, 255, 3)


def _text(image: Image, rng: np.random.Generator) -> Image:
    """A line of letters, or the same line repeated over the picture as a watermark."""
    height, width = image.shape[:2]
    words = str(rng.choice(_WORDS))
    letter = max(_LEAST_LETTER, height * rng.uniform(0.065, 0.15))
    stamp = _stamp(words, letter, rng)
    if stamp.shape[1] > 0.92 * width:
        stamp = cv2.resize(
            stamp, None, fx=0.92 * width / stamp.shape[1], fy=0.92 * width / stamp.shape[1],
            interpolation=cv2.INTER_AREA,
        )  # fmt: skip
    stamp = _turned(stamp, float(rng.normal(0, 9)) if rng.random() < 0.6 else 0.0)
    mask = np.zeros((height, width), np.float32)
    if rng.random() < 0.15:
        step = stamp.shape[0] * 2.2
        for row in np.arange(rng.uniform(0, step), height, step):
            _lay(mask, stamp, int(rng.integers(-stamp.shape[1] // 3, width // 2)), int(row))
    else:
        x = int(rng.integers(0, max(1, width - stamp.shape[1])))
        y = int(rng.integers(0, max(1, height - stamp.shape[0])))
        _lay(mask, stamp, x, y)
    behind = image[mask > 0.5].mean(0) if (mask > 0.5).any() else image.mean((0, 1))
    shade = _text_shade(rng)
    opacity = float(rng.uniform(0.65, 1.0))
    while np.linalg.norm(opacity * (shade - behind)) < 90:
        shade = _text_shade(rng)
    layer = np.broadcast_to(shade, image.shape).astype(np.uint8)
    return _mix(image, layer, (opacity * mask)[..., None])


def _text_shade(rng: np.random.Generator) -> Shade:
    draw = rng.random()
    if draw < 0.5:
        return rng.uniform(215, 255, 3)
    return rng.uniform(0, 50, 3) if draw < 0.8 else rng.uniform(0, 255, 3)


def _stamp(words: str, letter: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Coverage [h, w], 0 to 1, of `words` with capitals of about `letter` px."""
    large = 4.0  # drawn four times as large and reduced, so that thin strokes stay thin
    if rng.random() < 0.3:
        from PIL import Image as Pillow
        from PIL import ImageDraw, ImageFont

        font = ImageFont.load_default(size=large * letter / 0.72)
        x0, y0, x1, y1 = font.getbbox(words)
        drawn = Pillow.new("L", (int(x1 - x0) + 8, int(y1 - y0) + 8))
        ImageDraw.Draw(drawn).text((4 - x0, 4 - y0), words, fill=255, font=font)
        stamp = np.asarray(drawn, np.float32) / 255
    else:
        font_face = int(rng.choice(_HERSHEY))
        (_, tall), _ = cv2.getTextSize("H", font_face, 1.0, 1)
        scale = large * letter / tall
        thickness = max(1, round(large * letter / 9 * rng.uniform(0.8, 1.5)))
        (wide, high), below = cv2.getTextSize(words, font_face, scale, thickness)
        canvas = np.zeros((high + below + 2 * thickness, wide + 2 * thickness), np.uint8)
        cv2.putText(
            canvas, words, (thickness, high + thickness), font_face, scale, 255, thickness, cv2.LINE_AA
        )
        stamp = canvas.astype(np.float32) / 255
    reduced = cv2.resize(stamp, None, fx=1 / large, fy=1 / large, interpolation=cv2.INTER_AREA)
    return np.asarray(reduced, np.float32)


def _turned(stamp: NDArray[np.float32], angle: float) -> NDArray[np.float32]:
    if not angle:
        return stamp
    height, width = stamp.shape
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0)
    c, s = abs(turn[0, 0]), abs(turn[0, 1])
    size = int(height * s + width * c) + 2, int(height * c + width * s) + 2
    turn[:, 2] += [(size[0] - width) / 2, (size[1] - height) / 2]
    return np.asarray(cv2.warpAffine(stamp, turn, size), np.float32)


def _lay(mask: NDArray[np.float32], stamp: NDArray[np.float32], x: int, y: int) -> None:
    """Lay `stamp` on `mask` with its corner at (x, y), in place; what lies outside is cut off."""
    height, width = mask.shape
    x0, y0 = max(x, 0), max(y, 0)
    x1, y1 = min(x + stamp.shape[1], width), min(y + stamp.shape[0], height)
    if x0 < x1 and y0 < y1:
        part = stamp[y0 - y : y1 - y, x0 - x : x1 - x]
        mask[y0:y1, x0:x1] = np.maximum(mask[y0:y1, x0:x1], part)


def _several(image: Image, other: Image, rng: np.random.Generator) -> Image:
    """A second person: in an inset, beside the first (“before and after”), or both small on one ground."""
    height, width = image.shape[:2]
    other = np.asarray(cv2.resize(other, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    if rng.random() < 0.5:
        other = np.ascontiguousarray(other[:, ::-1])
    draw = rng.random()
    if draw < 0.5:
        return _inset(image, other, rng)
    if draw < 0.8:  # the middle of each, side by side or one above the other
        share = rng.uniform(0.66, 0.8)
        cut = int(width * (1 - share) / 2)
        halves = [
            cv2.resize(item[:, cut : width - cut], (width // 2, height), interpolation=cv2.INTER_AREA)
            for item in (image, other)
        ]
        both = np.concatenate(halves, 1)
        return np.asarray(cv2.resize(both, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    ground = np.clip(rng.uniform(60, 235) + rng.normal(0, 12, 3), 0, 255)
    canvas = np.broadcast_to(ground, image.shape).astype(np.uint8).copy()
    for slot, item in enumerate((image, other)):
        side = int(min(width, height) * rng.uniform(0.4, 0.5))
        small = cv2.resize(item, (side, side), interpolation=cv2.INTER_AREA)
        x = slot * (width // 2) + int(rng.integers(0, max(1, width // 2 - side + 1)))
        y = int(rng.integers(0, height - side + 1))
        canvas[y : y + side, x : x + side] = small[:, : width - x]
    return canvas


def _inset(image: Image, other: Image, rng: np.random.Generator) -> Image:
    height, width = image.shape[:2]
    side = int(min(width, height) * rng.uniform(0.32, 0.52))
    small = cv2.resize(other, (side, side), interpolation=cv2.INTER_AREA)
    x = int(rng.choice([0, width - side]))
    y = int(rng.choice([0, height - side, int(rng.integers(0, height - side))], p=[0.4, 0.4, 0.2]))
    picture = image.copy()
    part = picture[y : y + side, x : x + side]
    if rng.random() < 0.3:  # an oval with a soft edge, as two people in one photograph blend
        mask = np.zeros((side, side), np.float32)
        middle = (side // 2, side // 2)
        cv2.ellipse(mask, middle, (int(side * 0.44), int(side * 0.49)), 0, 0, 360, 1.0, -1)
        mask = cv2.GaussianBlur(mask, (0, 0), side / 40)
        part[:] = _mix(part, np.asarray(small, np.uint8), mask[..., None])
        return picture
    part[:] = small
    if rng.random() < 0.4:
        edge = max(1, round(side / 40))
        shade = float(rng.choice([0.0, 255.0]))
        cv2.rectangle(picture, (x, y), (x + side - 1, y + side - 1), (shade, shade, shade), edge)
    return picture


def _cropped(image: Image, box: NDArray[np.float32], rng: np.random.Generator) -> Image:
    """A closer view from which 25 to 50 % of the face are cut off at one side of the frame."""
    height, width = image.shape[:2]
    x0, y0, x1, y1 = (float(value) for value in box)
    share, zoom = rng.uniform(0.25, 0.5), rng.uniform(1.0, 1.35)
    view_width, view_height = width / zoom, height / zoom
    middle_x = (x0 + x1) / 2 - view_width / 2 + rng.normal(0, 0.03) * width
    middle_y = (y0 + y1) / 2 - view_height / 2 + rng.normal(0, 0.03) * height
    left, top = {
        "left": (x0 + share * (x1 - x0), middle_y),
        "right": (x1 - share * (x1 - x0) - view_width, middle_y),
        "top": (middle_x, y0 + share * (y1 - y0)),
        "bottom": (middle_x, y1 - share * (y1 - y0) - view_height),
    }[str(rng.choice(["left", "right", "top", "bottom"]))]
    source = np.array([[left, top], [left + view_width, top], [left, top + view_height]], np.float32)
    target = np.array([[0, 0], [width, 0], [0, height]], np.float32)
    move = cv2.getAffineTransform(source, target)
    border = cv2.BORDER_REPLICATE if rng.random() < 0.7 else cv2.BORDER_REFLECT
    return np.asarray(
        cv2.warpAffine(image, move, (width, height), flags=cv2.INTER_LINEAR, borderMode=border), np.uint8
    )


def _no_face(image: Image, box: NDArray[np.float32], rng: np.random.Generator) -> Image:
    """The face wiped out, blurred beyond recognition, or a picture of something else."""
    height, width = image.shape[:2]
    draw = rng.random()
    if draw < 0.35:
        from .faces_pictures import background

        return np.asarray(cv2.resize(background(max(height, width), rng), (width, height)), np.uint8)
    if draw < 0.55:  # a corner: hair, clothing, background
        part = int(min(height, width) * rng.uniform(0.1, 0.22))
        x = int(rng.choice([0, width - part]))
        y = int(rng.choice([0, height - part]))
        return np.asarray(cv2.resize(image[y : y + part, x : x + part], (width, height)), np.uint8)
    if draw < 0.75:  # tiles in another order
        tiles = int(rng.integers(4, 7))
        rows, columns = height // tiles, width // tiles
        pieces = [
            image[r * rows : (r + 1) * rows, c * columns : (c + 1) * columns]
            for r in range(tiles)
            for c in range(tiles)
        ]
        order = rng.permutation(len(pieces))
        lines = [np.concatenate([pieces[i] for i in order[r::tiles]], 1) for r in range(tiles)]
        return np.asarray(cv2.resize(np.concatenate(lines), (width, height)), np.uint8)
    mask = np.zeros((height, width), np.float32)
    centre = int((box[0] + box[2]) / 2), int((box[1] + box[3]) / 2)
    axes = int(0.55 * (box[2] - box[0])), int(0.58 * (box[3] - box[1]))
    cv2.ellipse(mask, centre, axes, 0, 0, 360, 1.0, -1, cv2.LINE_AA)
    shade = rng.uniform(0, 255, 3)
    layer = np.broadcast_to(shade, image.shape).astype(np.float32) + rng.normal(
        0, rng.uniform(0, 25), image.shape
    )
    return _mix(image, np.clip(layer, 0, 255).astype(np.uint8), mask[..., None])


def _mean_near(image: Image, point: NDArray[np.float64], reach: float) -> Shade:
    height, width = image.shape[:2]
    x, y = np.clip(point, [0, 0], [width - 1, height - 1])
    x0, x1 = int(max(x - reach, 0)), int(min(x + reach, width)) + 1
    y0, y1 = int(max(y - reach, 0)), int(min(y + reach, height)) + 1
    return np.asarray(image[y0:y1, x0:x1].reshape(-1, 3).mean(0), np.float64)
