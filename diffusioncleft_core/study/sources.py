"""Where pictures come from: generated sets, datasets, and bare folders, and which of theirs may be shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ..conditions.vocabulary import GROUPS, Vocabulary
from ..dataset.admission import list_photographs
from ..dataset.drawn import set_record, set_withdrawal
from ..dataset.folder import SETTINGS as DATASET
from ..dataset.folder import dataset_rows, is_dataset
from ..dataset.folder_consent import TABLE
from ..dataset.matching import match_rows
from ..dataset.metadata import RATING, MetadataRow, read_table
from ..dataset.photographs import refuse_photograph_folder, tables_of
from ..dataset.rating_consent import out_of_reach, rating_consent, shown_to_raters
from ..dataset.withdrawn import SAID
from ..errors import UserError
from ..files import inside, read_json, shown
from ..imageset.manifest import ImageRow, filtered_rows, raw_rows, read_image_set, unlisted
from ..imageset.places import SETTINGS as GENERATION
from ..imageset.places import holds_images
from ..imageset.synthetic import TRAINING
from ..small_counts import FEWEST, is_small
from .design import REAL


@dataclass(frozen=True)
class Source:
    """A folder of pictures of one origin.

    Attributes:
        origin: name of the set.
        folder: a generated set, a dataset, or a bare folder of images.
        role: `generated` or `real`.
        condition: what all of them show, where the folder itself does not say it.
        phantom: the owner says that its photographs are phantoms.
    """

    origin: str
    folder: Path
    role: str
    condition: str | None = None
    phantom: bool = False


@dataclass(frozen=True)
class Picture:
    """A picture that may be shown, and what its set knows of it.

    Attributes:
        folder: of its source.
        photograph: of a person: the pixel hash of a dataset's photograph, or else the file's own.
        subject: label shared by the photographs of one person; "" where unknown.
        lora: by what the LoRA that drew it is known: its training, else the SHA-256 of its file.
        region: [x0, y0, x1, y1] in px, where the finding lies.
    """

    path: Path
    folder: Path
    condition: str | None = None
    groups: dict[str, str | None] = field(default_factory=lambda: dict.fromkeys(GROUPS))
    photograph: str | None = None
    subject: str = ""
    lora: str | None = None
    region: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Found:
    """What may be shown of a source; whether it is phantoms; sentences on what may not, or is not known."""

    pictures: tuple[Picture, ...]
    phantom: bool
    notices: tuple[str, ...] = ()


def by_condition(source: Source, vocabulary: Vocabulary) -> list[Source]:
    """The source, or one for each of its subfolders that is named as a condition and holds images.

    Photographs stay together where one table speaks of them all.

    Raises:
        UserError: photographs are called generated, or several tables speak of the same ones.
    """
    parts = _parts(source, vocabulary)
    called = f"the set {source.origin} of generated images; name the set real"
    for part in dict.fromkeys([source, *parts]):
        if part.role != REAL and not part.phantom:
            refuse_photograph_folder(part.folder, called)
    for part in parts:
        if part.role == REAL and not part.phantom and not is_dataset(part.folder):
            _check_tables(part)
    return parts


def _check_tables(source: Source) -> None:
    """Raise UserError unless no table but the folder's own speaks of its photographs."""
    folder = source.folder
    others = (
        [table for table in tables_of(folder) if table.parent != folder.resolve()] if folder.is_dir() else []
    )
    if others and (folder / TABLE).is_file():
        raise UserError(
            f"{shown(others[0].parent)} and {shown(folder)} each have a {TABLE} that speaks of the same "
            "photographs; keep one, so that there is one word on each"
        )
    above = [table.parent for table in others if folder.resolve().is_relative_to(table.parent)]
    if above:
        raise UserError(
            f"{shown(folder)} has no {TABLE}, and the one in {shown(above[0])} speaks of its photographs; "
            f"give --set {source.origin}={shown(above[0])}"
        )


def _parts(source: Source, vocabulary: Vocabulary) -> list[Source]:
    if source.condition is not None or not source.folder.is_dir() or is_dataset(source.folder):
        return [source]
    if source.role == REAL and (source.folder / TABLE).is_file():
        return [source]
    below = [name for name in vocabulary.conditions if holds_images_in(source.folder / name)]
    return [
        Source(source.origin, source.folder / name, source.role, name, source.phantom) for name in below
    ] or [source]


def holds_images_in(folder: Path) -> bool:
    """Whether there is such a folder with an image in it."""
    return folder.is_dir() and holds_images(folder)


def pictures_of(source: Source, vocabulary: Vocabulary, *, raw: bool = False) -> Found:
    """The pictures of a source that may be shown.

    Photographs of people need `consent_rating`, phantoms none. Of generated images those count that the
    filters accepted, with `raw` the set as first generated; where no filter has looked, all of them, and that
    is said.

    Raises:
        UserError: there is no such folder, it is a dataset under another role than `real`, or it was drawn by
            a LoRA that learned from a photograph whose consent was withdrawn.
    """
    folder = source.folder
    if not folder.is_dir():
        raise UserError(f"{shown(folder)} is no folder; give the folder of the set {source.origin}")
    if is_dataset(folder):
        if source.role != REAL:
            raise UserError(
                f"{shown(folder)} is a dataset of photographs and can't be the set {source.origin} of "
                "generated images; name the set real"
            )
        return _of_dataset(source, vocabulary)
    if source.role == REAL:
        return _of_photographs(source, vocabulary)
    return _of_images(source, vocabulary, raw)


def _of_dataset(source: Source, vocabulary: Vocabulary) -> Found:
    folder = source.folder
    rows = dataset_rows(folder)
    phantom = bool(dataset_description(folder).get("settings", {}).get("phantom"))
    allowed = {row.sha256 for row in rows} if phantom else rating_consent(folder)
    pictures = [
        Picture(
            inside(folder, row.file),
            folder,
            row.condition,
            vocabulary.groups_of(row.attributes),
            None if phantom else row.sha256,
            row.subject or "",
            region=tuple(row.region) if row.region else None,
        )
        for row in rows
        if row.sha256 in allowed
    ]
    return Found(tuple(pictures), phantom, _consent_notice(folder, len(rows), len(pictures)))


def dataset_description(folder: Path) -> dict[str, Any]:
    """A dataset's own `dataset.json`; empty where there is none."""
    found = read_json(folder / DATASET) if (folder / DATASET).is_file() else {}
    return found if isinstance(found, dict) else {}


def _of_photographs(source: Source, vocabulary: Vocabulary) -> Found:
    """Photographs that no dataset holds: the folder's own table says what is known of each."""
    folder = source.folder
    table = folder / TABLE
    if why := out_of_reach(folder):
        raise UserError(f"{why}; give the folder that holds the photographs")
    if not table.is_file() and not source.phantom:
        raise UserError(
            f"{shown(folder)} has no {TABLE}, so nobody's consent to be shown to raters is known; start a "
            f"table with 'diffusioncleft dataset table', and write yes under {RATING} for those who agreed"
        )
    read = read_table(table) if table.is_file() else None
    listed = list_photographs(folder, {row.file for row in read.rows} if read else ())
    rows = match_rows(listed.photographs, read.rows).rows if read else {}
    allowed = None if source.phantom else shown_to_raters(folder, table)
    pictures = []
    for name in listed.photographs:
        if allowed is not None and name not in allowed:
            continue
        row = rows[name][0] if rows.get(name) else MetadataRow(name, 0, {})
        pictures.append(
            Picture(
                inside(folder, name),
                folder,
                source.condition or _folder_condition(name, vocabulary) or _condition_of(row, vocabulary),
                vocabulary.groups_of(row.values),
                None if allowed is None else allowed[name],
                row.values.get("subject_id", ""),
            )
        )
    told = [*(read.notices if read else ()), *_consent_notice(folder, len(listed.photographs), len(pictures))]
    return Found(tuple(pictures), source.phantom, tuple(told))


def _folder_condition(name: str, vocabulary: Vocabulary) -> str | None:
    """The condition after which the folder of a photograph is named."""
    first = PurePosixPath(name).parts[0]
    return first if "/" in name and first in vocabulary.conditions else None


def _condition_of(row: MetadataRow, vocabulary: Vocabulary) -> str | None:
    """The one condition that a table's row admits its photograph to; None where it tells none, or several."""
    fitting = [
        name
        for name, condition in vocabulary.conditions.items()
        if condition.metadata
        and all(row.values.get(key, "").casefold() in values for key, values in condition.metadata.items())
    ]
    return fitting[0] if len(fitting) == 1 else None


def _of_images(source: Source, vocabulary: Vocabulary, raw: bool) -> Found:
    folder = source.folder
    if set_withdrawal(folder) is not None:
        raise UserError(
            f"the images in {shown(folder)} were drawn by a LoRA that {SAID}, so nobody is shown them; draw "
            "them anew, and erase these with 'diffusioncleft dataset withdraw'"
        )
    rows = read_image_set(folder, may_be_empty=True)
    chosen, notices = _chosen(folder, rows, raw)
    record = set_record(folder)
    lora = record.get(TRAINING) or record.get("sha256")
    pictures = [
        Picture(
            inside(folder, row.file),
            folder,
            row.condition or source.condition,
            vocabulary.groups_of(row.attributes),
            lora=lora or row.lora,
        )
        for row in chosen
    ]
    return Found(tuple(pictures), source.phantom or _drawn_by_phantom(folder), (*notices, *unlisted(folder)))


def _chosen(folder: Path, rows: Sequence[ImageRow], raw: bool) -> tuple[list[ImageRow], list[str]]:
    if raw:
        return raw_rows(rows), []
    if any(row.accepted is not None for row in rows):
        accepted = filtered_rows(rows)
        unseen = sum(row.accepted is None for row in rows)
        note = f"{unseen} images in {shown(folder)} have not gone through the filters and are left out"
        return accepted, [note] if unseen else []
    return list(rows), [f"no filter has looked at {shown(folder)}: all its images count as accepted"]


def _drawn_by_phantom(folder: Path) -> bool:
    """Whether a generated set was drawn by the embedded phantom model, as its record says."""
    from ..flux.source import phantom_source

    path = folder / GENERATION
    record = read_json(path) if path.is_file() else None
    base = record.get("base") if isinstance(record, dict) else None
    digest = base.get("sha256") if isinstance(base, dict) else None
    try:
        return digest is not None and digest == phantom_source().fingerprint()
    except UserError:
        return False


def _consent_notice(folder: Path, n: int, allowed: int) -> tuple[str, ...]:
    """Without the number of all, from which that of those they may see would follow."""
    if allowed == n:
        return ()
    withheld = f"fewer than {FEWEST}" if is_small(n - allowed) else f"{n - allowed}"
    return (f"photographs in {shown(folder)} that raters may not see ({RATING} is not yes): {withheld}",)
