"""Filter a set on disk: verdicts into sidecars and manifest, what is rejected to the folder `rejected/`.

First every image gets its verdict, kept in its sidecar, so that an interrupted call goes on; then the
manifest is written, and then images are moved to where it says. A crash in between is put right by the next
call, of the filter or of the generation, and until then `current_place` finds every image.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from ..dataset.folder import is_dataset
from ..errors import UserError
from ..faces.analyzer import FaceAnalyzer
from ..faces.records import FaceRecord, face_records
from ..files import explained, folder_lock, read_json, sha256_bytes, sha256_file, shown, write_json
from ..imageset.decode import INGEST_VERSION, Rejected, read_image
from ..imageset.listing import named
from ..imageset.manifest import FACES_CACHE, REJECTED, place_of, read_set_rows, unlisted, write_set_rows
from ..imageset.verdicts import UNREADABLE, combined
from ..progress import progress
from .artifacts import ArtifactFilter, unreadable_verdict
from .identity import IdentityFilter


@dataclass(frozen=True)
class FilterResult:
    """What a call did. `checked` images were looked at, the verdicts of the others were known.

    `notices`: sentences that name what could not be read, and what lies in the folder and was not judged.
    """

    folder: Path
    rows: tuple[dict[str, Any], ...]
    checked: int
    notices: tuple[str, ...] = ()

    @property
    def accepted(self) -> int:
        """Images in the filtered set."""
        return sum(row["verdicts"]["accepted"] for row in self.rows)

    @property
    def rejected(self) -> int:
        """Images under `rejected/`."""
        return len(self.rows) - self.accepted


def filter_set(
    folder: Path,
    artifacts: ArtifactFilter,
    identity: IdentityFilter | None,
    analyzer: FaceAnalyzer,
    *,
    cache: Path | None = None,
) -> FilterResult:
    """Give every image of the set `folder` its verdict and move the rejected ones aside.

    `identity` None leaves identity leaks unlooked for, and the verdicts say so by lacking that part. `cache`:
    a private folder for face records (default `.faces` in the set). Verdicts on the same content, made with
    the same filters and models, are kept. A person's readmission holds for the reasons it overruled. Nothing
    is deleted. Raises UserError for what is no set, for a dataset of photographs, and while another process
    filters it.
    """
    folder = Path(folder)
    if is_dataset(folder):
        raise UserError(f"{folder} is a dataset of photographs; give the folder of generated images")
    read_set_rows(folder)  # before the lock's file is made in what is no set
    settings = settings_key(artifacts, identity)
    with folder_lock(folder, busy(folder)):
        rows = read_set_rows(folder)
        names = [PurePosixPath(row["file"]).name for row in rows]
        _refuse_unmovable(folder, rows)
        records = face_records(
            folder, [place_of(folder, name) for name in names], analyzer, cache or folder / FACES_CACHE
        )
        checked = 0
        pairs = zip(rows, names, records, strict=True)
        for row, name, record in progress(pairs, "filters", total=len(rows)):
            path = folder / place_of(folder, name)
            image = _content_key(path)
            known = known_verdicts(folder, row, name)
            if known.get("image", image) != image:  # another image of the same name
                known = {}
            verdicts = known
            if (known.get("settings"), known.get("image")) != (settings, image):
                verdicts = _judge(path, record, artifacts, identity, settings) | {"image": image}
                verdicts = with_readmission(verdicts, known.get("readmitted"))
                checked += 1
                keep_verdicts(folder, name, verdicts)
            row["verdicts"] = verdicts
        settle(folder, rows)
    return FilterResult(folder, tuple(rows), checked, tuple(_notices(folder, rows)))


def settings_key(artifacts: ArtifactFilter, identity: IdentityFilter | None) -> str:
    """Short hash of everything a verdict depends on beside the image; names no photograph."""
    compared = None
    if identity is not None:
        reference = identity.reference
        compared = [identity.threshold, reference.fingerprint, len(reference), reference.embedder]
    text = json.dumps([INGEST_VERSION, artifacts.describe(), compared], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def with_readmission(verdicts: Mapping[str, Any], readmitted: Mapping[str, Any] | None) -> dict[str, Any]:
    """The verdicts, with a person's earlier decision, which holds for the reasons it overruled."""
    if not readmitted:
        return dict(verdicts)
    overruled = set(readmitted.get("overruled", []))
    accepted = set(verdicts["reasons"]) <= overruled
    return {**verdicts, "accepted": accepted, "readmitted": dict(readmitted)}


def settle(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write the manifest of all `rows`, then move images and sidecars to where their verdicts say."""
    for row in rows:
        name = PurePosixPath(row["file"]).name
        row["file"] = place_of(folder, name)
        if row.get("verdicts") and (folder / row["file"]).is_file():
            row["file"] = name if row["verdicts"]["accepted"] else f"{REJECTED}/{name}"
    write_set_rows(folder, rows)
    for row in rows:
        name = PurePosixPath(row["file"]).name
        if row.get("verdicts"):
            for item in (name, _sidecar_name(name)):
                _move(folder, item, aside=not row["verdicts"]["accepted"])


def _judge(
    path: Path,
    record: FaceRecord,
    artifacts: ArtifactFilter,
    identity: IdentityFilter | None,
    settings: str,
) -> dict[str, Any]:
    try:
        image = read_image(path)
    except Rejected:
        return combined(unreadable_verdict(), settings=settings)
    found = artifacts.check(image, record)
    return combined(found, identity.check(record) if identity else None, settings=settings)


def known_verdicts(folder: Path, row: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The verdicts of an earlier call: the sidecar's; of an image without one, the manifest's."""
    sidecar = _read_sidecar(folder, name)
    known = row.get("verdicts") if sidecar is None else sidecar.get("verdicts")
    return dict(known) if isinstance(known, Mapping) and "accepted" in known else {}


def keep_verdicts(folder: Path, name: str, verdicts: Mapping[str, Any]) -> None:
    sidecar = _read_sidecar(folder, name)
    if sidecar is not None:
        write_json(folder / place_of(folder, _sidecar_name(name)), {**sidecar, "verdicts": dict(verdicts)})


def _read_sidecar(folder: Path, name: str) -> dict[str, Any] | None:
    """The JSON file beside an image, if it is one of ours: a foreign folder's own JSON is left alone."""
    path = folder / place_of(folder, _sidecar_name(name))
    if not path.is_file():
        return None
    try:
        sidecar = read_json(path)
    except UserError:
        return None
    return sidecar if isinstance(sidecar, dict) and sidecar.get("synthetic") is True else None


def _sidecar_name(name: str) -> str:
    return f"{PurePosixPath(name).stem}.json"


def _move(folder: Path, name: str, aside: bool) -> None:
    here, there = folder / name, folder / REJECTED / name
    source, target = (here, there) if aside else (there, here)
    if source.is_file():
        with explained(target):
            target.parent.mkdir(exist_ok=True)
            os.replace(source, target)


def _refuse_unmovable(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """An image keeps its name when it is moved, so that names must differ without their folders."""
    if (folder / REJECTED).exists() and not (folder / REJECTED).is_dir():
        raise UserError(f"{folder / REJECTED} is a file; rename it: rejected images are moved to this folder")
    seen = set()
    for path in (PurePosixPath(row["file"]) for row in rows):
        if path.parent not in (PurePosixPath(), PurePosixPath(REJECTED)):
            raise UserError(
                f"{folder} has images in subfolders ({shown(path)}); a set that is filtered has them in one "
                "folder, photographs of a dataset are judged with --photographs"
            )
        if path.name in seen or (
            (folder / path.name).is_file() and (folder / REJECTED / path.name).is_file()
        ):
            raise UserError(
                f"{folder} has two images of the name {shown(path.name)}; give each a name of its own"
            )
        seen.add(path.name)


def _content_key(path: Path) -> str | None:
    """Tells an image from another one of the same name; None when it can't be read."""
    try:
        return sha256_bytes(sha256_file(path).encode())[:16]
    except OSError:
        return None


def _notices(folder: Path, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    unreadable = [row["file"] for row in rows if UNREADABLE in row["verdicts"]["reasons"]]
    told = f"images that can't be read were set aside ({len(unreadable)}): {named(unreadable)}"
    return [*([told] if unreadable else []), *unlisted(folder)]


def busy(folder: Path) -> Any:
    return lambda process: (
        f"{folder} is being filtered by process {process}; wait for it, or stop it, and run this again"
    )


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
