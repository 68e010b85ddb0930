"""Real face models and photographs of people, which are never part of the repository."""

import csv
import os
from pathlib import Path

import pytest

from diffusioncleft.diffusioncleft_core.faces.analyzer import FaceAnalyzer, load_face_analyzer


@pytest.fixture(scope="session")
def real() -> Path:
    """Pack and photographs, at $DIFFUSIONCLEFT_REAL or in `shared/real` beside the checkout."""
    named = os.environ.get("DIFFUSIONCLEFT_REAL")
    folder = Path(named) if named else Path(__file__).resolve().parents[3] / "shared" / "real"
    if not named and not folder.is_dir():
        pytest.skip(
            "NO REAL FACES: set DIFFUSIONCLEFT_REAL to a folder with pack/ and photographs/subjects.csv"
        )
    assert (folder / "pack").is_dir() and (folder / "photographs" / "subjects.csv").is_file()
    return folder


@pytest.fixture(scope="session")
def faces(real) -> FaceAnalyzer:
    """The real detector and recogniser."""
    return load_face_analyzer(real / "pack")


@pytest.fixture(scope="session")
def people(real) -> dict[str, list[Path]]:
    """Each subject's photographs."""
    found: dict[str, list[Path]] = {}
    with (real / "photographs" / "subjects.csv").open(encoding="utf-8", newline="") as table:
        for row in csv.DictReader(table):
            found.setdefault(row["subject_id"], []).append(real / "photographs" / row["file"])
    return found
