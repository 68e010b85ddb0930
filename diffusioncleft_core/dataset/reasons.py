"""Why a photograph is set aside, and which of these reasons a person may overrule."""

from dataclasses import dataclass
from typing import Any

# reason -> what it means, in the words of the summary
REASONS = {
    "no_consent": "consent is not 'yes'",
    "no_row": "no row in the metadata",
    "row_without_photo": "a row without a photograph",
    "row_conflict": "rows that contradict each other",
    "metadata": "a value is missing or unknown",
    "other_condition": "belongs to another condition",
    "caption": "the sidecar caption can't be used",
    "outside": "a link that leads out of the folder",
    "unreadable": "the file can't be read",
    "unsupported": "not an image format that is read",
    "undecodable": "truncated, damaged or no image",
    "too_large": "larger than what is decoded",
    "animated": "an animation or several pages",
    "too_small": "smaller than the minimum size",
    "no_face": "no face was found",
    "several_faces": "more than one face",
    "duplicate": "the same picture again",
    "near_duplicate": "nearly the same picture again",
}
OVERRULABLE = frozenset({"animated", "too_small", "no_face", "several_faces", "near_duplicate"})


class Rejected(Exception):
    """A photograph can't enter: `reason` is a key of REASONS, `detail` says what was seen and what to do."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class SetAside:
    """One entry of the private list `set_aside.jsonl`. `source` is the file's SHA-256 where it was read."""

    file: str
    reason: str
    detail: str = ""
    source: str | None = None

    @property
    def overrulable(self) -> bool:
        """Whether `dataset readmit` can take the photograph back."""
        return self.reason in OVERRULABLE

    def to_json(self) -> dict[str, Any]:
        """The entry as a JSON object; whether it can be taken back is written out for the reader."""
        row: dict[str, Any] = {"file": self.file, "reason": self.reason, "detail": self.detail}
        if self.source is not None:
            row["source"] = self.source
        return row | {"can_be_taken_back": self.overrulable}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "SetAside":
        """Read an entry of `set_aside.jsonl`."""
        return cls(str(row["file"]), str(row["reason"]), str(row.get("detail", "")), row.get("source"))
