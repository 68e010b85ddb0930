"""Whether a folder holds photographs: asked wherever somebody names one as a folder of generated images."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import UserError
from ..files import explained, shown
from ..imageset.places import RUN_PRIVATE, RUN_STAGES
from .admission import list_photographs
from .folder import NOTICE, is_dataset
from .folder_consent import STATEMENT_FILE, TABLE
from .matching import match_rows
from .metadata import read_table


def photographs_in(folder: Path) -> str | None:
    """What shows that a folder holds photographs, as `X is …`; None where nothing does.

    Looked at are the folder, what lies below it and what it lies in: a dataset, a private folder of a run, a
    study or a dataset, a CONSENT.txt, a metadata.csv. One further up counts where it lists these files.
    """
    if not folder.is_dir():
        return None
    place = folder.resolve()
    for above in (place, *place.parents):
        where = f"{shown(folder)} {'is' if above == place else f'lies in {shown(above)},'}"
        if is_dataset(above):
            return f"{where} a dataset of photographs"
        if (above / NOTICE).is_file() or (above.name == RUN_PRIVATE and (above / RUN_STAGES).is_dir()):
            return f"{where} a private folder"
        if (above / STATEMENT_FILE).is_file():
            return f"{shown(above)} has a {STATEMENT_FILE}, as photographs have,"
    for below in _folders(place):
        if is_dataset(below) or (below / NOTICE).is_file():
            return (
                f"{shown(folder)} holds {shown(below.relative_to(place))}, a private folder of photographs,"
            )
    tables = tables_of(folder)
    return f"{shown(tables[0].parent)} has a {TABLE}, as photographs have," if tables else None


def refuse_photograph_folder(folder: Path, what: str = "") -> None:
    """Raise UserError where a folder that is named as one of generated images holds photographs.

    what: of the sentence, what it can't be; by default a folder of generated images.
    """
    if (found := photographs_in(folder)) is not None:
        raise UserError(f"{found} and can't be {what or 'a folder of generated images; give one of these'}")


def tables_of(folder: Path) -> list[Path]:
    """The metadata.csv of a folder and of those below it, and those above that list its files."""
    place = folder.resolve()
    own = [found / TABLE for found in _folders(place) if (found / TABLE).is_file()]
    above = [found / TABLE for found in place.parents if (found / TABLE).is_file()]
    if not above:
        return own
    names = list_photographs(place).photographs
    return own + [table for table in above if _lists(table, place, names)]


def _lists(table: Path, folder: Path, names: Sequence[str]) -> bool:
    """Whether a table further up speaks of files in `folder`, with their folders or by bare name."""
    try:
        rows = read_table(table).rows
    except UserError:  # it lacks the column of consent, or is damaged
        with explained(table):
            data = table.read_bytes()
        return any(os.fsencode(Path(name).name) in data for name in names)
    inner = folder.relative_to(table.parent).as_posix()
    if match_rows([f"{inner}/{name}" for name in names], rows).rows:
        return True
    elsewhere = [row for row in rows if not (table.parent / row.file).is_file()]
    return bool(match_rows(names, elsewhere).rows)


def _folders(place: Path) -> Iterator[Path]:
    """The folder and those below it, hidden and linked ones left out."""
    for found, folders, _ in os.walk(place, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield Path(found)
