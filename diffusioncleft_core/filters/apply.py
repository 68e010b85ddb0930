"""Filter a set on disk: verdicts into sidecars and manifest, what is rejected to the folder `rejected/`.

First every image gets its verdict, kept in its sidecar, so that an interrupted call goes on; then, in a
moment, images are moved and the manifest is written. A crash in between is put right by the next call, of the
filter or of the generation.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..dataset.folder import is_dataset
from ..dataset.reasons import Rejected
from ..errors import UserError
from ..faces.analyzer import FaceAnalyzer
from ..faces.records import FaceRecord, face_records, read_image
from ..files import explained, read_json, write_json
from ..locks import folder_lock
from ..progress import progress
from .artifacts import ArtifactFilter, unreadable_verdict
from .identity import IdentityFilter
from .sets import REJECTED, place_of, read_set_rows, write_set_rows
from .verdicts import combined

FACES_CACHE = ".faces"
"""Folder inside a set that keeps its face records, closed to others (0700)."""


@dataclass(frozen=True)
class FilterResult:
    """What a call did. `checked` images were looked at, the verdicts of the others were known."""

    folder: Path
    rows: tuple[dict[str, Any], ...]
    checked: int

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
    a private folder for face records (default `.faces` in the set). Verdicts made with the same filters and
    models are kept. A person's readmission holds for the reasons it overruled. Nothing is deleted. Raises
    UserError for what is no set, for a dataset of photographs, and while another process filters it.
    """
    folder = Path(folder)
    if is_dataset(folder):
        raise UserError(f"{folder} is a dataset of photographs; give the folder of generated images")
    rows = read_set_rows(folder)
    settings = settings_key(artifacts, identity)
    with folder_lock(folder, busy(folder)):
        names = [PurePosixPath(row["file"]).name for row in rows]
        _refuse_twins(folder, names)
        records = face_records(
            folder, [place_of(folder, name) for name in names], analyzer, cache or folder / FACES_CACHE
        )
        checked = 0
        pairs = zip(rows, names, records, strict=True)
        for row, name, record in progress(pairs, "filters", total=len(rows)):
            known = known_verdicts(folder, row, name)
            verdicts = known
            if known.get("settings") != settings:
                verdicts = _judge(folder / place_of(folder, name), record, artifacts, identity, settings)
                verdicts = with_readmission(verdicts, known.get("readmitted"))
                checked += 1
                keep_verdicts(folder, name, verdicts)
            row["verdicts"] = verdicts
        settle(folder, rows)
    return FilterResult(folder, tuple(rows), checked)


def settings_key(artifacts: ArtifactFilter, identity: IdentityFilter | None) -> str:
    """Short hash of everything a verdict depends on beside the image; names no photograph."""
    compared = None
    if identity is not None:
        reference = identity.reference
        compared = [identity.threshold, reference.fingerprint, len(reference), reference.embedder]
    text = json.dumps([artifacts.describe(), compared], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def with_readmission(verdicts: Mapping[str, Any], readmitted: Mapping[str, Any] | None) -> dict[str, Any]:
    """The verdicts, with a person's earlier decision, which holds for the reasons it overruled."""
    if not readmitted:
        return dict(verdicts)
    overruled = set(readmitted.get("overruled", []))
    accepted = set(verdicts["reasons"]) <= overruled
    return {**verdicts, "accepted": accepted, "readmitted": dict(readmitted)}


def settle(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Move images and sidecars to where their verdicts say, then write the manifest of all `rows`."""
    for row in rows:
        name = PurePosixPath(row["file"]).name
        if row.get("verdicts"):
            for item in (name, _sidecar_name(name)):
                _move(folder, item, aside=not row["verdicts"]["accepted"])
        row["file"] = place_of(folder, name)
    write_set_rows(folder, rows)


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


def _refuse_twins(folder: Path, names: Sequence[str]) -> None:
    """Names are told apart without their folders, so that an image keeps its name when it is moved."""
    if len(set(names)) < len(names):
        raise UserError(f"two rows of {folder} have images of one name; give each image a name of its own")


def busy(folder: Path) -> Any:
    return lambda process: (
        f"{folder} is being filtered by process {process}; wait for it, or stop it, and run this again"
    )
