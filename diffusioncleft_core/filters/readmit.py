"""Take back what a filter rejected: a person looked at it and decided."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import UserError
from ..files import shown
from ..locks import folder_lock
from .apply import busy, keep_verdicts, known_verdicts, settle, with_readmission
from .sets import read_set_rows


def readmit(folder: Path, files: Sequence[str]) -> list[dict[str, Any]]:
    """Move rejected images back into the set; returns their rows.

    files: names with or without `rejected/`. The verdict stays readable: its reasons and numbers are kept,
    and `readmitted` says when a person overruled which of them. Raises UserError for a name that the set has
    not, and for an image that was not rejected; then nothing is changed.
    """
    folder = Path(folder)
    with folder_lock(folder, busy(folder)):
        rows = read_set_rows(folder)
        for row in rows:
            row["verdicts"] = known_verdicts(folder, row, PurePosixPath(row["file"]).name)
        by_name = {PurePosixPath(row["file"]).name: row for row in rows}
        chosen = [_rejected(folder, by_name, file) for file in files]
        today = datetime.now(UTC).date().isoformat()
        for row in chosen:
            decision = {"by": "a person", "date": today, "overruled": list(row["verdicts"]["reasons"])}
            row["verdicts"] = with_readmission(row["verdicts"], decision)
            keep_verdicts(folder, PurePosixPath(row["file"]).name, row["verdicts"])
        settle(folder, rows)
    return chosen


def _rejected(folder: Path, rows: dict[str, dict[str, Any]], file: str) -> dict[str, Any]:
    by_shown = {shown(name): name for name in rows}
    name = PurePosixPath(file).name
    if name not in rows:
        name = by_shown.get(name, PurePosixPath(file.replace("\\", "/")).name)
    if name not in rows:
        raise UserError(f"{folder} has no image {file!r}; its rejected ones lie in {folder / 'rejected'}")
    row = rows[name]
    if row["verdicts"].get("accepted") is not False:
        raise UserError(f"{shown(file)} was not rejected, so there is nothing to take back")
    return row
