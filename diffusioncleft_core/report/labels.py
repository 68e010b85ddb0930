"""How a report calls its conditions, and what others reported for them: from the run's own vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..conditions.loader import load_vocabulary
from ..conditions.vocabulary import ALL, Reported, Vocabulary

SERIES = ("first", "second", "third", "fourth")
"""Colours of the conditions' drawings, in the vocabulary's order; a fifth condition has the first's."""
UNION = "union"


@dataclass(frozen=True)
class Labels:
    """names: by condition, in the vocabulary's order. The rest is the vocabulary's (see there)."""

    names: Mapping[str, str]
    reported: tuple[Reported, ...] = ()
    reported_notes: tuple[str, ...] = ()
    zero_shot_note: str = ""
    shown: int = 2
    """Conditions in the document."""

    def name(self, condition: str) -> str:
        """The label; of what no vocabulary knows, the name without its underscores."""
        if condition == ALL:
            return "Both" if self.shown == 2 else "All"
        return self.names.get(condition) or condition.replace("_", " ").capitalize()

    def series(self, condition: str) -> str:
        """The CSS class of a condition's colour."""
        if condition == ALL or condition not in self.names:
            return UNION
        return SERIES[list(self.names).index(condition) % len(SERIES)]

    @property
    def columns(self) -> dict[str, str]:
        """Short titles of the other methods, by method; those with nothing for a table are left out."""
        return {row.method: row.column for row in self.reported if row.metric != "similarity_mean"}

    def of(self, metric: str, condition: str) -> list[Reported]:
        """What others reported for one of our metrics and conditions."""
        return [row for row in self.reported if (row.metric, row.condition) == (metric, condition)]


def vocabulary_block(vocabulary: Vocabulary) -> dict[str, Any]:
    """What report.json carries of the vocabulary, so that a page can be made from it alone."""
    return {
        "title": vocabulary.title,
        "labels": {name: item.label for name, item in vocabulary.conditions.items()},
        "zero_shot_note": vocabulary.zero_shot_note,
        "reported": [asdict(row) for row in vocabulary.reported],
        "reported_notes": list(vocabulary.reported_notes),
    }


def labels_of(document: Mapping[str, Any]) -> Labels:
    """The labels of a report document.

    A document without a `vocabulary` is of the embedded one where that knows its conditions; what others
    reported for conditions that it does not know stays out.
    """
    parts = [document.get(key) or {} for key in ("training", "generation", "sets")]
    shown = [name for name in dict.fromkeys(key for part in parts for key in part) if name != ALL]
    block = document.get("vocabulary")
    if not isinstance(block, Mapping):
        vocabulary = load_vocabulary()
        known = not shown or any(name in vocabulary.conditions for name in shown)
        block = vocabulary_block(vocabulary) if known else {}
    return Labels(
        dict(block.get("labels") or dict.fromkeys(shown, "")),
        tuple(Reported(**row) for row in block.get("reported") or ()),
        tuple(block.get("reported_notes") or ()),
        str(block.get("zero_shot_note") or ""),
        len(shown),
    )
