"""What a build knows before it opens a photograph; `run --check` asks the same."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..conditions.prompts import AS_PROMPTS, CaptionForm
from ..conditions.vocabulary import Condition
from ..errors import UserError
from ..files import shown
from ..imageset.captions import CaptionFiles
from ..imageset.decode import SetAside
from .admission import Candidate, FoundPhotographs, admit, caption_builder, columns_of
from .folder import is_dataset
from .folder_consent import (
    TABLE,
    built_with,
    consent_is_gone,
    had_statement,
    nobodys_consent,
    table_and_photographs,
)
from .matching import Matches, match_rows
from .metadata import NoConsent, Table
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
    dataset: Path
    lost: str | None = None
    """Of a dataset built before: a sentence on why none of its photographs may enter any more."""


def look_through(
    photographs: Photographs, condition: Condition, *, dataset: Path, form: CaptionForm = AS_PROMPTS
) -> Unopened:
    """Read the table, list the folder, and bring both together.

    Raises:
        UserError: that can't be done. Where `dataset` was built before, photographs that are all gone and a
            table or CONSENT.txt that is gone are no error: they withdraw what was learned from them.
    """
    photos, metadata, built, lost = photographs.folder, photographs.metadata, is_dataset(dataset), None
    gone = built and consent_is_gone(photographs, dataset)
    try:
        if gone and metadata is not None and not metadata.exists() and metadata != photos / TABLE:
            raise NoConsent(f"the table {metadata} is gone", "give the one that says who agreed")
        table, listing = table_and_photographs(photos, metadata)
    except NoConsent as error:
        table, listing = nobodys_consent(photos)
        before = built_with(dataset) if built else None
        if listing.photographs and not gone and before is not None:
            raise UserError(
                f"{error.fact}; {dataset} was built with the table {before}: give it with --metadata"
            ) from error
        if not built or (listing.photographs and not gone):
            raise
        what = "statement" if had_statement(dataset) else "table"
        lost = (
            f"{error.fact}, so the consent for {photos} counts as withdrawn: what learned from its "
            f"photographs is marked, and what {dataset} held of them is erased. Put the {what} back as it "
            f"was and build again, and the marks go; or erase what is left with: {_purge(dataset)}"
        )
    if not listing.photographs:
        if not built:
            raise UserError(f"{photos} holds no photograph; check the path")
        lost = (
            f"{photos} holds no photograph any more, so what learned from them is marked as withdrawn. Put "
            f"them back and build again, and the marks go; or erase what {dataset} holds of them with: "
            f"{_purge(dataset)}"
        )
    sidecars = CaptionFiles(photos)
    matches = match_rows([*listing.photographs, *(item.file for item in listing.set_aside)], table.rows)
    captions = caption_builder(condition, form)
    candidates, aside = admit(sidecars, listing, table, matches, columns_of(condition), captions)
    return Unopened(table, listing, matches, sidecars, candidates, aside, dataset, lost)


def _purge(dataset: Path) -> str:
    return f"diffusioncleft dataset purge {shlex.quote(shown(dataset))}"
