"""A face in; its photograph and what is in it out."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .anatomy.camera import developed
from .anatomy.field import Array, Window, wide
from .anatomy.glasses import wear_glasses
from .anatomy.measures import Measures, measures
from .anatomy.pose import Camera3D, camera, cast, facing
from .anatomy.scene import backdrop, body, ear, hair_behind
from .anatomy.skin import base_colour
from .anatomy.surface import Head, head
from .anatomy.truth import face_box, five, landmarks68, lip_box, pupils
from .face import PhantomFace


@dataclass(frozen=True)
class Masks:
    """Where things are in the picture, [S, S] float32 each, 0 to 1."""

    skin: NDArray[np.float32]
    """Skin of the face and neck, without lips, eyes and hair."""
    lip: NDArray[np.float32]
    """The vermilion of both lips."""
    cleft: NDArray[np.float32]
    """The gap: gum, palate and depth that show between the lip's segments."""
    scar: NDArray[np.float32]


@dataclass(frozen=True)
class Rendering:
    """A picture with its ground truth; pixel coordinates have their origin at the top left."""

    image: NDArray[np.uint8]
    """[S, S, 3] RGB."""
    landmarks: NDArray[np.float32]
    """[5, 2] px, insightface's order: eyes, nose tip, mouth corners; image-left first."""
    landmarks68: NDArray[np.float32]
    """[68, 2] px, iBUG's order."""
    box: NDArray[np.float32]
    """[4] px, x1 y1 x2 y2: from the hairline to the chin, cheek to cheek."""
    lips: NDArray[np.float32]
    """[4] px, x1 y1 x2 y2: from the nose's base to below the lower lip."""
    lip_contour: NDArray[np.float32]
    """[12, 2] px: the vermilion's outer border, iBUG's points 48 to 59."""
    masks: Masks
    pose: tuple[float, float, float]
    """Yaw, pitch, roll in degrees."""
    attributes: dict[str, str]
    finding: str | None


def oversampling(size: int) -> float:
    """How many points a pixel the picture is computed with, each way."""
    return 1.25 if size <= 512 else 1.0


def render(face: PhantomFace, size: int = 128) -> Rendering:
    """Photograph `face` at `size` px (64 to 1024). The same face always gives the same bytes.

    Raises:
        ValueError: the size is outside that range, or the face has a word the renderer can't draw.
    """
    if not 64 <= size <= 1024:
        raise ValueError(f"phantom size {size} px is outside 64 to 1024")
    m = measures(face.attributes["subject"], face.identity)
    fine = round(size * oversampling(size))
    cam = camera(face.view, m, fine)
    bottom = float((fine - cam.offset[1]) / cam.scale + cam.pivot[1])
    made = head(face, m, cam.scale, bottom)
    light, cover, columns, rows = _composed(face, m, made, cam, fine)
    light = wear_glasses(light, face, m, made, cam) if face.glasses else light
    image = developed(light, size, face.view.camera, face.seed)
    small = cam.resized(size / fine)
    points = landmarks68(face, m, made, small)
    return Rendering(
        image=image,
        landmarks=five(points, pupils(m, made, small)),
        landmarks68=points,
        box=face_box(m, made, small, points),
        lips=lip_box(points, size),
        lip_contour=points[48:60].copy(),
        masks=_masks(made, cover, columns, rows, size),
        pose=(face.view.yaw, face.view.pitch, face.view.roll),
        attributes=dict(face.attributes),
        finding=face.finding,
    )


def _lay(under: Array, layer: Array, cover: Array, window: Window | None = None) -> None:
    here = under if window is None else under[window]
    change = layer - here
    change *= wide(np.asarray(cover, np.float32))
    here += change


def _composed(
    face: PhantomFace, m: Measures, made: Head, cam: Camera3D, size: int
) -> tuple[Array, Array, Array, Array]:
    """Linear RGB [size, size, 3], the neck's skin, and where each pixel lies on the head's plane."""
    skin = base_colour(face)
    picture = backdrop(face, size).astype(np.float32)
    behind = hair_behind(face, m, cam, size)
    if behind:
        _lay(picture, *behind)
    rgb, cover, low, window = body(face, m, cam, size, skin, made.drop)
    _lay(picture, rgb, cover, window)
    bare = np.zeros((size, size), np.float32)
    bare[window] = low
    for side in (-1, 1):
        one = ear(face, m, cam, size, skin, side)
        if one:
            _lay(picture, *one)
    columns, rows, _ = cast(made.plane, made.height, cam, size)
    seen = cv2.remap(
        cv2.merge([made.light, made.cover]), columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT
    )
    _lay(picture, seen[..., :3], np.clip(seen[..., 3], 0, 1) * facing(columns, rows))
    return picture, bare, columns, rows


def _masks(made: Head, neck: Array, columns: Array, rows: Array, size: int) -> Masks:
    shape = made.plane.shape
    lip, gap, scar = (np.zeros(shape, np.float32) for _ in range(3))
    w = made.mouth.window
    lip[w], gap[w], scar[w] = made.mouth.vermilion, made.mouth.gap, made.mouth.scar
    shown = 1 - made.worn.cover
    stack = cv2.merge([made.skin, lip * shown, gap * shown, scar * shown])
    seen = cv2.remap(stack, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    covered = cv2.remap(made.cover, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    seen[..., 0] = np.maximum(seen[..., 0], neck * (1 - covered))
    small = cv2.resize(seen, (size, size), interpolation=cv2.INTER_AREA)
    parts = [np.ascontiguousarray(np.clip(small[..., i], 0, 1)) for i in range(4)]
    return Masks(*parts)
