"""Filter a set on disk: verdicts into sidecars and manifest, what is rejected to the folder `rejected/`.

First every image gets its verdict, kept in its sidecar, so that an interrupted call goes on; then the
manifest is written, and then images are moved to where it says. A crash in between is put right by the next
call, of the filter or of the generation, and until then `current_place` finds every image.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..dataset.folder import is_dataset
from ..errors import UserError
from ..faces.analyzer import FaceAnalyzer
from ..faces.records import UNSEEN, FaceRecord, face_records
from ..files import folder_lock, read_json, sha256_bytes, sha256_file, shown, write_json
from ..imageset.decode import INGEST_VERSION, Rejected, read_image
from ..imageset.manifest import ImageRow, read_image_set, unlisted, write_image_set
from ..imageset.places import (
    FACES_CACHE,
    REJECTED,
    current_place,
    move_all,
    name_of,
    named,
    place_for,
    refuse_unmovable,
    sidecar_of,
)
from ..progress import progress
from .artifacts import UNREADABLE, ArtifactFilter, ArtifactVerdict, unreadable_verdict
from .identity import IdentityFilter, IdentityVerdict


@dataclass(frozen=True)
class FilterResult:
    """What a call did. `checked` images were looked at, the verdicts of the others were known.

    `notices`: sentences that name what could not be read, and what lies in the folder and was not judged.
    """

    folder: Path
    rows: tuple[ImageRow, ...]
    checked: int
    notices: tuple[str, ...] = ()

    @property
    def accepted(self) -> int:
        """Images in the filtered set."""
        return sum(row.accepted is True for row in self.rows)

    @property
    def rejected(self) -> int:
        """Images under `rejected/`."""
        return len(self.rows) - self.accepted


def filter_set(
    folder: Path,
    artifacts: ArtifactFilter,
    identity: IdentityFilter | None,
    analyzer: FaceAnalyzer | None,
    *,
    cache: Path | None = None,
) -> FilterResult:
    """Give every image of the set `folder` its verdict and move the rejected ones aside.

    `identity` None leaves identity leaks unlooked for, and the verdicts say so by lacking that part.
    `analyzer` None looks for no faces, where neither filter needs any. `cache`: a private folder for face
    records (default `.faces` in the set). Verdicts on the same content, made with the same filters and
    models, are kept. A person's readmission holds for the reasons it overruled. Nothing is deleted. Raises
    UserError for what is no set, for a dataset of photographs, while another process filters it, and when
    models that know phantoms alone would see something else; then nothing is judged or moved.
    """
    folder = Path(folder)
    if is_dataset(folder):
        raise UserError(f"{folder} is a dataset of photographs; give the folder of generated images")
    read_image_set(folder)  # before the lock's file is made in what is no set
    settings = settings_key(artifacts, identity)
    with folder_lock(folder, busy(folder)):
        rows = read_image_set(folder)
        refuse_unmovable(folder, [row.file for row in rows])
        records = _records(folder, rows, analyzer, cache or folder / FACES_CACHE)
        settled, checked = [], 0
        for row, record in progress(zip(rows, records, strict=True), "filters", total=len(rows)):
            path = folder / row.file
            image = _content_key(path)
            known = known_verdicts(folder, row)
            if known.get("image", image) != image:  # another image of the same name
                known = {}
            verdicts = known
            if (known.get("settings"), known.get("image")) != (settings, image):
                verdicts = judged(path, record, artifacts, identity, settings) | {"image": image}
                verdicts = with_readmission(verdicts, known.get("readmitted"))
                checked += 1
                keep_verdicts(folder, row, verdicts)
            settled.append(replace(row, verdicts=verdicts))
        settled = settle(folder, settled)
    return FilterResult(folder, tuple(settled), checked, tuple(_notices(folder, settled)))


def _records(
    folder: Path, rows: Sequence[ImageRow], analyzer: FaceAnalyzer | None, cache: Path
) -> list[FaceRecord]:
    if analyzer is None:
        return [UNSEEN] * len(rows)
    unknown = analyzer.phantom_only and not _drawn_by_phantom(folder, rows)
    records = face_records(folder, [row.file for row in rows], analyzer, cache)
    readable = [record for record in records if record.unreadable is None]
    if unknown and readable and not any(record.has_face for record in readable):
        raise UserError(
            f"the embedded face models know phantoms alone and found no face in {folder}; "
            "if these are no phantoms, name a face pack (--faces)"
        )
    return records


def _drawn_by_phantom(folder: Path, rows: Sequence[ImageRow]) -> bool:
    """Whether a sidecar says so; UserError where one says that another model drew an image."""
    from ..flux.source import phantom_source

    phantom, known = phantom_source().fingerprint(), False
    for row in rows:
        base = (_read_sidecar(folder, row) or {}).get("base")
        drawn_by = base.get("sha256") if isinstance(base, Mapping) else None
        if drawn_by and drawn_by != phantom:
            raise UserError(
                f"the embedded face models know phantoms alone and {shown(row.file)} in {folder} was drawn "
                "by another model; name a face pack (--faces)"
            )
        known = known or drawn_by == phantom
    return known


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


def settle(folder: Path, rows: Sequence[ImageRow]) -> list[ImageRow]:
    """Write the manifest of all `rows`, then move images and sidecars to where their verdicts say.

    Returns the rows as they now are.
    """
    settled = []
    for row in rows:
        file = current_place(folder, row.file)
        if row.accepted is not None and (folder / file).is_file():
            file = place_for(row.name, accepted=row.accepted)
        settled.append(replace(row, file=file))
    write_image_set(folder, settled)
    move_all(folder, {row.name: row.accepted for row in settled if row.accepted is not None})
    return settled


def judged(
    path: Path,
    record: FaceRecord,
    artifacts: ArtifactFilter,
    identity: IdentityFilter | None,
    settings: str,
) -> dict[str, Any]:
    """The verdicts on the image at `path`, in which the faces of `record` were found."""
    try:
        image = read_image(path)
    except Rejected:
        return verdicts_of(unreadable_verdict(), None, settings)
    return verdicts_of(artifacts.check(image, record), identity.check(record) if identity else None, settings)


def verdicts_of(
    artifacts: ArtifactVerdict, identity: IdentityVerdict | None, settings: str
) -> dict[str, Any]:
    """The field `verdicts` of sidecar and manifest row. `settings`: what the verdict depends on, hashed."""
    reasons = artifacts.reasons
    if identity is not None and (identity.max_similarity is not None or not reasons):
        reasons = [*reasons, *identity.reasons]
    verdicts = {"accepted": not reasons, "reasons": reasons, "artifacts": artifacts.to_json()}
    return verdicts | ({"identity": identity.to_json()} if identity else {}) | {"settings": settings}


def known_verdicts(folder: Path, row: ImageRow) -> dict[str, Any]:
    """The verdicts of an earlier call: the sidecar's; of an image without one, the manifest's."""
    sidecar = _read_sidecar(folder, row)
    known = row.verdicts if sidecar is None else sidecar.get("verdicts")
    return dict(known) if isinstance(known, Mapping) and "accepted" in known else {}


def keep_verdicts(folder: Path, row: ImageRow, verdicts: Mapping[str, Any]) -> None:
    """Write the verdicts on an image into its sidecar, if it has one."""
    sidecar = _read_sidecar(folder, row)
    if sidecar is not None:
        write_json(_sidecar_path(folder, row), {**sidecar, "verdicts": dict(verdicts)})


def _read_sidecar(folder: Path, row: ImageRow) -> dict[str, Any] | None:
    """The JSON file beside an image, if it is one of ours: a foreign folder's own JSON is left alone."""
    path = _sidecar_path(folder, row)
    if not path.is_file():
        return None
    try:
        sidecar = read_json(path)
    except UserError:
        return None
    return sidecar if isinstance(sidecar, dict) and sidecar.get("synthetic") is True else None


def _sidecar_path(folder: Path, row: ImageRow) -> Path:
    return folder / current_place(folder, sidecar_of(Path(row.name)).name)


def _content_key(path: Path) -> str | None:
    """Tells an image from another one of the same name; None when it can't be read."""
    try:
        return sha256_bytes(sha256_file(path).encode())[:16]
    except OSError:
        return None


def _notices(folder: Path, rows: Sequence[ImageRow]) -> list[str]:
    unreadable = [row.file for row in rows if UNREADABLE in row.reasons]
    told = f"images that can't be read were set aside ({len(unreadable)}): {named(unreadable)}"
    return [*([told] if unreadable else []), *unlisted(folder)]


def busy(folder: Path) -> Any:
    return lambda process: (
        f"{folder} is being filtered by process {process}; wait for it, or stop it, and run this again"
    )


def readmit(folder: Path, files: Sequence[str]) -> list[ImageRow]:
    """Move rejected images back into the set; returns their rows.

    files: names with or without `rejected/`. The verdict stays readable: its reasons and numbers are kept,
    and `readmitted` says when a person overruled which of them. Raises UserError for a name that the set has
    not, and for an image that was not rejected; then nothing is changed.
    """
    folder = Path(folder)
    with folder_lock(folder, busy(folder)):
        rows = {
            row.name: replace(row, verdicts=known_verdicts(folder, row)) for row in read_image_set(folder)
        }
        chosen = [_rejected(folder, rows, file) for file in files]
        today = datetime.now(UTC).date().isoformat()
        for row in chosen:
            decision = {"by": "a person", "date": today, "overruled": row.reasons}
            rows[row.name] = replace(row, verdicts=with_readmission(row.verdicts, decision))
            keep_verdicts(folder, row, rows[row.name].verdicts)
        settled = {row.name: row for row in settle(folder, list(rows.values()))}
    return [settled[row.name] for row in chosen]


def _rejected(folder: Path, rows: Mapping[str, ImageRow], file: str) -> ImageRow:
    by_shown = {shown(name): name for name in rows}
    name = name_of(file)
    if name not in rows:
        name = by_shown.get(name, name_of(file.replace("\\", "/")))
    if name not in rows:
        raise UserError(f"{folder} has no image {file!r}; its rejected ones lie in {folder / REJECTED}")
    if rows[name].accepted is not False:
        raise UserError(f"{shown(file)} was not rejected, so there is nothing to take back")
    return rows[name]
