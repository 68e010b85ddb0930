"""The result: a compact Markdown block for a bug report, and the same as JSON. Neither holds a name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from .redaction import Redaction
from .steps import Figure, StepResult

SCHEMA = 1
BEGIN = "<!-- diffusioncleft doctor: begin; nothing here names a person, computer, file or photograph -->"
END = "<!-- diffusioncleft doctor: end -->"
PHANTOM = "These figures are of the embedded phantom; they say nothing about FLUX.1."
_SHOWN_DIGITS = 16


def document(
    results: Sequence[StepResult], notes: Sequence[str], redaction: Redaction, *, phantom: bool
) -> dict[str, Any]:
    """The result as JSON values; every text went through `redaction`."""
    counts = Counter(result.outcome for result in results)
    return {
        "schema": SCHEMA,
        "date": datetime.now(UTC).date().isoformat(),
        "phantom": phantom,
        "ok": counts["failed"] == 0,
        "counts": {outcome: counts[outcome] for outcome in ("ok", "failed", "skipped")},
        "seconds": round(sum(result.seconds for result in results), 1),
        "steps": [
            {
                "name": result.name,
                "proves": result.proves,
                "outcome": result.outcome,
                "seconds": round(result.seconds, 2),
                "figures": {name: _clean(value, redaction) for name, value in result.figures.items()},
                "message": redaction(result.message),
                "hint": redaction(result.hint),
            }
            for result in results
        ],
        "notes": [redaction(note) for note in notes],
    }


def markdown(result: dict[str, Any]) -> str:
    """The block to paste, from `document`."""
    counts = result["counts"]
    said = ", ".join(f"{number} {outcome}" for outcome, number in counts.items() if number)
    lines = [BEGIN, f"### diffusioncleft doctor: {said}", ""]
    lines += [f"{result['date']}, {result['seconds']:.0f} s.{' ' + PHANTOM if result['phantom'] else ''}", ""]
    lines += ["| step | outcome | s | figures |", "| --- | --- | --- | --- |"]
    for step in result["steps"]:
        figures = ", ".join(f"{name} {_shown(value)}" for name, value in step["figures"].items())
        outcome = step["outcome"] if step["outcome"] != "failed" else "**failed**"
        lines.append(f"| {step['name']} | {outcome} | {step['seconds']:.1f} | {_cell(figures)} |")
    reasons = [step for step in result["steps"] if step["message"]]
    if reasons:
        lines.append("")
    for step in reasons:
        sentence = ": ".join((f"{step['name']} {step['outcome']}", step["message"]))
        lines.append(f"- {'. '.join(filter(None, (sentence, step['hint'])))}")
    lines += [f"- note: {note}" for note in result["notes"]] if result["notes"] else []
    return "\n".join([*lines, END])


def _clean(value: Figure, redaction: Redaction) -> Figure:
    return redaction(value) if isinstance(value, str) else value


def _shown(value: Figure) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and value >= 10_000_000:
        return f"{value / 1e6:.0f} M"
    text = str(value)
    is_digest = len(text) == 64 and all(letter in "0123456789abcdef" for letter in text)
    return text[:_SHOWN_DIGITS] if is_digest else text


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")
