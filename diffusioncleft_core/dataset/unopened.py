"""What a build knows before it opens a photograph; `run --check` asks the same."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..conditions.vocabulary import Condition
from ..errors import UserError
from ..imageset.captions import CaptionFiles
from ..imageset.decode import SetAside
from .admission import Candidate, FoundPhotographs, admit, caption_builder, columns_of
from .folder_consent import table_and_photographs
from .matching import Matches, match_rows
from .metadata import Table
from .settings import Photographs


@dataclass(frozen=True)
class Unopened:
    """What folder and table say of photographs before one is opened: which are candidates, which are not."""

    table: Table
    listing: FoundPhotographs
    matches: Matches
    sidecars: CaptionFiles
    candidates: Sequence[Candidate]
    set_aside: Sequence[SetAside]


def look_through(photographs: Photographs, condition: Condition, *, bracketed: bool) -> Unopened:
    """Read the table, list the folder, and bring both together; UserError where that can't be done."""
    photos = photographs.folder
    table, listing = table_and_photographs(photos, photographs.metadata)
    if not listing.photographs:
        raise UserError(f"{photos} holds no photograph; check the path")
    sidecars = CaptionFiles(photos)
    matches = match_rows([*listing.photographs, *(item.file for item in listing.set_aside)], table.rows)
    captions = caption_builder(condition, bracketed)
    candidates, aside = admit(sidecars, listing, table, matches, columns_of(condition), captions)
    return Unopened(table, listing, matches, sidecars, candidates, aside)
