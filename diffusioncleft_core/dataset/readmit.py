"""Take back a photograph that was set aside for a reason a person may overrule."""

from pathlib import Path

from ..errors import UserError
from ..files import append_jsonl, read_jsonl, shown
from .folder import READMITTED, SET_ASIDE, require_dataset
from .metadata import file_key
from .reasons import OVERRULABLE, REASONS, SetAside


def read_set_aside(folder: Path) -> list[SetAside]:
    """The private list of what was set aside in the dataset `folder`; empty before the first build."""
    path = require_dataset(folder) / SET_ASIDE
    return [SetAside.from_json(row) for row in read_jsonl(path)] if path.is_file() else []


def readmit(folder: Path, file: str) -> SetAside:
    """Overrule the reason for which `file` was set aside; the next build takes it in, if no other reason
    stands.

    What is recorded is the photograph's content and this one reason: a changed file is checked anew, and a
    second reason must be overruled for itself. Raises UserError for a file that is not on the list, or whose
    reason is a matter of consent, of the table or of a file that can't be read.
    """
    entries = read_set_aside(folder)
    matching = [item for item in entries if file_key(item.file) == file_key(file) or shown(item.file) == file]
    if not matching:
        raise UserError(
            f"{file} is not on the list of {folder}; 'diffusioncleft dataset show' names those set aside"
        )
    for item in matching:
        if item.overrulable and item.source is not None:
            append_jsonl(folder / READMITTED, {"source": item.source, "reason": item.reason})
            return item
    item = matching[0]
    allowed = ", ".join(sorted(OVERRULABLE))
    raise UserError(
        f"{item.file} was set aside because {REASONS.get(item.reason, item.reason)} ({item.detail}); "
        f"that can't be overruled, only {allowed} can: correct the table or the file and build again"
    )
