"""Real face models and photographs of people, which are never part of the repository."""

import csv
import os
import shutil
from pathlib import Path

import pytest

from diffusioncleft.diffusioncleft_core.faces.analyzer import FaceAnalyzer, load_face_analyzer

COLUMNS = {
    "age_group": "adult",
    "gender": "male",
    "cleft_type": "unilateral",
    "side": "left",
    "asymmetry": "none",
    "lip_asymmetry": "none",
    "scarring": "none",
    "repair_status": "unrepaired",
    "consent": "yes",
}


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


def clinic(folder: Path, photographs: dict[str, list[Path]]) -> Path:
    """A folder of these people's photographs with its table; the labels are of no matter."""
    folder.mkdir()
    with (folder / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, ["file", "subject_id", *COLUMNS])
        table.writeheader()
        for subject, paths in photographs.items():
            for path in paths:
                shutil.copy(path, folder)
                table.writerow({"file": path.name, "subject_id": subject, **COLUMNS})
    return folder


@pytest.fixture(params=range(6))
def one_person(request, people, tmp_path) -> Path:
    """All photographs of one person, in a folder with its table."""
    names = sorted(people)
    if request.param >= len(names):
        pytest.skip("fewer people at hand")
    return clinic(tmp_path / "photos", {names[request.param]: people[names[request.param]]})


@pytest.fixture
def dataset(command, real, people, tmp_path) -> Path:
    """A dataset of the first three people, nobody held out."""
    photographs = clinic(
        tmp_path / "clinic", {subject: people[subject][:4] for subject in sorted(people)[:3]}
    )
    out = tmp_path / "private"
    done = command(
        "dataset", "build", photographs, "--metadata", photographs / "metadata.csv", "--condition", "pre_op",
        "--out", out, "--faces", real / "pack", "--min-side", 200, "--holdout", 0,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out
