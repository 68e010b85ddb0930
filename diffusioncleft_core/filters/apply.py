"""Filter a set on disk: verdicts into sidecars and manifest, what is rejected to the folder `rejected/`.

First every image gets its verdict, kept in its sidecar, so that an interrupted call goes on; then the
manifest is written, and then images are moved to where it says. A crash in between is put right by the next
call, of the filter or of the generation, and until then `current_place` finds every image. Rows wait on disk
meanwhile: a set may have a million.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..cluster.work import HERE, Done, Engine, Work, builder
from ..dataset.photographs import refuse_photograph_folder
from ..errors import UserError
from ..faces.analyzer import FaceAnalyzer
from ..faces.records import RECORDS, are_phantoms, face_records, records_key
from ..files import shown
from ..imageset.cache import ContentCache
from ..imageset.manifest import ImageRow, image_set_rows, unlisted, write_image_set
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
from ..imageset.spool import RowSpool, row_spool
from ..progress import progress
from .artifacts import UNREADABLE
from .judging import BLOCK, Judgements, Judging
from .verdicts import (
    Filters,
    content_key,
    file_digest,
    keep_verdicts,
    known_verdicts,
    read_sidecar,
    with_decisions,
)


@dataclass(frozen=True)
class FilterResult:
    """What a call did.

    Attributes:
        images: how many the set has, of which `accepted` are in the filtered set.
        checked: images that were looked at; the verdicts of the others were known.
        notices: sentences that name what could not be read, and what lies in the folder and was not judged.
    """

    folder: Path
    images: int
    accepted: int
    checked: int
    notices: tuple[str, ...] = ()

    @property
    def rejected(self) -> int:
        """Images under `rejected/`."""
        return self.images - self.accepted


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
    next(image_set_rows(folder))  # before the lock's file is made in what is no set
    with set_lock(folder), row_spool(folder) as rows:
        refuse_unmovable(folder, _files_of(rows, image_set_rows(folder)))
        cache = cache or folder / FACES_CACHE
        if (analyzer := filters.analyzer) is not None and analyzer.phantom_only:
            _refuse_people(folder, rows, analyzer, filters.phantom_base, cache, engine)
        checked = _judge(folder, rows, filters, ContentCache(cache, RECORDS), engine)
        accepted, unreadable = settle(folder, rows)
        told = f"images that can't be read were set aside ({len(unreadable)}): {named(unreadable)}"
        notices = [*([told] if unreadable else []), *unlisted(folder)]
        return FilterResult(folder, len(rows), accepted, checked, tuple(notices))


def _files_of(rows: RowSpool, listed: Iterable[ImageRow]) -> Iterator[str]:
    """The files of `listed`, each of which is put into `rows`."""
    for row in listed:
        rows.append(row)
        yield row.file


def _judge(folder: Path, rows: RowSpool, filters: Filters, faces: ContentCache, engine: Engine) -> int:
    """Put the verdicts into `rows`, each kept as it comes; how many are new."""
    jobs = Judgements(rows, faces, records_key(filters.analyzer) if filters.analyzer else None)
    for place, row in enumerate(rows):
        digest = file_digest(folder / row.file)
        known, image = known_verdicts(folder, row), content_key(digest)
        if known.get("image", image) != image:  # another image of the same name
            known = {}
        if (known.get("settings"), known.get("image")) != (filters.key, image):
            jobs.add(place, digest)
        if known != row.verdicts:
            rows[place] = replace(row, verdicts=known)
    judging = Judging(folder, builder(engine, filters, filters.again))
    with progress(len(rows), "filters") as bar:
        bar.update(len(rows) - len(jobs))
        for result in engine.run(Work(judging, block=BLOCK), jobs):
            job, judged = result.job, filters.unread
            if isinstance(result, Done):
                judged, record = result.found.verdicts, result.found.record
                if job.record is None and record.unreadable is None:
                    faces.keep_value(job.key, record.to_json())
            row = rows[job.place]
            row = replace(row, verdicts=with_decisions(judged | {"image": job.image}, row.verdicts))
            keep_verdicts(folder, row, row.verdicts)
            rows[job.place] = row
            bar.set_postfix_str(engine.told(), refresh=False)
            bar.update()
    return len(jobs)


def _refuse_people(
    folder: Path, rows: RowSpool, analyzer: FaceAnalyzer, other: str | None, cache: Path, engine: Engine
) -> None:
    """Raise UserError where face models that know phantoms alone would see something else.

    other: fingerprint of another base model than the embedded one that draws phantoms too.
    """
    if _drawn_by_phantom(folder, rows, other):
        return
    records = face_records(folder, (row.file for row in rows), analyzer, cache, engine=engine)
    readable = [record for record in records if record.unreadable is None]
    if readable and not are_phantoms(readable):
        raise UserError(
            f"the embedded face models know phantoms alone, and to them {folder} holds none; name a face "
            "pack (--faces)"
        )


def _drawn_by_phantom(folder: Path, rows: RowSpool, other: str | None) -> bool:
    """Whether a sidecar says so; UserError where one says that another model drew an image."""
    from ..flux.source import phantom_source

    phantoms, known = {phantom_source().fingerprint(), other}, False
    for row in rows:
        base = (read_sidecar(folder, row) or {}).get("base")
        drawn_by = base.get("sha256") if isinstance(base, Mapping) else None
        if drawn_by and drawn_by not in phantoms:
            raise UserError(
                f"the embedded face models know phantoms alone and {shown(row.file)} in {folder} was drawn "
                "by another model; name a face pack (--faces)"
            )
        known = known or drawn_by in phantoms - {None}
    return known


def settle(folder: Path, rows: Iterable[ImageRow]) -> tuple[int, list[str]]:
    """Write the manifest of all `rows`, then move images and sidecars to where their verdicts say.

    Returns how many are accepted, and where the images lie that can't be read.
    """
    away: dict[str, bool] = {}
    unreadable: list[str] = []
    accepted = 0

    def settled() -> Iterator[ImageRow]:
        nonlocal accepted
        for row in rows:
            accepted += row.accepted is True
            file = current_place(folder, row.file)
            if row.accepted is not None:
                if (folder / file).is_file():
                    file = place_for(row.name, accepted=row.accepted)
                if any(
                    (folder / place_for(name, accepted=not row.accepted)).is_file()
                    for name in (row.name, sidecar_of(Path(row.name)).name)
                ):
                    away[row.name] = row.accepted
            if UNREADABLE in row.reasons:
                unreadable.append(file)
            yield replace(row, file=file)

    write_image_set(folder, settled())
    move_all(folder, away)
    return accepted, unreadable
