"""Where the lip lies in a picture, from a face's landmarks, and the square that a classifier sees of it."""

from __future__ import annotations

import contextlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..environment import import_onnxruntime
from ..errors import UserError
from ..faces.analyzer import FacePack
from ..files import sha256_model

LIPS_VERSION = 1
"""Raised whenever the same landmarks give another box or crop."""
MOUTH = {68: slice(48, 68), 106: slice(52, 72)}
"""Places of the mouth's points among 68 (iBUG 300-W) and among 106 (insightface's 2d106)."""
BELOW = 0.5
"""How far below the mouth's corners the lip of five landmarks reaches, in widths of the mouth."""
SMALLEST = 4.0
"""Width of a mouth in px, below which nothing can be seen of a lip."""
LEAST_INSIDE = 0.75
"""Share of the lip's box that must lie within the picture."""
LANDMARK_SIDE = 192
"""Input side of insightface's landmark models, by which they are told from other networks."""

Box = npt.NDArray[np.float64]
Points = npt.NDArray[np.floating[Any]]
Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Lip:
    """Where a lip lies, in pixels of the picture.

    Attributes:
        box: [4] x0, y0, x1, y1: the lip itself, from its landmarks.
        square: [4]: what a classifier sees; it may reach beyond the picture.
    """

    box: Box
    square: Box


def lip_box(landmarks: Points, size: tuple[int, int], margin: float = 0.2) -> Lip | None:
    """The lip's box and the square around it; None where the picture shows no lip to speak of.

    Of 68 or 106 landmarks the box is that of the mouth's points. Of five it reaches from the one corner of
    the mouth to the other, up to the nose's tip, because a cleft and the scar of its repair run from the
    nostril's floor through the lip, and half the mouth's width down from the line of the corners, which holds
    the lower lip and a mouth that stands open by a third. Heights are measured at right angles to the line
    between the eyes, so that a tilted head has the same lip; the box is upright all the same and holds the
    tilted one.

    The square is the box with the margin on every side, a share of the box's longer side, grown at its
    shorter sides: so a lip keeps its proportions. The cited work says “margin 0.2” and neither of what nor
    whether its crops are distorted.

    Args:
        landmarks: [5, 2], [68, 2] or [106, 2] px, x and y; further columns are passed over.
        size: (width, height) of the picture, px.
        margin: on every side, a share of the box's longer side.

    Raises:
        ValueError: another number of landmarks.
    """
    points = np.asarray(landmarks, np.float64)[:, :2]
    if not np.isfinite(points).all():
        return None
    if len(points) == 5:
        box = _box_of_five(points)
    elif len(points) in MOUTH:
        mouth = points[MOUTH[len(points)]]
        box = np.concatenate([mouth.min(0), mouth.max(0)])
    else:
        raise ValueError(f"a lip is found from 5, 68 or 106 landmarks, not {len(points)}")
    if box is None or box[2] - box[0] < SMALLEST or _share_inside(box, size) < LEAST_INSIDE:
        return None
    sides = box[2:] - box[:2]
    half = (0.5 + margin) * float(sides.max())
    centre = (box[:2] + box[2:]) / 2
    return Lip(box, np.concatenate([centre - half, centre + half]))


def _box_of_five(points: Points) -> Box | None:
    """Of eye, eye, nose tip, mouth corner, mouth corner; None where they can be no face seen from ahead."""
    eye_line = points[1] - points[0]
    length = float(np.linalg.norm(eye_line))
    if length < SMALLEST:
        return None
    across = eye_line / length
    down = np.array([-across[1], across[0]])
    corners = points[3:5]
    middle = corners.mean(0)
    width = float((corners[1] - corners[0]) @ across)
    rise = float((middle - points[2]) @ down)
    if width < SMALLEST or rise <= 0:
        return None
    reach = [corner + step * down for corner in corners for step in (-rise, BELOW * width)]
    return np.concatenate([np.min(reach, axis=0), np.max(reach, axis=0)])


def _share_inside(box: Box, size: tuple[int, int]) -> float:
    low = np.clip(box[:2], 0, size)
    high = np.clip(box[2:], 0, size)
    return float(np.prod(high - low) / max(float(np.prod(box[2:] - box[:2])), 1e-9))


def cut_square(image: Picture, square: Box, side: int) -> Picture:
    """[side, side, 3] uint8 of `square` [4] px of `image` [H, W, 3]; beyond its edges the edge is repeated.

    Bicubic with Pillow's antialiasing; the square's corners may lie between pixels.
    """
    from PIL import Image

    height, width = image.shape[:2]
    before = np.maximum(0, -np.floor(square[:2])).astype(int)
    after = np.maximum(0, np.ceil(square[2:] - (width, height))).astype(int)
    if before.any() or after.any():
        image = np.pad(image, ((before[1], after[1]), (before[0], after[0]), (0, 0)), mode="edge")
    place = square + np.tile(before, 2)
    cut = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC, box=tuple(place.tolist()))
    return np.array(cut, np.uint8)


def within(lip: Lip, side: int) -> npt.NDArray[np.int16]:
    """[4] x0, y0, x1, y1: the lip's box in pixels of its crop of that side, rounded outwards."""
    scale = side / float(lip.square[2] - lip.square[0])
    box = (lip.box - np.tile(lip.square[:2], 2)) * scale
    rounded = np.concatenate([np.floor(box[:2]), np.ceil(box[2:])])
    return np.asarray(np.clip(rounded, 0, side), np.int16)


class LandmarkModel:
    """A face pack's own model of 68 or 106 landmarks. Built by `load_landmark_model`."""

    def __init__(self, model: Any, path: Path) -> None:
        self._model, self.file = model, path.name
        self.sha256 = sha256_model(path)

    @property
    def n_landmarks(self) -> int:
        """68 or 106."""
        return int(self._model.lmk_num)

    def __call__(self, image: Picture, box: npt.NDArray[np.float32]) -> Points:
        """[n, 2] px of the face in `box` [4] of `image` [H, W, 3] RGB."""
        from insightface.app.common import Face

        face = Face(bbox=np.asarray(box, np.float32))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = self._model.get(np.ascontiguousarray(image[..., ::-1]), face)
        return np.asarray(found, np.float64)[:, :2]


def load_landmark_model(pack: FacePack) -> LandmarkModel | None:
    """The pack's landmark model, of several the one with the smallest file; None where it has none.

    Raises:
        UserError: a file of the pack can't be opened.
    """
    onnxruntime = import_onnxruntime()
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from insightface.model_zoo.landmark import Landmark
    for path in sorted(pack.folder.glob("*.onnx"), key=lambda path: path.stat().st_size):
        try:
            session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            shape = session.get_inputs()[0].shape[2:4]
            if list(shape) != [LANDMARK_SIDE] * 2 or len(session.get_outputs()) != 1:
                continue
            model = LandmarkModel(Landmark(model_file=str(path), session=session), path)
        except Exception as error:  # onnxruntime raises nearly anything
            raise UserError(
                f"{path} of the face pack can't be opened ({type(error).__name__}); get the pack again"
            ) from None
        if model.n_landmarks in MOUTH:
            return model
    return None
