"""Text and watermarks: RapidOCR's detector finds regions, its recogniser says whether letters are in them.

Both models lie in the `rapidocr` wheel (PP-OCRv6, Apache-2.0) and are run by onnxruntime from there: nothing
is downloaded and none of the wheel's code runs. The detector alone takes eyes, mouths and clefts of drawn
faces for signs; the recogniser does not read a word in them.
"""

import functools
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..environment import import_onnxruntime
from ..errors import UserError
from ..files import sha256_file

DETECTOR = "PP-OCRv6_det_small.onnx"
RECOGNISER = "PP-OCRv6_rec_small.onnx"
SMALLEST_SIDE, LARGEST_SIDE = 320, 640
"""The detector's input, px of the longer side: small pictures are enlarged, large ones reduced."""
BINARY = 0.3
UNCLIP = 1.6
"""RapidOCR's own: threshold of the probability map, and how far a region grows around its core."""
REGION_SCORE = 0.5
LEAST_ASPECT = 1.4
"""Regions that are less wide than this hold no three letters."""
LETTER_SCORES = {3: 0.75, 4: 0.5}
"""Mean probability that so many letters need; four stands for more. Fewer are no text: a bilateral cleft
reads as 11, two eyes as 00, but never as four letters."""
ALIKE = ("0896", "OoQDの口日司可", "1Il|i")
"""Signs that circles and strokes are read as; each group counts as one letter that repeats."""
LEAST_DIFFERENT = 3
"""Letters that differ, of a text: curls read as 880088, eyes and the halves of a cleft as 00 and 11."""
LINE_HEIGHT, LONGEST_LINE = 48, 480


@dataclass(frozen=True)
class TextRegion:
    """A region that looks like text. Sizes as a share of the image's sides."""

    score: float
    """Mean probability of the detector, 0 to 1."""
    letters: int
    """Letters and digits that the recogniser read."""
    different: int
    """How many of them differ, look-alikes taken for one."""
    confidence: float
    """The recogniser's mean probability of what it read, 0 to 1."""
    rectangle: tuple[tuple[float, float], tuple[float, float], float]
    """Centre, size (px of the detector's input) and angle, as OpenCV's rotated rectangle."""

    @property
    def is_text(self) -> bool:
        """Whether it counts as text."""
        sure = self.confidence >= LETTER_SCORES.get(min(self.letters, 4), 2.0)
        return sure and self.different >= LEAST_DIFFERENT


class TextReader:
    """Finds text in pictures. Built by `load_text_reader`."""

    def __init__(
        self, detector: Any, recogniser: Any, characters: list[str], weights: dict[str, str]
    ) -> None:
        self._detector, self._recogniser = detector, recogniser
        self._shapes = np.array([_shape(place, entry) for place, entry in enumerate(characters)])
        self.weights = weights
        """sha256 of the two models, by file name."""

    def regions(self, image: NDArray[np.uint8]) -> list[TextRegion]:
        """Regions of `image` [H, W, 3] RGB that look like text, the likeliest first."""
        import cv2

        picture = _resized(image)
        bgr = np.ascontiguousarray(picture[..., ::-1])
        probability = self._detector.run(None, {self._detector.get_inputs()[0].name: _scaled(bgr)})[0][0, 0]
        mask = (probability > BINARY).astype(np.uint8)
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        found = []
        for contour in contours:
            rectangle = cv2.minAreaRect(contour)
            short, long = sorted(rectangle[1])
            if short < 3 or long < LEAST_ASPECT * short:
                continue
            score = _mean_inside(probability, contour)
            if score < REGION_SCORE:
                continue
            grown = _grown(rectangle)
            shapes, confidence = self._read(_line(bgr, grown))
            read = len(shapes), len(set(shapes))
            found.append(TextRegion(round(score, 3), *read, round(confidence, 3), grown))
        return sorted(found, key=lambda item: (item.is_text, item.score), reverse=True)

    def _read(self, line: NDArray[np.uint8]) -> tuple[list[int], float]:
        """The shapes of letters and digits in a line [48, W, 3] BGR, and its signs' mean probability.

        Greedy decoding of connectionist temporal classification (Graves et al., ICML 2006): the likeliest
        class at each place, repetitions merged, blanks (class 0) left out.
        """
        scores = self._recogniser.run(None, {self._recogniser.get_inputs()[0].name: _scaled(line)})[0][0]
        best, sure = scores.argmax(1), scores.max(1)
        kept = (best != 0) & np.concatenate([[True], best[1:] != best[:-1]])
        if not kept.any():
            return [], 0.0
        shapes = self._shapes[best[kept]]
        return [int(shape) for shape in shapes if shape], float(sure[kept].mean())


def load_text_reader(threads: int | None = None) -> TextReader:
    """Open the two models in the installed `rapidocr` wheel. UserError when it is not there."""
    folder = _models_folder()
    try:
        onnxruntime = import_onnxruntime()
    except ImportError:
        raise UserError(_missing("onnxruntime")) from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.inter_op_num_threads = 1
    if threads:
        options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    sessions = [
        onnxruntime.InferenceSession(str(folder / name), options, providers=["CPUExecutionProvider"])
        for name in (DETECTOR, RECOGNISER)
    ]
    listed = sessions[1].get_modelmeta().custom_metadata_map["character"].splitlines()
    return TextReader(sessions[0], sessions[1], ["", *listed, " "], text_weights())


@functools.cache
def text_weights() -> dict[str, str]:
    """SHA-256 of the two models, by file name; read once a process, as an installed package's."""
    return {name: sha256_file(_models_folder() / name) for name in (DETECTOR, RECOGNISER)}


def check_text_reader() -> None:
    """Raise the UserError that `load_text_reader` would, without opening a model."""
    _models_folder()
    if importlib.util.find_spec("onnxruntime") is None:
        raise UserError(_missing("onnxruntime"))


def _shape(place: int, entry: str) -> int:
    """0 for a sign that is neither letter nor digit, else a number; look-alikes share one."""
    for number, group in enumerate(ALIKE, start=1):
        if entry and entry in group:
            return number
    return place + len(ALIKE) + 1 if any(sign.isalnum() for sign in entry) else 0


def _models_folder() -> Path:
    spec = importlib.util.find_spec("rapidocr")
    for place in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(place) / "models"
        if all((folder / name).is_file() for name in (DETECTOR, RECOGNISER)):
            return folder
    raise UserError(_missing("the text models of rapidocr 3.10"))


def _missing(what: str) -> str:
    return (
        f"text can't be looked for because {what} is not installed; "
        "run: pip install rapidocr onnxruntime; 'diffusioncleft filter' does without it with --kinds"
    )


def _resized(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture at the detector's size: sides multiples of 32."""
    import cv2

    height, width = image.shape[:2]
    longer = max(height, width)
    scale = min(max(longer, SMALLEST_SIDE), LARGEST_SIDE) / longer
    size = tuple(max(32, round(side * scale / 32) * 32) for side in (width, height))
    how = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    return np.asarray(cv2.resize(image, size, interpolation=how), np.uint8)


def _scaled(bgr: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[1, 3, H, W], -1 to 1: what both models take."""
    values = (bgr.astype(np.float32) / 255 - 0.5) / 0.5
    return np.ascontiguousarray(values.transpose(2, 0, 1)[None])


def _mean_inside(probability: NDArray[np.float32], contour: NDArray[np.int32]) -> float:
    import cv2

    x, y, width, height = cv2.boundingRect(contour)
    inside = np.zeros((height, width), np.uint8)
    cv2.drawContours(inside, [contour - np.array([x, y])], -1, 1, -1)
    return float(probability[y : y + height, x : x + width][inside > 0].mean())


def _grown(rectangle: Any) -> tuple[tuple[float, float], tuple[float, float], float]:
    """The detector marks the core of a line; the line is wider by area * UNCLIP / circumference all round
    (Liao et al., Real-time scene text detection with differentiable binarization, AAAI 2020)."""
    (x, y), (width, height), angle = rectangle
    reach = width * height * UNCLIP / (2 * (width + height))
    return (x, y), (width + 2 * reach, height + 2 * reach), angle


def _line(
    bgr: NDArray[np.uint8], rectangle: tuple[tuple[float, float], tuple[float, float], float]
) -> NDArray[np.uint8]:
    """The region turned level, [48, W, 3]; the longer side lies along the line."""
    import cv2

    (x, y), (width, height), angle = rectangle
    if width < height:
        width, height, angle = height, width, angle + 90
    if angle > 60:  # read upright or turned to the right, never upside down
        angle -= 180
    pixels = int(np.clip(round(LINE_HEIGHT * width / height / 8) * 8, LINE_HEIGHT, LONGEST_LINE))
    cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    turn = np.array([[cosine, -sine], [sine, cosine]]) * [width / pixels, height / LINE_HEIGHT]
    shift = np.array([x, y]) - turn @ [pixels / 2, LINE_HEIGHT / 2]
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    line = cv2.warpAffine(
        bgr, np.c_[turn, shift], (pixels, LINE_HEIGHT), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(line, np.uint8)
