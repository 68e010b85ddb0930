"""Folders of phantom photographs: a clinic's with its metadata.csv, and healthy people's."""

import csv
import io
from pathlib import Path

import numpy as np
from PIL import Image

from ..files import atomic_path, write_text
from .face import PhantomFace, random_face, random_identity
from .render import render

COLUMNS = (
    "file",
    "age_group",
    "gender",
    "cleft_type",
    "side",
    "asymmetry",
    "lip_asymmetry",
    "scarring",
    "repair_status",
    "subject_id",
    "consent",
)
_PEOPLE = {
    "girl": ("child", "female"),
    "boy": ("child", "male"),
    "kid": ("child", "unknown"),
    "baby": ("baby", "unknown"),
    "man": ("adult", "male"),
    "woman": ("adult", "female"),
}


def write_photographs(
    folder: Path, n: int, condition: str, seed: int, size: int = 128, subjects: int | None = None
) -> Path:
    """Write `n` PNG files of `size` px and their metadata.csv; returns the CSV's path.

    `subjects` people are photographed in turn (default: 9 people in 10 photographs), so that some
    appear more than once. File names are opaque numbers. Photographs already there are kept.
    """
    people = subjects or max(1, round(0.9 * n))
    rows = []
    for index in range(n):
        face = _visit(condition, seed, index, people)
        name = f"photo-{index:04d}.png"
        path = folder / name
        _photograph(face, size, path)
        rows.append(metadata_row(name, face, f"S{index % people:04d}"))
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / "metadata.csv", text.getvalue())
    return folder / "metadata.csv"


def write_healthy(folder: Path, n: int, seed: int, size: int = 128) -> None:
    """Write `n` PNG files of `size` px of as many people without a cleft. Those already there are kept."""
    for index in range(n):
        person = np.random.default_rng([seed, index])
        face = random_face(person, identity=random_identity(person))
        _photograph(face, size, folder / f"photo-{index:04d}.png")


def _photograph(face: PhantomFace, size: int, path: Path) -> None:
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as partial:
            Image.fromarray(render(face, size).image).save(partial, format="PNG")


def _visit(condition: str, seed: int, index: int, people: int) -> PhantomFace:
    """Photograph `index`: the person, and what is the same at each visit, depend on the subject alone."""
    person = np.random.default_rng([seed, index % people])
    face = random_face(person, condition=condition, identity=random_identity(person))
    return face.photographed_again(np.random.default_rng([seed, index % people, 1 + index // people]))


def metadata_row(name: str, face: PhantomFace, subject_id: str) -> dict[str, str]:
    """The columns of metadata.csv that a clinician would fill in for this face."""
    words = face.attributes
    age, gender = _PEOPLE[words["subject"]]
    row = {
        "file": name,
        "age_group": age,
        "gender": gender,
        "cleft_type": words["cleft_type"],
        "side": words.get("side", ""),
        "subject_id": subject_id,
        "consent": "yes",
    }
    if face.condition == "pre_op":
        return row | {
            "asymmetry": words.get("nasal_asymmetry", "none"),
            "lip_asymmetry": "none",
            "scarring": "none",
            "repair_status": "unrepaired",
        }
    asymmetry = words["asymmetry"]
    return row | {
        "asymmetry": "slight" if "nose" in asymmetry else "none",
        "lip_asymmetry": "slight" if "lip" in asymmetry else "none",
        "scarring": "none" if words["scar"] == "none" else "visible",
        "repair_status": "repaired",
    }
