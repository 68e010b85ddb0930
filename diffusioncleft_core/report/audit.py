"""The report's section on the leak audit: attacks, controls, residual risk, and how nearest faces lie."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .audit_words import lora_sentences, provenance, risk_sentence
from .blocks import (
    PHANTOM_TAG,
    Block,
    Cell,
    Labels,
    Row,
    Section,
    Table,
    Text,
    interval,
    is_phantom,
    labels_of,
    percent,
    plain,
)
from .measured import figure_of, present

TITLE = "Leak audit"
CONTROLS = {
    "calibration": "By chance, as the face pack’s calibration lets expect",
    "photographs": "Photographs against those of other people",
    "holdout": "Hold-out photographs alone",
    "unseen": "Generated images against the hold-out, which the model has not seen",
    "control_faces": "Control faces",
}
MISSING = (
    "No audit was made: `diffusioncleft measure` makes it where FIR is measured with training photographs."
)
LEAD = (
    "Every attack stands beside a control in which there is nothing to find. Residual risk is what the "
    "attack finds beyond it: (attack − control) / (1 − control), as Anonymeter has it."
)


def audit_section(document: Mapping[str, Any]) -> Section:
    sets = document.get("sets") or {}
    labels = labels_of(document)
    found = (document.get("figures") or {}).get("audit") or {}
    names = [
        name for name in present(sets, labels) if figure_of(sets, name, "residual_risk", "robust", "raw")
    ]
    audits = document.get("audit") or {}
    if not names and not audits:
        return Section("audit", TITLE, missing=MISSING)
    blocks: list[Block] = []
    thresholds = [found[key] for key in ("threshold", "second") if found.get(key)]
    for suffix, title in (("", "Residual risk"), ("_second", "Residual risk by the second recogniser")):
        table = risks(sets, names, labels, suffix, title)
        if table.rows:
            blocks.append(table)
    lines = [
        f"{labels.name(name)}: {risk_sentence(figure_of(sets, name, 'residual_risk', 'robust', 'raw'))}"
        for name in names
    ]
    blocks += [
        *([Text(lines, listed=True)] if lines else []),
        *(table for table in (controls(sets, names, labels), nearest(sets, names, labels)) if table.rows),
        *([Text([provenance(item) for item in thresholds], listed=True)] if thresholds else []),
        Text(lora_sentences(audits, labels), listed=True, heading="What the LoRA itself gives away"),
    ]
    return Section("audit", TITLE, LEAD, blocks)


def share_cell(figure: Mapping[str, Any] | None) -> Cell:
    """A share with its interval and count."""
    if not figure or figure.get("value") is None:
        return Cell("not measured", str((figure or {}).get("note") or "").rstrip("."))
    count = f"{figure['k']:,} of {figure['n']:,}" if figure.get("k") is not None and figure.get("n") else ""
    parts = [interval(figure.get("ci95")), count]
    tag = PHANTOM_TAG if is_phantom(figure) else ""
    return Cell(percent(figure["value"]), "; ".join(part for part in parts if part), tag)


def risks(sets: Mapping[str, Any], names: list[str], labels: Labels, suffix: str, title: str) -> Table:
    """A row a set and kind of attack: attack, control, residual risk, and what could be missed."""
    rows = []
    for name in names:
        for metric, label in ((f"residual_risk{suffix}", "faces"), ("residual_copies", "copies")):
            if suffix and metric == "residual_copies":
                continue
            for variant in ("raw", "filtered"):
                risk = figure_of(sets, name, metric, "robust", variant)
                if risk is None:
                    continue
                control = risk.get("control") or {}
                by = CONTROLS.get(str(control.get("name")), "")
                missed = risk.get("could_be_missed")
                cells = [
                    share_cell(risk.get("attack")),
                    Cell(share_cell(control).text, f"{by}; {interval(control.get('ci95'))}".strip("; "))
                    if control
                    else Cell("none"),
                    share_cell({**risk, "k": None}),
                    Cell(percent(missed) if missed is not None else "", all_of(risk)),
                ]
                rows.append(Row(f"{labels.name(name)}, {label}, {variant}", cells))
    columns = ("", "Attack", "Control", "Residual risk", "Could be missed, up to")
    return Table(title, columns, rows)


def all_of(risk: Mapping[str, Any]) -> str:
    """How much were all that could not be assessed leaks too."""
    upper = risk.get("upper_of_all")
    return "" if upper is None else f"{percent(upper)} of all, were those without a face leaks"


def controls(sets: Mapping[str, Any], names: list[str], labels: Labels) -> Table:
    """Every control that was measured, with the attack at its size."""
    rows = []
    for name in names:
        found = (sets[name].get("leak_control") or {}).get("robust") or {}
        for key, label in CONTROLS.items():
            if key in found:
                figure = found[key]
                cells = [share_cell(figure["attack"]), share_cell(figure), share_cell(figure["residual"])]
                rows.append(Row(f"{labels.name(name)}: {label}", cells))
    columns = ("Control", "Attack, as many people to be found", "Control", "Residual")
    return Table("Every control, of the raw set", columns, rows, folded=True)


def nearest(sets: Mapping[str, Any], names: list[str], labels: Labels) -> Table:
    """Distance ratio and authenticity beside their controls."""
    rows = []
    for name in names:
        for metric, label in (
            ("distance_ratio", "nearest-neighbour distance ratio, lower twentieth"),
            ("authenticity", "authentic images"),
        ):
            figure = figure_of(sets, name, metric, "robust", "raw")
            if figure and figure.get("value") is not None:
                of_share = metric == "authenticity"
                pair = (figure, figure.get("control"))
                cells = [share_cell(item) if of_share else ratio_cell(item) for item in pair]
                rows.append(Row(f"{labels.name(name)}: {label}", cells))
    columns = ("", "Generated images", "Photographs of other people")
    return Table("How near the nearest training face lies", columns, rows, folded=True)


def ratio_cell(figure: Mapping[str, Any] | None) -> Cell:
    if not figure or figure.get("value") is None:
        return Cell("not measured")
    return Cell(plain(figure["value"]), f"{interval(figure['ci95'], plain)}; n = {figure['n']:,}")
