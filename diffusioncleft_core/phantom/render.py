"""Draw a phantom face and say what is in the picture."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .canvas import Canvas, Geometry, Points, geometry
from .face import SKIN, PhantomFace
from .head import draw_behind, draw_eyes, draw_fringe, draw_head, head_outline
from .lip import draw_mouth, draw_nose


@dataclass(frozen=True)
class Rendering:
    """A picture with its ground truth; pixel coordinates have their origin at the top left."""

    image: NDArray[np.uint8]
    """[S, S, 3] RGB."""
    landmarks: NDArray[np.float32]
    """[5, 2] px, insightface's order: eyes, nose tip, mouth corners; image-left first."""
    box: NDArray[np.float32]
    """[4] px, x1 y1 x2 y2: head from hairline to chin, cheek to cheek."""
    lips: NDArray[np.float32]
    """[4] px, x1 y1 x2 y2: from the nose base to below the lower lip."""
    attributes: dict[str, str]
    finding: str | None


def render(face: PhantomFace, size: int = 128) -> Rendering:
    """Draw `face` at `size` px (64 to 1024). The same face always gives the same bytes.

    Raises:
        ValueError: the size is outside that range.
    """
    if not 64 <= size <= 1024:
        raise ValueError(f"phantom size {size} px is outside 64 to 1024")
    geo = geometry(face)
    base = SKIN[face.attributes["skin"]]
    skin = tuple(float(c + d) for c, d in zip(base, geo.skin_shift, strict=True))
    canvas = Canvas(2 * size if size < 512 else size, face.pose.background)
    canvas.pose(face.pose.angle, face.pose.scale, face.pose.shift)
    draw_behind(canvas, geo, face, skin)
    draw_head(canvas, geo, face, skin)
    draw_nose(canvas, geo, face, skin)
    draw_mouth(canvas, geo, face, skin)
    draw_eyes(canvas, geo, face, skin)
    draw_fringe(canvas, geo, face)
    canvas.shade(face.pose.light)
    image = canvas.image(size, face.pose.grain, face.pose.exposure)
    scale = size / canvas.size
    return Rendering(
        image=image,
        landmarks=(canvas.to_pixels(landmark_points(geo)) * scale).astype(np.float32),
        box=_bounds(canvas.to_pixels(head_outline(geo)) * scale),
        lips=_bounds(canvas.to_pixels(_lip_corners(geo)) * scale),
        attributes=dict(face.attributes),
        finding=face.finding,
    )


def landmark_points(geo: Geometry) -> Points:
    """The five landmarks in face coordinates, [5, 2]."""
    return np.array(
        [
            (0.5 - geo.eye_dx, geo.eye_y),
            (0.5 + geo.eye_dx, geo.eye_y),
            (0.5, geo.nose_y - 0.028),
            (0.5 - geo.mouth_rx, geo.mouth_y),
            (0.5 + geo.mouth_rx, geo.mouth_y),
        ]
    )


def _lip_corners(geo: Geometry) -> Points:
    low = geo.mouth_y + geo.lower_lip + 0.04
    half = geo.mouth_rx + 0.01
    return np.array(
        [
            (0.5 - half, geo.nose_y - 0.03),
            (0.5 + half, geo.nose_y - 0.03),
            (0.5 + half, low),
            (0.5 - half, low),
        ]
    )


def _bounds(points: Points) -> NDArray[np.float32]:
    return np.concatenate([points.min(0), points.max(0)]).astype(np.float32)
