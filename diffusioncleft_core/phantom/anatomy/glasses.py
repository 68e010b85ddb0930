"""Spectacles: two rims, a bridge and the sides that run to the ears."""

import cv2
import numpy as np

from ..face import PhantomFace
from .field import Array
from .measures import Measures
from .pose import Camera3D
from .skin import srgb_to_linear
from .surface import Head

_SHIFT = 4


def wear_glasses(light: Array, face: PhantomFace, m: Measures, made: Head, cam: Camera3D) -> Array:
    """The picture [S, S, 3] (linear RGB) with glasses on the face."""
    draw = np.random.default_rng([int(abs(face.identity[39]) * 1e6), 5])
    round_, thick = float(draw.uniform(2.0, 4.5)), float(draw.uniform(1.0, 2.6)) * m.pupil / 31
    shade, (red, green, blue) = float(draw.uniform(0.04, 0.30)), map(float, draw.uniform(0, 0.12, 3))
    colour = srgb_to_linear((shade + red, shade + green, shade + blue))
    half_w, half_h = 0.80 * m.pupil, float(draw.uniform(0.52, 0.68)) * m.pupil
    ahead = 15.0 * m.pupil / 31
    mask = np.zeros(light.shape[:2], np.uint8)
    lens = np.zeros(light.shape[:2], np.uint8)
    t = np.linspace(0, 2 * np.pi, 48)
    for d in (-1, 1):
        x = d * (m.pupil + 1.0) + half_w * np.sign(np.cos(t)) * np.abs(np.cos(t)) ** (2 / round_)
        y = 3.0 + half_h * np.sign(np.sin(t)) * np.abs(np.sin(t)) ** (2 / round_)
        z = ahead - 0.004 * x * x
        rim = cam.project(np.column_stack([x, y, z]))
        fixed = np.round(rim * 2**_SHIFT).astype(np.int32)
        width = max(1, round(thick * cam.scale))
        cv2.fillPoly(lens, [fixed], 255, cv2.LINE_AA, _SHIFT)
        cv2.polylines(mask, [fixed], True, 255, width, cv2.LINE_AA, _SHIFT)
        side = np.array([[d * (m.pupil + half_w), -2.0, ahead - 6], [d * m.face_half * 1.04, -2.0, -50.0]])
        arm = np.round(cam.project(side) * 2**_SHIFT).astype(np.int32)
        cv2.polylines(mask, [arm], False, 255, width, cv2.LINE_AA, _SHIFT)
    u = np.linspace(-1, 1, 12)
    bridge = np.column_stack([u * (m.pupil - half_w + 1.5), -1.5 - 2.5 * (1 - u * u), np.full(12, ahead + 1)])
    cv2.polylines(
        mask,
        [np.round(cam.project(bridge) * 2**_SHIFT).astype(np.int32)],
        False,
        255,
        max(1, round(thick * cam.scale)),
        cv2.LINE_AA,
        _SHIFT,
    )
    cast = (
        np.roll(cv2.GaussianBlur(mask, (0, 0), 1.5 * cam.scale), round(2.5 * cam.scale), axis=0).astype(
            np.float32
        )
        / 255
    )
    glass = lens.astype(np.float32) / 255
    light = light * (1 - 0.35 * cast)[..., None]
    light = light + (0.012 * glass)[..., None]
    share = (mask.astype(np.float32) / 255)[..., None]
    return np.asarray(light + share * (colour * 0.8 + 0.01 - light), np.float32)
