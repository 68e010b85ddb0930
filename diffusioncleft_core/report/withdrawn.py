"""Reports of LoRAs that learned from a photograph whose consent was withdrawn: they say so first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..dataset.drawn import set_withdrawal
from ..dataset.withdrawn import Withdrawal, known_withdrawals, withdrawal_of
from ..files import write_json, write_text
from .blocks import labels_of
from .html import write_html
from .loras import report_loras
from .plain_words import WITHDRAWN_NOTE
from .run_folder import HTML, collect_pictures, conditions_of, read_report, told_trainings
from .summary import summarize


def with_withdrawal(
    document: Mapping[str, Any], known: Sequence[Withdrawal] | None = None, sets: Iterable[Path] = ()
) -> dict[str, Any]:
    """The document, with a note before all others where one of its LoRAs is withdrawn, and only there.

    sets: folders that it measures, for those that are marked without naming a LoRA.
    """
    known = known_withdrawals() if known is None else known
    notes = [note for note in document.get("notes") or [] if note != WITHDRAWN_NOTE]
    loras, folders = report_loras(document), list(sets)
    if withdrawal_of(loras, known) or any(set_withdrawal(folder, known) for folder in folders):
        notes.insert(0, WITHDRAWN_NOTE)
    elif "notes" not in document:
        return dict(document)
    return {**document, "notes": notes}


def refresh_report(json: Path, known: Sequence[Withdrawal] | None = None) -> None:
    """Write a run's report.json, summary.md and report.html again, saying whether they are withdrawn."""
    report = read_report(json)
    document = with_withdrawal(report.document, known)
    write_json(json, document)
    if report.folders is None:
        return
    phantom = bool(document.get("phantom"))
    labels = labels_of(document)
    pictures = collect_pictures(
        report.folders,
        conditions_of(document),
        phantom=phantom,
        labels=labels,
        previewed=told_trainings(document),
    )
    write_text(report.folders.summary, summarize(document))
    write_html(document, pictures, json.with_name(HTML))
