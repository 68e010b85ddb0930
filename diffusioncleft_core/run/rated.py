"""What of a run the raters of a study are shown: its generated images, and photographs of its datasets."""

from __future__ import annotations

from pathlib import Path

from ..conditions.loader import load_vocabulary
from ..conditions.vocabulary import Vocabulary
from ..errors import UserError
from ..files import shown
from ..report.folders import RunFolders
from ..study.design import GENERATED, REAL
from ..study.sources import Source, dataset_description, holds_images_in


def sets_of_run(root: Path) -> list[Source]:
    """The generated sets of a run, and its datasets. UserError for a folder that is no run's, or has none."""
    folders = RunFolders(root)
    if not folders.stages.is_dir():
        raise UserError(
            f"{shown(root)} is no folder of a run; give one, or the sets themselves with --set NAME=DIR"
        )
    drawn = sorted(path for path in (root / "generated").glob("*") if holds_images_in(path))
    if not drawn:
        raise UserError(f"the run in {shown(root)} has no generated images yet; run it to the end first")
    sources = [Source(GENERATED, path, GENERATED, path.name) for path in drawn]
    return sources + [Source(REAL, path, REAL, path.name) for path in folders.datasets()]


def vocabulary_of_run(root: Path) -> Vocabulary:
    """The vocabulary that the run's datasets were built with; the embedded one where none says."""
    for dataset in RunFolders(root).datasets():
        arguments = dataset_description(dataset).get("arguments") or {}
        if path := arguments.get("vocabulary"):
            return load_vocabulary(Path(str(path)))
    return load_vocabulary()
