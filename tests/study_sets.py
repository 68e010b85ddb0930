"""Small sets of phantoms to make studies from."""

import csv
import json
from dataclasses import replace
from pathlib import Path

from diffusioncleft.diffusioncleft_core.conditions.loader import load_vocabulary
from diffusioncleft.diffusioncleft_core.imageset.manifest import image_rows, write_image_set
from diffusioncleft.diffusioncleft_core.phantom.photographs import write_photographs
from diffusioncleft.diffusioncleft_core.study.choose import Wanted
from diffusioncleft.diffusioncleft_core.study.create import create_study
from diffusioncleft.diffusioncleft_core.study.design_file import load_design
from diffusioncleft.diffusioncleft_core.study.sources import Source

VOCABULARY = load_vocabulary()
FINDINGS = {name: VOCABULARY.condition(name).phantom.finding for name in ("pre_op", "post_op")}


def bare_pictures(folder: Path, n: int, *, seed: int = 3, size: int = 96) -> Path:
    """`n` pictures of each condition in folders named by it, without any table."""
    for condition, finding in FINDINGS.items():
        write_photographs(folder / condition, n, finding, seed, size=size).unlink()
    return folder


def photographs(folder: Path, n: int, *, rating: str = "yes", seed: int = 9, size: int = 112) -> Path:
    """`n` phantoms of each condition with a table that speaks of them as of photographs of people."""
    for condition, finding in FINDINGS.items():
        write_photographs(folder / condition, n, finding, seed, size=size, subjects=n)
        set_rating(folder / condition, dict.fromkeys(names(folder / condition), rating))
    return folder


def one_table(root: Path) -> Path:
    """Let one table at the root speak of the photographs in its subfolders."""
    rows = []
    for table in sorted(root.glob("*/metadata.csv")):
        with table.open(newline="", encoding="utf-8") as handle:
            rows += [row | {"file": f"{table.parent.name}/{row['file']}"} for row in csv.DictReader(handle)]
        table.unlink()
    with (root / "metadata.csv").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)
    return root


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.png"))


def set_rating(folder: Path, said: dict[str, str]) -> None:
    """Write `consent_rating` of these photographs into the folder's table."""
    table = folder / "metadata.csv"
    with table.open(newline="", encoding="utf-8") as handle:
        rows = [{"consent_rating": "", **row} for row in csv.DictReader(handle)]
    for row in rows:
        row["consent_rating"] = said.get(row["file"], row["consent_rating"])
    with table.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def filtered_set(folder: Path, accepted: dict[str, bool], subjects: dict[str, str] | None = None) -> None:
    """Give the pictures in a folder a manifest with what the filters decided of each."""
    rows = [
        replace(
            row,
            role="generated",
            index=number,
            prompt="a face",
            seed=number,
            condition=folder.name,
            attributes={"subject": (subjects or {}).get(row.file, "girl"), "skin": "dark"},
            verdicts={"accepted": accepted[row.file], "reasons": []},
        )
        for number, row in enumerate(image_rows(folder, sorted(accepted)))
    ]
    write_image_set(folder, rows)


def people_of_a_dataset(dataset: Path) -> None:
    """Let a dataset of phantoms count as one of people."""
    described = json.loads((dataset / "dataset.json").read_text("utf-8"))
    described["settings"]["phantom"] = False
    (dataset / "dataset.json").write_text(json.dumps(described), "utf-8")


def made(out: Path, sets: dict[str, Path], design="paper", counts=None, raw=False, phantom=False, **changes):
    """A study of these folders, and what was said of it."""
    design = replace(load_design(design), **changes)
    sources = [
        Source(name, folder, "real" if name == "real" else "generated", phantom=phantom)
        for name, folder in sets.items()
    ]
    return create_study(out, design, sources, VOCABULARY, Wanted(counts or {}, raw))
