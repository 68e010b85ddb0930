"""What a dataset's folder tells the training recipe."""

from collections.abc import Mapping
from pathlib import Path

from ..conditions import Condition, load_vocabulary
from ..files import read_json
from ..recipe import TrainingFacts
from .folder import SETTINGS, is_dataset
from .manifest import read_manifest


def training_facts(folder: Path | None, *, phantom: bool) -> TrainingFacts:
    """The facts of a built dataset of one condition; of any other folder nothing is known."""
    if folder is None or not is_dataset(folder):
        return TrainingFacts(phantom)
    rows = [row for row in read_manifest(folder) if row.role == "train"]
    described = read_json(folder / SETTINGS) if (folder / SETTINGS).is_file() else {}
    known = load_vocabulary().conditions
    conditions = {row.condition for row in rows}
    condition = known.get(conditions.pop() or "") if len(conditions) == 1 else None
    trigger = str(described.get("trigger") or (condition.trigger if condition else "")) or None
    return TrainingFacts(
        phantom,
        len(rows),
        trigger,
        other_condition(known, condition).trigger if condition and condition.trigger == trigger else None,
        bool(described.get("settings", {}).get("bracketed", True)),
    )


def other_condition(known: Mapping[str, Condition], condition: Condition) -> Condition:
    """The class that a condition must not be mistaken for."""
    return next(item for name, item in known.items() if name != condition.name)
