"""Which files of a folder are photographs, and which may enter by their row and caption, unopened."""

import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..conditions.prompts import CaptionForm, build_caption, with_trigger
from ..conditions.vocabulary import Condition
from ..errors import UserError, closed_folder
from ..files import inside
from ..imageset.captions import CaptionFiles
from ..imageset.decode import Rejected, SetAside
from ..imageset.places import UNREAD_SUFFIXES, looks_like_image, named
from .matching import Matches, file_key
from .metadata import RATING, WRITE_YES, MetadataRow, Table, check_values

_SERVED = ("input", "output", "temp")


@dataclass(frozen=True)
class FoundPhotographs:
    """`photographs`: sorted names in the folder, forward slashes; `set_aside`: what is not opened."""

    photographs: tuple[str, ...]
    set_aside: tuple[SetAside, ...]


def require_photographs(folder: Path) -> None:
    """Raise UserError where the folder of photographs is none, or can't be opened."""
    if folder.is_file():
        raise UserError(f"{folder} is a file; give the folder that holds the photographs")
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; check the path of the photographs")
    if (closed := closed_folder(folder)) is not None:
        raise UserError(closed)


def list_photographs(folder: Path, named: Collection[str] = ()) -> FoundPhotographs:
    """Find the photographs in `folder` and its subfolders.

    What `places.looks_like_image` says counts, and what is among `named`, the table's names.
    Hidden files are skipped, links out of the folder are refused, linked folders are not entered.

    Raises:
        UserError: the folder is missing.
    """
    folder = Path(folder)
    require_photographs(folder)
    keys = {file_key(name).casefold() for name in named}
    found: list[str] = []
    refused: list[SetAside] = []
    for place, folders, files in os.walk(folder, followlinks=False, onerror=_unreadable):
        here = Path(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in [name for name in folders if (here / name).is_symlink()] + sorted(files):
            if name.startswith("."):
                continue
            path = here / name
            relative = path.relative_to(folder).as_posix()
            suffix = path.suffix.lower()
            wanted = looks_like_image(path) or file_key(relative).casefold() in keys
            try:
                inside(folder, relative)
            except UserError:
                if wanted or path.is_dir():
                    refused.append(SetAside(relative, "outside", "copy the file itself into the folder"))
                continue
            if not wanted or path.is_dir():
                continue
            if suffix in UNREAD_SUFFIXES:
                detail = f"{suffix} is not read; export it as JPEG, PNG or TIFF"
                refused.append(SetAside(relative, "unsupported", detail))
            else:
                found.append(relative)
    return FoundPhotographs(tuple(sorted(found)), tuple(refused))


def served_folder(path: Path) -> str | None:
    """`input`, `output` or `temp` when `path` lies under that folder of a ComfyUI, which its server shows to
    everyone who can reach it; otherwise None."""
    resolved = Path(path).resolve()
    for ancestor in (resolved, *resolved.parents):
        if ancestor.name.lower() in _SERVED and _is_comfyui(ancestor.parent):
            return ancestor.name
    return None


def served_warnings(photos: Path, out: Path) -> list[str]:
    """A sentence for each of the two folders that lies where ComfyUI's server shows it."""
    places = (("the folder of photographs", photos, "move it"), ("the dataset", out, "choose another --out"))
    return [
        f"{what} {path} lies under ComfyUI's {served} folder, shown to all who reach its server; {advice}"
        for what, path, advice in places
        if (served := served_folder(path))
    ]


def _is_comfyui(folder: Path) -> bool:
    """A checkout (folder_paths.py), or a base directory (custom_nodes beside input or output)."""
    return (folder / "folder_paths.py").is_file() or (folder / "custom_nodes").is_dir()


def _unreadable(error: OSError) -> None:
    raise UserError(
        f"the folder {error.filename} can't be read ({error.strerror}); change its permissions or move it"
    )


CaptionBuilder = Callable[[Mapping[str, str], str | None], str]
"""(attributes, text of the sidecar or None) -> caption; may raise Rejected."""

_BRACKETED_WORD = re.compile(r"\[(\w+)\]")


def caption_builder(condition: Condition, form: CaptionForm) -> CaptionBuilder:
    """How a photograph gets its caption: from its sidecar, which wins, or from its attributes.

    The trigger comes first in the one form (`[CLP]`, or bare) that all captions of a LoRA share: a sidecar
    that begins with it is brought to that form, another one gets it in front. What is returned raises
    Rejected for another trigger in brackets.
    """

    def build(attributes: Mapping[str, str], sidecar: str | None) -> str:
        if sidecar is None:
            return build_caption(condition, attributes, bracketed=form.bracketed, whole=form.whole)
        tag = _BRACKETED_WORD.match(sidecar)
        if tag and tag[1] != condition.trigger:
            raise Rejected(
                "caption",
                f"its .txt begins with [{tag[1]}], the trigger is [{condition.trigger}]; correct it",
            )
        return with_trigger(condition, sidecar, bracketed=form.bracketed)

    return build


@dataclass(frozen=True)
class Columns:
    """What the condition's vocabulary asks of the table.

    Attributes:
        allowed: values by column, in the vocabulary's order.
        required: those of them that must not be empty.
        admitted: columns whose value decides whether a photograph belongs to this condition.
    """

    allowed: Mapping[str, tuple[str, ...]]
    required: tuple[str, ...]
    admitted: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Candidate:
    """A photograph with consent and usable metadata.

    `subject` is the table's subject id, private; `rating`: whether the raters of a study may see it.
    """

    file: str
    attributes: Mapping[str, str]
    caption: str
    subject: str | None
    rating: bool = False


def columns_of(condition: Condition) -> Columns:
    """The columns whose values the vocabulary lists, but for the consents, which have rules of their own."""
    consents = ("consent", RATING)
    checked = {name: item for name, item in condition.columns.items() if item.values and name not in consents}
    return Columns(
        allowed={name: column.values for name, column in checked.items()},
        required=tuple(name for name, column in checked.items() if column.required),
        admitted=condition.metadata,
    )


def admit(
    sidecars: CaptionFiles,
    listing: FoundPhotographs,
    table: Table,
    matches: Matches,
    columns: Columns,
    caption: CaptionBuilder,
) -> tuple[list[Candidate], list[SetAside]]:
    """Sort the listed photographs into candidates and those set aside, by their rows alone.

    Reported as well: a photograph without a row, a row without a photograph.

    Raises:
        UserError: a required column is missing, and a photograph with consent has no sidecar caption to make
            up for it.
    """
    aside = list(listing.set_aside)
    for row, meant in matches.unmatched:
        what = f"no such photograph{meant}" if row.file else "the column file is empty"
        detail = f"line {row.line}: {what}"
        aside.append(SetAside(row.file or f"(line {row.line})", "row_without_photo", detail))
    candidates = []
    for name in listing.photographs:
        try:
            candidates.append(_candidate(sidecars, name, matches.rows.get(name, []), columns, table, caption))
        except Rejected as rejection:
            aside.append(SetAside(name, rejection.reason, rejection.detail))
    return candidates, aside


def without_consent(listing: FoundPhotographs, matches: Matches) -> list[str]:
    """Names of the listed photographs that have a row which does not say `consent = yes`."""
    return [
        name
        for name in listing.photographs
        if name in matches.rows and not all(row.consent for row in matches.rows[name])
    ]


def unknown_columns(table: Table, condition: Condition) -> list[str]:
    """A sentence on the table's columns that the vocabulary does not have: what they say reaches nothing."""
    known = {"file", "consent", RATING, "subject_id", *condition.columns}
    unknown = [name for name in table.columns if name and name not in known]
    if not unknown:
        return []
    return [
        f"columns of the table that the vocabulary does not have were ignored ({len(unknown)}): "
        f"{named(unknown)}; it has: {', '.join(condition.columns)}"
    ]


def with_consent(listing: FoundPhotographs, matches: Matches) -> list[str]:
    """Names of the listed photographs whose rows all say `consent = yes`, whatever else they say."""
    found = {name: matches.rows.get(name, []) for name in listing.photographs}
    return [name for name, rows in found.items() if rows and all(row.consent for row in rows)]


def subject_of(row: MetadataRow) -> str | None:
    """The table's subject id in one spelling; None where the row has none."""
    return " ".join(row.values.get("subject_id", "").casefold().split()) or None


def _candidate(
    sidecars: CaptionFiles,
    name: str,
    rows: list[MetadataRow],
    columns: Columns,
    table: Table,
    caption: CaptionBuilder,
) -> Candidate:
    if not rows:
        raise Rejected("no_row", "write a row for it into the metadata table")
    row = rows[0]
    if not all(item.consent for item in rows):
        given = next(item for item in rows if not item.consent)
        value = given.values.get("consent", "")
        hint = f"; {WRITE_YES}" if given.unclear else ""
        raise Rejected("no_consent", given.problem or f"line {given.line}: consent is {value!r}{hint}")
    if any(item.values != row.values for item in rows):
        raise Rejected("row_conflict", f"lines {', '.join(str(item.line) for item in rows)} differ; keep one")
    sidecar = sidecars.read(name)
    if table.statement is not None and not sidecar:
        raise Rejected("metadata", "there is no table: write a caption into a .txt file beside it")
    optional = columns.allowed if sidecar else set(columns.allowed) - set(columns.required)
    for column, values in columns.admitted.items():
        given_value = row.values.get(column, "").casefold()
        if given_value in {item.casefold() for item in columns.allowed.get(column, ())} - set(values):
            raise Rejected("other_condition", f"line {row.line}: {column} is {given_value}")
    missing = [column for column in columns.required if column not in table.columns]
    if missing and not sidecar:
        found = ", ".join(filter(None, table.columns))
        raise UserError(
            f"the metadata table has no column {', '.join(missing)} (found: {found}); "
            "add them, or write a caption into a .txt file beside every photograph"
        )
    attributes, problem = check_values(row, columns.allowed, optional)
    if problem:
        raise Rejected("metadata", problem)
    rating = all(item.rating_consent for item in rows)
    return Candidate(name, attributes, caption(attributes, sidecar), subject_of(row), rating)
