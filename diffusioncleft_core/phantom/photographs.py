"""Phantom photographs with their metadata, and the known artifacts on demand."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..files import TEMPORARY_PREFIX, write_bytes
from .face import CLEFT, PhantomFace, random_face, random_identity
from .render import Rendering, render
from .table import add_rows, files_of

TABLE = "metadata.csv"
_PEOPLE = {
    "girl": ("child", "female"),
    "boy": ("child", "male"),
    "kid": ("child", "unknown"),
    "baby": ("baby", "unknown"),
    "man": ("adult", "male"),
    "woman": ("adult", "female"),
}
_SCARRING = {"none": "none", "scar": "subtle", "scars": "subtle", "philtrum scar": "visible"}
"""What a table says of the scars that prompts ask for: Table 1's are subtle."""


def write_photographs(
    folder: Path,
    n: int,
    finding: str,
    seed: int,
    size: int = 128,
    subjects: int | None = None,
) -> Path:
    """Write `n` PNG files of `size` px and their metadata.csv; returns the CSV's path.

    `finding` is what they show, out of `face.FINDINGS`. `subjects` people are photographed in turn (default:
    9 people in 10 photographs), so that some appear more than once. File names are opaque numbers. The first
    photographs are the same for every larger `n`.

    Photographs and rows already there are kept: of a table that somebody changed the rows stay as they are,
    and a photograph that was taken out of its middle stays out.
    """
    photographs = list(_photographed(finding, n, seed, subjects))
    known = files_of(folder / TABLE)
    told = max((place for place, (name, _, _) in enumerate(photographs, 1) if name in known), default=0)
    rows = []
    for place, (name, face, person) in enumerate(photographs):
        if place >= told or name in known:
            _photograph(face, size, folder / name)
        if place >= told:
            rows.append(metadata_row(name, face, person))
    add_rows(folder / TABLE, rows)
    return folder / TABLE


def holds_others(
    folder: Path,
    n: int,
    finding: str,
    seed: int,
    size: int = 128,
    subjects: int | None = None,
) -> bool:
    """Whether `folder` holds anything that `write_photographs` of the same arguments could not go on from.

    Of the table the names of the photographs count; what else it says of them is its owner's.
    """
    faces = {name: face for name, face, _ in _photographed(finding, n, seed, subjects)}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(TEMPORARY_PREFIX):
            continue
        if path.name == TABLE:
            if not faces.keys() >= set(files_of(path)):
                return True
        elif path.name not in faces or path.read_bytes() != _png(faces[path.name], size):
            return True
    return False


def _photographed(
    finding: str, n: int, seed: int, subjects: int | None
) -> Iterator[tuple[str, PhantomFace, str]]:
    """File name, face and subject of every photograph."""
    for index in range(n):
        person, visit = _sitting(index, subjects)
        yield f"photo-{index:04d}.png", _visit(finding, seed, person, visit), f"S{person:04d}"


def _sitting(index: int, subjects: int | None) -> tuple[int, int]:
    """Who is on photograph `index`, and how often that person was photographed before."""
    if subjects is not None:
        return index % subjects, index // subjects
    again = (index + 5) // 10  # the sixth of each ten shows somebody a second time
    return (index // 10, 1) if index % 10 == 5 else (index - again, 0)


def write_healthy(folder: Path, n: int, seed: int, size: int = 128) -> None:
    """Write `n` PNG files of `size` px of as many people without a cleft. Those already there are kept."""
    for name, face in _healthy(n, seed):
        _photograph(face, size, folder / name)


def write_people(
    folder: Path, n: int, finding: str | None, seed: int, size: int = 128
) -> dict[str, dict[str, str]]:
    """Write `n` PNG files of as many people; None as `finding` writes healthy ones.

    Returns the `skin_tone`, `age_group` and `gender` that each shows, by the file's name.
    """
    if finding is None:
        write_healthy(folder, n, seed, size)
        words = {name: face.attributes for name, face in _healthy(n, seed)}
    else:
        write_photographs(folder, n, finding, seed, size, subjects=n)
        words = {name: face.attributes for name, face, _ in _photographed(finding, n, seed, n)}
    people = {name: _PEOPLE[attributes["subject"]] for name, attributes in words.items()}
    return {
        name: {"skin_tone": words[name]["skin"], "age_group": age, "gender": gender}
        for name, (age, gender) in people.items()
    }


def _healthy(n: int, seed: int) -> Iterator[tuple[str, PhantomFace]]:
    for index in range(n):
        person = np.random.default_rng([seed, index])
        yield f"photo-{index:04d}.png", random_face(person, identity=random_identity(person))


def _photograph(face: PhantomFace, size: int, path: Path) -> None:
    if not path.is_file():
        write_bytes(path, _png(face, size))


def _png(face: PhantomFace, size: int) -> bytes:
    data = io.BytesIO()
    Image.fromarray(render(face, size).image).save(data, format="PNG")
    return data.getvalue()


def _visit(finding: str, seed: int, person: int, visit: int) -> PhantomFace:
    """The person, and what is the same at each visit, depend on the subject alone."""
    draw = np.random.default_rng([seed, person])
    face = random_face(draw, finding=finding, identity=random_identity(draw))
    return face.photographed_again(np.random.default_rng([seed, person, 1 + visit]))


def metadata_row(name: str, face: PhantomFace, subject_id: str) -> dict[str, str]:
    """The columns of metadata.csv that a clinician would fill in for this face."""
    words = face.attributes
    age, gender = _PEOPLE[words["subject"]]
    if face.finding == CLEFT:
        found = {
            "asymmetry": words.get("nasal_asymmetry", "none"),
            "lip_asymmetry": "none",
            "scarring": "none",
            "repair_status": "unrepaired",
        }
    else:
        asymmetry = words["asymmetry"]
        found = {
            "asymmetry": "slight" if "nose" in asymmetry else "none",
            "lip_asymmetry": "slight" if "lip" in asymmetry else "none",
            "scarring": _SCARRING[words["scar"]],
            "repair_status": "repaired",
        }
    return {
        "file": name,
        "age_group": age,
        "gender": gender,
        "cleft_type": words["cleft_type"],
        "side": words.get("side", ""),
        **found,
        "skin_tone": words["skin"],
        **{column: words[column] for column in ("hair_texture", "hair_length", "hair_color", "eyes")},
        "subject_id": subject_id,
        "consent": "yes",
    }


ArtifactKind = Literal["eye_bar", "text", "second_face", "crop"]
KINDS: tuple[ArtifactKind, ...] = ("eye_bar", "text", "second_face", "crop")
_WORDS = ("CLINIC", "before", "SAMPLE", "Dr. Lee", "2019-04", "patient 7", "stock", "PREVIEW", "www.photo")
_FONTS = (
    cv2.FONT_HERSHEY_SIMPLEX,
    cv2.FONT_HERSHEY_DUPLEX,
    cv2.FONT_HERSHEY_COMPLEX,
    cv2.FONT_HERSHEY_TRIPLEX,
)


def add_artifact(rendering: Rendering, kind: ArtifactKind, rng: np.random.Generator) -> Rendering:
    """The picture with an artifact of varied colour, opacity, tilt, font, size and position.

    Landmarks and boxes stay those of the first face (after a crop: in the new frame, perhaps outside it).

    Raises:
        ValueError: `kind` is not in KINDS.
    """
    if kind == "eye_bar":
        return replace(rendering, image=_eye_bar(rendering, rng))
    if kind == "text":
        return replace(rendering, image=_text(rendering.image, rng))
    if kind == "second_face":
        return replace(rendering, image=_second_face(rendering.image, rng))
    if kind == "crop":
        return _crop(rendering, rng)
    raise ValueError(f"the phantom has no artifact {kind!r}; it has {', '.join(KINDS)}")


def _mix(image: NDArray[np.uint8], layer: NDArray[np.uint8], opacity: float) -> NDArray[np.uint8]:
    mixed = image + opacity * (layer.astype(np.float32) - image)
    return np.clip(mixed + 0.5, 0, 255).astype(np.uint8)


def _eye_bar(rendering: Rendering, rng: np.random.Generator) -> NDArray[np.uint8]:
    left, right = rendering.landmarks[0], rendering.landmarks[1]
    span = right - left
    length, tilt = float(np.linalg.norm(span)), float(np.degrees(np.arctan2(span[1], span[0])))
    width, height = length * rng.uniform(1.7, 2.3), length * rng.uniform(0.38, 0.65)
    centre = (left + right) / 2 + rng.normal(0, 0.02, 2) * length
    place = (float(centre[0]), float(centre[1])), (width, height), tilt + float(rng.normal(0, 3))
    corners = cv2.boxPoints(place)
    shade = rng.uniform(0, 50) + rng.normal(0, 4, 3)
    layer = rendering.image.copy()
    colour = tuple(float(c) for c in np.clip(shade, 0, 255))
    cv2.fillPoly(layer, [np.round(corners * 16).astype(np.int32)], colour, cv2.LINE_AA, 4)
    return _mix(rendering.image, layer, float(rng.uniform(0.85, 1.0)))


def _text(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    side = image.shape[0]
    words, font = str(rng.choice(_WORDS)), int(rng.choice(_FONTS))
    thickness = max(1, round(side / 110 * rng.uniform(0.8, 1.6)))
    (width, height), _ = cv2.getTextSize(words, font, 1.0, thickness)
    scale = min(side * rng.uniform(0.09, 0.15) / height, 0.94 * side / width)
    width, height = int(width * scale), int(height * scale)
    x = int(rng.integers(0, max(1, side - width)))
    y = int(rng.integers(height + 2, side - 2))
    dark = rng.random() < 0.4
    colour = tuple(float(c) for c in (rng.uniform(0, 50, 3) if dark else rng.uniform(215, 255, 3)))
    layer = image.copy()
    cv2.putText(layer, words, (x, y), font, scale, colour, thickness, cv2.LINE_AA)
    return _mix(image, layer, float(rng.uniform(0.8, 1.0)))


def _second_face(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    side = image.shape[0]
    size = int(side * rng.uniform(0.36, 0.52))
    face = render(random_face(rng), max(64, size)).image
    face = cv2.resize(face, (size, size), interpolation=cv2.INTER_AREA)
    x = 0 if rng.random() < 0.5 else side - size
    y = 0 if rng.random() < 0.5 else side - size
    picture = image.copy()
    picture[y : y + size, x : x + size] = face
    return picture


def _crop(rendering: Rendering, rng: np.random.Generator) -> Rendering:
    side = rendering.image.shape[0]
    x1, y1, x2, y2 = rendering.box
    share = rng.uniform(0.30, 0.5)
    dx, dy = {
        "left": (x1 + share * (x2 - x1), 0.0),
        "right": (x2 - share * (x2 - x1) - side, 0.0),
        "top": (0.0, y1 + share * (y2 - y1)),
        "bottom": (0.0, y2 - share * (y2 - y1) - side),
    }[str(rng.choice(["left", "right", "top", "bottom"]))]
    move = np.array([[1, 0, -dx], [0, 1, -dy]], np.float32)
    image = cv2.warpAffine(rendering.image, move, (side, side), borderMode=cv2.BORDER_REPLICATE)
    shift = np.array([dx, dy], np.float32)
    return replace(
        rendering,
        image=image.astype(np.uint8),
        landmarks=rendering.landmarks - shift,
        box=rendering.box - np.tile(shift, 2),
        lips=rendering.lips - np.tile(shift, 2),
    )
