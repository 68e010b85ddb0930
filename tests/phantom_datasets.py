"""Datasets of phantoms, rendered and built as a clinic's are."""

import csv
from pathlib import Path

from diffusioncleft.diffusioncleft_core.conditions.loader import load_vocabulary
from diffusioncleft.diffusioncleft_core.dataset.build import build_dataset
from diffusioncleft.diffusioncleft_core.dataset.settings import BuildSettings, Photographs
from diffusioncleft.diffusioncleft_core.faces.analyzer import FaceAnalyzer
from diffusioncleft.diffusioncleft_core.phantom.photographs import write_photographs

FINDING_OF = {None: None, "pre_op": "cleft", "post_op": "scar"}
"""What the phantom draws for a condition of the embedded vocabulary; None is a healthy face."""


def phantom_dataset(
    photographs: Path, condition: str, out: Path, analyzer: FaceAnalyzer, *, n: int, seed: int
) -> Path:
    """Render `n` people into `photographs` and build the dataset `out` of them."""
    table = write_photographs(photographs, n, FINDING_OF[condition], seed, subjects=n)
    settings = BuildSettings(phantom=True)
    found = load_vocabulary().condition(condition)
    build_dataset(Photographs(photographs, table), found, out, analyzer, settings=settings)
    return out


def photograph(folder: Path, finding: str, seed: int, n: int = 5, **columns: str) -> Path:
    """Photographs of `n` phantoms, with more columns in their table, or others, than the phantom's own."""
    table = write_photographs(folder, n, finding, seed, subjects=n)
    with table.open(newline="", encoding="utf-8") as file:
        rows = [{**row, **columns} for row in csv.DictReader(file)]
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return folder


def first_consent(photographs: Path, word: str) -> None:
    """What the table in a folder of photographs says of the first one's consent."""
    table = photographs / "metadata.csv"
    with table.open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    rows[0]["consent"] = word
    with table.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
