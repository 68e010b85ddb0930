"""Filter a set on disk: verdicts into sidecars and manifest, what is rejected to the folder `rejected/`.

First every image gets its verdict, kept in its sidecar, so that an interrupted call goes on; then the
manifest is written, and then images are moved to where it says. A crash in between is put right by the next
call, of the filter or of the generation, and until then `current_place` finds every image.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ..cluster.work import HERE, Done, Engine, Work, builder
from ..dataset.photographs import refuse_photograph_folder
from ..errors import UserError
from ..faces.analyzer import FaceAnalyzer
from ..faces.records import UNSEEN, FaceRecord, are_phantoms, face_records
from ..files import read_json, sha256_bytes, sha256_file, shown, write_json
from ..imageset.decode import INGEST_VERSION, Rejected, read_image
from ..imageset.manifest import ImageRow, read_image_set, unlisted, write_image_set
from ..imageset.places import (
    FACES_CACHE,
    current_place,
    move_all,
    named,
    place_for,
    refuse_unmovable,
    set_lock,
    sidecar_of,
)
from ..progress import progress
from .artifacts import NO_FACE, UNREADABLE, ArtifactFilter, ArtifactVerdict, unreadable_verdict
from .identity import IdentityFilter, IdentityVerdict

PERSON = "person"
"""The reason for which a person rejects an image."""
READMISSION, REJECTION, REVIEW = "readmitted", "rejected_by", "review"
DECISIONS = (READMISSION, REJECTION, REVIEW)
"""Fields of an image's verdicts that a person gave."""


@dataclass(frozen=True)
class Filters:
    """What the images of a set are judged by.

    Attributes:
        artifacts: what images are rejected for beside likeness.
        identity: None leaves identity leaks unlooked for, and the verdicts say so by lacking that part.
        phantom_base: fingerprint of another base model than the embedded one that draws phantoms too.
        again: builds them anew, in another process too; None where nothing can.
    """

    artifacts: ArtifactFilter
    identity: IdentityFilter | None = None
    phantom_base: str | None = None
    again: Callable[[], Filters] | None = field(default=None, compare=False, repr=False)

    @property
    def analyzer(self) -> FaceAnalyzer | None:
        """Finds the faces in the images; None where no filter looks for any."""
        return self.artifacts.analyzer

    @cached_property
    def key(self) -> str:
        """Short hash of everything a verdict depends on beside the image; names no photograph."""
        compared = None if self.identity is None else self.identity.describe()
        text = json.dumps([INGEST_VERSION, self.artifacts.describe(), compared], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def judge(self, path: Path, record: FaceRecord) -> dict[str, Any]:
        """The verdicts on the image at `path`, in which the faces of `record` were found."""
        try:
            image = read_image(path)
        except Rejected:
            return unread_verdicts(self)
        identity = self.identity.check(record, image) if self.identity else None
        return verdicts_of(self.artifacts.check(image, record), identity, self.key)


@dataclass(frozen=True)
class FilterResult:
    """What a call did.

    Attributes:
        checked: images that were looked at; the verdicts of the others were known.
        notices: sentences that name what could not be read, and what lies in the folder and was not judged.
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
    folder: Path, filters: Filters, *, cache: Path | None = None, engine: Engine = HERE
) -> FilterResult:
    """Give every image of the set `folder` its verdict and move the rejected ones aside.

    Verdicts on the same content, made with the same filters and models, are kept, and so is what a person
    decided (see `decisions`). Nothing is deleted.

    Args:
        folder: a generated set, or a folder of images.
        filters: what is looked for.
        cache: private folder for face records (default `.faces` in the set).
        engine: who looks and judges: this process, or workers on Ray that see the same folders.

    Raises:
        UserError: `folder` is no set or a dataset of photographs, another process is filtering it, or face
            models that know phantoms alone would see something else; then nothing is judged or moved.
    """
    folder = Path(folder)
    refuse_photograph_folder(folder)
    read_image_set(folder)  # before the lock's file is made in what is no set
    with set_lock(folder):
        rows = read_image_set(folder)
        refuse_unmovable(folder, [row.file for row in rows])
        records = _records(folder, rows, filters, cache or folder / FACES_CACHE, engine)
        verdicts, checked = _verdicts(folder, rows, records, filters, engine)
        settled = settle(
            folder, [replace(row, verdicts=found) for row, found in zip(rows, verdicts, strict=True)]
        )
    return FilterResult(folder, tuple(settled), checked, tuple(_notices(folder, settled)))


def _verdicts(
    folder: Path,
    rows: Sequence[ImageRow],
    records: Sequence[FaceRecord],
    filters: Filters,
    engine: Engine,
) -> tuple[list[dict[str, Any]], int]:
    """The verdicts on all images, and how many are new; each is kept as it comes."""
    verdicts: dict[int, dict[str, Any]] = {}
    jobs = []
    with progress(len(rows), "filters") as bar:
        for place, (row, record) in enumerate(zip(rows, records, strict=True)):
            image = content_key(folder / row.file)
            known = known_verdicts(folder, row)
            if known.get("image", image) != image:  # another image of the same name
                known = {}
            verdicts[place] = known
            if (known.get("settings"), known.get("image")) != (filters.key, image):
                jobs.append(Judgement(place, row.file, image, record))
            else:
                bar.update()
        judging = Judging(folder, builder(engine, filters, filters.again))
        for result in engine.run(Work(judging, block=len(jobs) or 1), jobs):
            job = result.job
            judged = result.found if isinstance(result, Done) else unread_verdicts(filters)
            verdicts[job.place] = with_decisions(judged | {"image": job.image}, verdicts[job.place])
            keep_verdicts(folder, rows[job.place], verdicts[job.place])
            bar.set_postfix_str(engine.told(), refresh=False)
            bar.update()
    return [verdicts[place] for place in range(len(rows))], len(jobs)


@dataclass(frozen=True, eq=False)
class Judgement:
    """An image to judge: its place among the rows, its file and content, and the faces found in it."""

    place: int
    file: str
    image: str | None
    record: FaceRecord


@dataclass(frozen=True)
class Judging:
    """How the worker is built that judges images of `folder`."""

    folder: Path
    filters: Callable[[], Filters]

    def __call__(self) -> ImageJudge:
        return ImageJudge(self.folder, self.filters())


def unread_verdicts(filters: Filters) -> dict[str, Any]:
    """The verdicts on an image that can't be looked at: it is rejected."""
    return verdicts_of(unreadable_verdict(), None, filters.key)


class ImageJudge:
    """Judges images by the filters."""

    def __init__(self, folder: Path, filters: Filters) -> None:
        self._folder, self._filters = folder, filters

    def prepare(self, jobs: Sequence[Judgement]) -> None:
        """See `Worker.prepare`."""

    def do(self, job: Judgement) -> dict[str, Any]:
        """The verdicts on an image."""
        return self._filters.judge(self._folder / job.file, job.record)

    def close(self) -> None:
        """See `Worker.close`."""


def _records(
    folder: Path, rows: Sequence[ImageRow], filters: Filters, cache: Path, engine: Engine
) -> list[FaceRecord]:
    analyzer = filters.analyzer
    if analyzer is None:
        return [UNSEEN] * len(rows)
    unknown = analyzer.phantom_only and not _drawn_by_phantom(folder, rows, filters.phantom_base)
    records = face_records(folder, [row.file for row in rows], analyzer, cache, engine=engine)
    readable = [record for record in records if record.unreadable is None]
    if unknown and readable and not are_phantoms(readable):
        raise UserError(
            f"the embedded face models know phantoms alone, and to them {folder} holds none; name a face "
            "pack (--faces)"
        )
    return records


def _drawn_by_phantom(folder: Path, rows: Sequence[ImageRow], other: str | None) -> bool:
    """Whether a sidecar says so; UserError where one says that another model drew an image."""
    from ..flux.source import phantom_source

    phantoms, known = {phantom_source().fingerprint(), other}, False
    for row in rows:
        base = (_read_sidecar(folder, row) or {}).get("base")
        drawn_by = base.get("sha256") if isinstance(base, Mapping) else None
        if drawn_by and drawn_by not in phantoms:
            raise UserError(
                f"the embedded face models know phantoms alone and {shown(row.file)} in {folder} was drawn "
                "by another model; name a face pack (--faces)"
            )
        known = known or drawn_by in phantoms - {None}
    return known


def with_decisions(verdicts: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """The filters' verdicts with what a person decided, as `known` has it.


    A readmission holds for the reasons that it overruled; a rejection is a reason of its own; a review says
    what the person saw.
    """
    decided = {name: dict(known[name]) for name in DECISIONS if known.get(name)}
    reasons = [reason for reason in verdicts["reasons"] if reason != PERSON]
    reasons += [PERSON] if REJECTION in decided else []
    overruled = set(decided.get(READMISSION, {}).get("overruled", []))
    others = {name: value for name, value in verdicts.items() if name not in DECISIONS}
    return {**others, "accepted": set(reasons) <= overruled, "reasons": reasons, **decided}


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


def verdicts_of(
    artifacts: ArtifactVerdict, identity: IdentityVerdict | None, settings: str
) -> dict[str, Any]:
    """The field `verdicts` of sidecar and manifest row. `settings`: what the verdict depends on, hashed."""
    reasons = artifacts.reasons
    if identity is not None:
        reasons = [*reasons, *(item for item in identity.reasons if item != NO_FACE or not reasons)]
    verdicts = {"accepted": not reasons, "reasons": reasons, "artifacts": artifacts.to_json()}
    return verdicts | ({"identity": identity.to_json()} if identity else {}) | {"settings": settings}


def known_verdicts(folder: Path, row: ImageRow) -> dict[str, Any]:
    """The verdicts of an earlier call: the sidecar's; of an image without one, the manifest's."""
    sidecar = _read_sidecar(folder, row)
    known = row.verdicts if sidecar is None else sidecar.get("verdicts")
    if not isinstance(known, Mapping) or not {"accepted", *DECISIONS} & known.keys():
        return {}
    return dict(known)


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


def content_key(path: Path) -> str | None:
    """Tells an image from another one of the same name; None when it can't be read."""
    try:
        return sha256_bytes(sha256_file(path).encode())[:16]
    except OSError:
        return None


def _notices(folder: Path, rows: Sequence[ImageRow]) -> list[str]:
    unreadable = [row.file for row in rows if UNREADABLE in row.reasons]
    told = f"images that can't be read were set aside ({len(unreadable)}): {named(unreadable)}"
    return [*([told] if unreadable else []), *unlisted(folder)]
