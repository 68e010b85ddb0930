"""The phantom's geometry, and the canvas it is drawn on."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .face import PhantomFace


@dataclass(frozen=True)
class Geometry:
    """Measures of one face before its pose: the frame is the unit square, x right, y down."""

    cheek: float
    """Half width at the cheeks."""
    jaw: float
    """Half width at the jaw."""
    top: float
    chin: float
    eye_y: float
    eye_dx: float
    """Half distance of the eyes."""
    eye_rx: float
    eye_ry: float
    eye_tilt: float
    iris: float
    brow_gap: float
    brow_width: float
    brow_arch: float
    nose_y: float
    """Height of the nose base."""
    nose_rx: float
    """Half width of the nose at its wings."""
    bridge: float
    mouth_y: float
    mouth_rx: float
    upper_lip: float
    lower_lip: float
    bow: float
    """Depth of the cupid's bow."""
    ear: float
    hairline: float
    parting: float
    lip_redness: float
    skin_shift: tuple[float, float, float]
    mole: tuple[float, float, float]
    """Place (x, y) and radius of a mole; radius 0 for none."""


_BASE = {
    # cheek, jaw, chin, eye_y, eye_rx, eye_ry, brow_width, mouth_rx, lips, hairline
    "baby": (0.325, 0.270, 0.850, 0.520, 0.075, 0.062, 0.010, 0.108, 1.00, 0.235),
    "kid": (0.310, 0.245, 0.870, 0.500, 0.073, 0.056, 0.014, 0.118, 1.00, 0.255),
    "girl": (0.308, 0.235, 0.870, 0.500, 0.076, 0.058, 0.012, 0.118, 1.15, 0.260),
    "boy": (0.312, 0.255, 0.875, 0.495, 0.072, 0.053, 0.019, 0.122, 0.95, 0.255),
    "man": (0.305, 0.262, 0.905, 0.465, 0.068, 0.044, 0.026, 0.132, 0.88, 0.235),
    "woman": (0.298, 0.222, 0.892, 0.470, 0.074, 0.050, 0.013, 0.126, 1.30, 0.240),
}


def geometry(face: PhantomFace) -> Geometry:
    """Measures of `face`: its subject sets the middle, its identity the deviation (bounded by tanh)."""
    z: NDArray[np.float64] = np.tanh(face.identity * 0.8)
    cheek, jaw, chin, eye_y, eye_rx, eye_ry, brow, mouth_rx, lips, hairline = _BASE[
        face.attributes["subject"]
    ]
    mouth_y = 0.765 + 0.35 * (chin - 0.87) + 0.008 * z[12]
    nose_y = 0.635 + 0.25 * (chin - 0.87) + 0.012 * z[11]
    has_mole = abs(face.identity[20]) > 0.6
    return Geometry(
        cheek=cheek + 0.026 * z[0],
        jaw=jaw + 0.030 * z[1],
        top=0.14,
        chin=chin + 0.022 * z[2],
        eye_y=eye_y + 0.016 * z[3],
        eye_dx=0.137 + 0.017 * z[4],
        eye_rx=eye_rx + 0.009 * z[5],
        eye_ry=eye_ry + 0.009 * z[6],
        eye_tilt=9.0 * float(z[7]),
        iris=0.039 + 0.003 * z[6],
        brow_gap=0.036 + 0.012 * z[8],
        brow_width=brow + 0.006 * z[9],
        brow_arch=0.022 + 0.020 * z[10],
        nose_y=nose_y,
        nose_rx=0.058 + 0.014 * z[13],
        bridge=0.020 + 0.008 * z[14],
        mouth_y=mouth_y,
        mouth_rx=mouth_rx + 0.014 * z[15],
        upper_lip=(0.030 + 0.007 * z[16]) * lips,
        lower_lip=(0.034 + 0.009 * z[17]) * lips,
        bow=0.010 + 0.004 * z[16],
        ear=0.075 + 0.015 * z[18],
        hairline=hairline + 0.028 * z[19],
        parting=0.16 * float(z[21]),
        lip_redness=0.55 + 0.25 * float(z[22]),
        skin_shift=(4.0 * float(z[23]), 2.5 * float(z[22]), 4.0 * float(z[21])),
        mole=(
            0.5 + 0.19 * float(np.sign(z[20])) + 0.03 * float(z[21]),
            0.63 + 0.05 * float(z[22]),
            0.009 if has_mole else 0.0,
        ),
    )


Colour = Sequence[float]
Points = NDArray[np.float64]
_SHIFT = 4


class Canvas:
    """An RGB picture [S, S, 3] float32 addressed by points in the unit square through an affine pose."""

    def __init__(self, size: int, background: Colour) -> None:
        self.size = size
        self.pixels: NDArray[np.float32] = np.empty((size, size, 3), np.float32)
        self.pixels[:] = np.asarray(background, np.float32)
        self.affine = np.array([[1.0, 0, 0], [0, 1.0, 0]])

    def pose(self, angle: float, scale: float, shift: tuple[float, float]) -> None:
        """Rotate (degrees) and scale about the middle of the frame, then shift (shares of the frame)."""
        c, s = scale * np.cos(np.radians(angle)), scale * np.sin(np.radians(angle))
        self.affine = np.array(
            [
                [c, -s, 0.5 - 0.5 * c + 0.5 * s + shift[0]],
                [s, c, 0.5 - 0.5 * s - 0.5 * c + shift[1]],
            ]
        )

    def to_pixels(self, points: Points) -> Points:
        """Face coordinates [N, 2] to pixels [N, 2] (pixel centres at .5)."""
        moved: Points = np.asarray(points, np.float64) @ self.affine[:, :2].T + self.affine[:, 2]
        return moved * self.size

    def _blend(self, points: Points, colour: Colour, alpha: float, blur: float, thickness: float) -> None:
        pixels = self.to_pixels(points)
        pad = 3 + int(3 * blur * self.size) + int(thickness * self.size)
        x0, y0 = np.maximum(np.floor(pixels.min(0)).astype(int) - pad, 0)
        x1, y1 = np.minimum(np.ceil(pixels.max(0)).astype(int) + pad, self.size)
        if x0 >= x1 or y0 >= y1:
            return
        mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
        fixed = np.round((pixels - [x0, y0] - 0.5) * 2**_SHIFT).astype(np.int32)
        if thickness:
            width = max(1, round(thickness * self.size))
            cv2.polylines(mask, [fixed], False, 255, width, cv2.LINE_AA, _SHIFT)
        else:
            cv2.fillPoly(mask, [fixed], 255, cv2.LINE_AA, _SHIFT)
        weight = mask.astype(np.float32) * (alpha / 255)
        if blur:
            sigma = blur * self.size
            weight = cv2.GaussianBlur(weight, (0, 0), sigma)
        region = self.pixels[y0:y1, x0:x1]
        region += weight[..., None] * (np.asarray(colour, np.float32) - region)

    def fill(self, points: Points, colour: Colour, alpha: float = 1.0, blur: float = 0.0) -> None:
        """Fill a closed outline [N, 2]; `blur` is the edge's softness as a share of the frame."""
        self._blend(points, colour, alpha, blur, 0.0)

    def stroke(
        self, points: Points, width: float, colour: Colour, alpha: float = 1.0, blur: float = 0.0
    ) -> None:
        """Draw an open line [N, 2] of `width` (share of the frame)."""
        self._blend(points, colour, alpha, blur, width)

    def shade(self, light: tuple[float, float], amount: float = 0.05) -> None:
        """Brighten towards the light by `amount` across the frame."""
        ramp = np.linspace(-1, 1, self.size, dtype=np.float32)
        field = 1 + amount * (light[0] * ramp[None, :] + light[1] * ramp[:, None])
        self.pixels *= field[..., None]

    def image(self, size: int, grain: int, exposure: float) -> NDArray[np.uint8]:
        """The picture as uint8 RGB [size, size, 3], area-averaged, with a fine grain."""
        picture = self.pixels
        if size != self.size:
            picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
        noise = np.random.default_rng(grain).standard_normal((size, size, 1), np.float32)
        return np.clip(picture * exposure + 1.2 * noise + 0.5, 0, 255).astype(np.uint8)


def ellipse(centre: Sequence[float], rx: float, ry: float, n: int = 40) -> Points:
    """Outline of an ellipse, [n, 2]."""
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False)
    return np.stack([centre[0] + rx * np.cos(angle), centre[1] + ry * np.sin(angle)], 1)


def smooth(points: Sequence[Sequence[float]], closed: bool = True, per_segment: int = 8) -> Points:
    """A Catmull-Rom curve through control points [K, 2]: [K * per_segment, 2]."""
    control = np.asarray(points, np.float64)
    if closed:
        padded = np.concatenate([control[-1:], control, control[:2]])
    else:
        padded = np.concatenate([control[:1], control, control[-1:]])
    p0, p1, p2, p3 = padded[:-3], padded[1:-2], padded[2:-1], padded[3:]
    t = np.linspace(0, 1, per_segment, endpoint=False)[None, :, None]
    a, b, c, d = p0[:, None], p1[:, None], p2[:, None], p3[:, None]
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    flat = curve.reshape(-1, 2)
    return flat if closed else np.concatenate([flat, control[-1:]])
