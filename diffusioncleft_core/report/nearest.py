"""The generated faces that are nearest to a training face, for a person to look at. Private.

`private/nearest.json` of a run lists them; `report.private.html` beside it shows each pair side by side.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..dataset.folder import erase
from ..dataset.references import dataset_records
from ..errors import UserError
from ..faces.analyzer import FaceAnalyzer
from ..faces.records import each_face_record, embedding_matrix, face_records
from ..files import inside, private_dir, read_json, write_json
from ..filters.identity import IdentityFilter
from ..filters.verdicts import REVIEW
from ..imageset.decode import read_image
from ..imageset.manifest import image_set_rows
from ..imageset.places import REJECTED, current_place, name_of
from .folders import RunFolders
from .pictures import PREVIEW_VERDICTS
from .run_folder import PRIVATE_HTML

TOP = 20
NEAREST_FILE = "nearest.json"


@dataclass(frozen=True)
class NearestPair:
    """One generated face and the training face it is most like. Paths are relative to the run's folder."""

    condition: str
    generated: str
    photograph: str
    photograph_condition: str
    similarity: float


def nearest_pairs(
    root: Path,
    generated: Mapping[str, Path],
    datasets: Mapping[str, Path],
    analyzer: FaceAnalyzer,
    *,
    cache: Path | None = None,
    top: int = TOP,
) -> list[NearestPair]:
    """The `top` generated images by cosine similarity to any training photograph, the most alike first.

    Each generated image stands with its nearest photograph, of whatever condition. Rejected images are among
    them.

    Args:
        root: the run's folder.
        generated, datasets: folders by condition.
        analyzer: finds the faces.
        cache: a private folder of face records.
        top: images at most.
    """
    photographs: list[tuple[str, Path]] = []
    parts = []
    for name, folder in datasets.items():
        rows, records = dataset_records(folder, analyzer)
        matrix, places = embedding_matrix(records)
        photographs += [(name, inside(folder, rows[place].file)) for place in places]
        parts.append(matrix)
    references = np.concatenate(parts) if parts else np.zeros((0, 512), np.float32)
    if not len(references):
        raise UserError("no training face was found: there is nothing to compare generated faces with")

    def pairs() -> Iterator[NearestPair]:
        for name, folder in generated.items():
            files = [row.file for row in image_set_rows(folder, may_be_empty=True)]
            for place, record in each_face_record(folder, files, analyzer, cache):
                if record.embedding is None:
                    continue
                similarity = references @ record.embedding
                best = int(similarity.argmax())
                of, photograph = photographs[best]
                yield NearestPair(
                    name,
                    relative(root, inside(folder, files[place])),
                    relative(root, photograph),
                    of,
                    round(float(similarity[best]), 4),
                )

    return heapq.nsmallest(top, pairs(), key=lambda pair: (-pair.similarity, pair.generated))


def relative(root: Path, path: Path) -> str:
    """The path from the run's folder, or the whole path of a dataset that lies elsewhere."""
    base = root.resolve()
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else str(path)


def write_nearest(private: Path, pairs: Sequence[NearestPair]) -> Path:
    """Write the list into the run's private folder."""
    path = private_dir(private) / NEAREST_FILE
    write_json(path, [asdict(pair) for pair in pairs])
    return path


def read_nearest(private: Path) -> list[NearestPair]:
    """Read the list; an empty one when there is none."""
    path = private / NEAREST_FILE
    if not path.is_file():
        return []
    rows: Any = read_json(path)
    try:
        return [NearestPair(**row) for row in rows]
    except TypeError as error:
        raise UserError(f"{path} is no list of nearest pairs; delete it and make the report again") from error


def set_folders(root: Path, pairs: Sequence[NearestPair]) -> list[Path]:
    """The sets whose images are among the pairs."""
    folders = [(root / pair.generated).parent for pair in pairs]
    return list(dict.fromkeys(path.parent if path.name == REJECTED else path for path in folders))


def generated_place(root: Path, pair: NearestPair) -> Path:
    """Where the generated image lies now: a person's decision moves it."""
    (folder,) = set_folders(root, [pair])
    return folder / current_place(folder, (root / pair.generated).relative_to(folder).as_posix())


def earlier_reviews(root: Path, pairs: Sequence[NearestPair]) -> dict[str, str]:
    """What a person saw in a pair before, by its generated image; a pair of another similarity is another."""
    seen: dict[tuple[Path, str], Mapping[str, Any]] = {}
    for folder in set_folders(root, pairs):
        if folder.is_dir():
            rows = image_set_rows(folder, may_be_empty=True)
            reviewed = ((row.name, row.verdicts.get(REVIEW)) for row in rows)
            seen |= {(folder, name): review for name, review in reviewed if review}
    found = {}
    for pair in pairs:
        (folder,) = set_folders(root, [pair])
        review = seen.get((folder, name_of(pair.generated)), {})
        if review.get("similarity") == round(pair.similarity, 2):
            found[pair.generated] = str(review.get("verdict"))
    return found


def forget_dataset(dataset: Path) -> None:
    """Erase what lies beside a run's dataset and comes from its photographs: the list of nearest pairs, the
    page of it, and what classifiers said of them. Unread, so that nothing damaged is in a purge's way.

    The next run or report makes them of what is left.
    """
    private = dataset.resolve().parent
    folders = RunFolders(private.parent)
    if folders.private == private and folders.stages.is_dir():
        for file in (PRIVATE_HTML, NEAREST_FILE):
            (private / file).unlink(missing_ok=True)
        erase(folders.downstream)


def judge_previews(
    folder: Path, identity: IdentityFilter, analyzer: FaceAnalyzer, *, cache: Path | None = None
) -> dict[str, dict[str, Any]]:
    """Compare a training's previews with the training faces and write `verdicts.json` beside them.

    A report shows only previews that were compared and stay below the threshold with all. The verdicts name
    no photograph.

    Args:
        folder: of the previews.
        identity: knows every training photograph.
        analyzer: finds the faces.
        cache: a private folder of face records.
    """
    files = sorted(path.name for path in folder.glob("step_*.png"))
    records = face_records(folder, files, analyzer, cache)
    verdicts = {
        name: identity.check(record, None if record.unreadable else read_image(folder / name)).to_json()
        for name, record in zip(files, records, strict=True)
    }
    if files:
        write_json(folder / PREVIEW_VERDICTS, verdicts)
    return verdicts
