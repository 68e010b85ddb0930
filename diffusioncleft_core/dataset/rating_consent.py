"""Which photographs of a dataset the raters of a study may see, and which studies show some.

`rating_consent.json` holds the pixel hashes of photographs whose rows said `consent_rating = yes` at the last
build; `studies.jsonl` the folders of the studies that were drawn from the dataset. Both are private, and no
training depends on them.
"""

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import append_jsonl, explained, read_json, read_jsonl, shown, write_json
from .admission import list_photographs
from .examine import Ledger
from .folder import RATING_CONSENT, SETTINGS, STUDIES
from .matching import match_rows
from .metadata import MetadataRow, read_table
from .opened import hashes_of


def write_rating_consent(dataset: Path, hashes: Collection[str]) -> None:
    """Record the photographs that may be shown, by pixel hash."""
    write_json(dataset / RATING_CONSENT, {"photographs": sorted(hashes)})


def recorded_rating_consent(dataset: Path) -> frozenset[str]:
    """What the last build recorded; none for a dataset of an earlier version."""
    path = dataset / RATING_CONSENT
    found = read_json(path) if path.is_file() else {}
    rows = found.get("photographs") if isinstance(found, dict) else None
    if not isinstance(rows, list):
        return frozenset()
    return frozenset(map(str, rows))


def rating_consent(dataset: Path) -> frozenset[str]:
    """Pixel hashes of the photographs that may be shown now.

    Those of the last build that lie in the folder with a row that says `yes`, and no other: what changes
    there counts at once, without a build. While the folder is out of reach, the last build counts.
    """
    recorded = recorded_rating_consent(dataset)
    photos, table = photographs_of(dataset), _arguments(dataset).get("metadata")
    if not recorded or photos is None or out_of_reach(photos):
        return recorded
    said = Path(str(table)) if table else None
    examined = Ledger(dataset).examined
    allowed, denied = (
        {found.pixels for source in sources if (found := examined.get(source))}
        for sources in (
            shown_to_raters(photos, said).values(),
            hashes_of(photos, withheld_from_raters(photos, said)),
        )
    )
    return recorded & (allowed - denied)


def photographs_of(dataset: Path) -> Path | None:
    """The folder of photographs that a dataset was built from; None where it notes none."""
    photos = _arguments(dataset).get("photos")
    return Path(str(photos)) if photos else None


def out_of_reach(photos: Path) -> str | None:
    """What keeps a folder of photographs from being asked who withdrew, the first half of a sentence.

    It is not there, or nothing is in it, as at the place of a drive that is not mounted. None for others.
    """
    if not photos.is_dir():
        return f"the photographs in {shown(photos)} are not there"
    with explained(photos), os.scandir(photos) as entries:
        return None if any(entries) else f"{shown(photos)} is empty (is the drive mounted?)"


def withheld_from_raters(photos: Path, table: Path | None) -> list[str]:
    """Names of the photographs in a folder that no row, or not every row, lets raters see."""
    rows = _rows(table)
    listed = list_photographs(photos, {row.file for row in rows}).photographs
    matched = match_rows(listed, rows).rows
    return [
        name
        for name in listed
        if not (found := matched.get(name)) or not all(row.rating_consent for row in found)
    ]


def shown_to_raters(photos: Path, table: Path | None) -> dict[str, str]:
    """The photographs in a folder that raters may see, and the SHA-256 of each.

    A copy of one that they may not see is none of them, whatever its own row says.
    """
    listed = list_photographs(photos, {row.file for row in _rows(table)}).photographs
    withheld = withheld_from_raters(photos, table)
    denied = hashes_of(photos, withheld)
    found = {}
    for name in sorted({*listed} - {*withheld}):
        digest = hashes_of(photos, [name])
        if digest and not digest & denied:
            found[name] = digest.pop()
    return found


def remember_study(dataset: Path, study: Path) -> None:
    """Note that a study shows photographs of the dataset, so that a consent withdrawn later reaches it."""
    place = str(Path(study).resolve())
    if place not in map(str, studies_of(dataset)):
        append_jsonl(dataset / STUDIES, {"study": place})


def studies_of(dataset: Path) -> list[Path]:
    """The folders of the studies that were drawn from the dataset, wherever they are now."""
    path = dataset / STUDIES
    return [Path(str(row.get("study"))) for row in read_jsonl(path)] if path.is_file() else []


def _arguments(dataset: Path) -> dict[str, Any]:
    described = read_json(dataset / SETTINGS) if (dataset / SETTINGS).is_file() else {}
    arguments = described.get("arguments") if isinstance(described, dict) else None
    return arguments if isinstance(arguments, dict) else {}


def _rows(table: Path | None) -> tuple[MetadataRow, ...]:
    """The table's rows; none where it is gone or can't be read, so that nobody is shown by mistake."""
    try:
        return read_table(table).rows if table is not None else ()
    except UserError:
        return ()
