"""The artifact filter over the training photographs, for the report: counts alone leave this place."""

import json
from pathlib import Path
from typing import Any

from ..dataset.ingest import read_image
from ..dataset.reasons import Rejected
from ..errors import UserError
from ..faces.analyzer import FaceAnalyzer
from ..faces.references import FACES_CACHE, dataset_records
from ..files import private_dir, read_jsonl, write_jsonl
from ..progress import progress
from .apply import settings_key
from .artifacts import ArtifactFilter, unreadable_verdict
from .verdicts import combined

VERDICTS = "artifacts.jsonl"


def photograph_verdicts(
    dataset: Path, artifacts: ArtifactFilter, analyzer: FaceAnalyzer
) -> list[dict[str, Any]]:
    """The verdicts on the training photographs of `dataset`, in no order that means anything.

    Nothing is moved or changed. Verdicts are kept in the dataset's private cache, by the image's pixels and
    the filter's settings. What may be shown is `summary.photographs_summary` of them.
    """
    rows, records = dataset_records(dataset, analyzer)
    settings = settings_key(artifacts, None)
    place = private_dir(dataset / FACES_CACHE) / VERDICTS
    known = _known(place, settings)
    verdicts = []
    for row, record in progress(zip(rows, records, strict=True), "photographs", total=len(rows)):
        found = known.get(str(row.sha256))
        if found is None:
            try:
                image = read_image(dataset / row.file)
            except Rejected:
                found = combined(unreadable_verdict(), settings=settings)
            else:
                found = combined(artifacts.check(image, record), settings=settings)
            known[str(row.sha256)] = found
        verdicts.append(found)
    write_jsonl(place, ({"pixels": pixels, "verdicts": found} for pixels, found in known.items()))
    return sorted(verdicts, key=json.dumps)


def _known(place: Path, settings: str) -> dict[str, dict[str, Any]]:
    if not place.is_file():
        return {}
    try:
        rows = read_jsonl(place)
    except UserError:  # it can be made again
        return {}
    return {
        str(row["pixels"]): row["verdicts"]
        for row in rows
        if row.get("verdicts", {}).get("settings") == settings
    }
