"""The first figures of a task in words, for a terminal and a node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .blocks import count

FIRST = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "auc": "AUC"}
"""Figures that come first, and how they are called."""


def told(task: Mapping[str, Any]) -> list[str]:
    """The figures of a task of downstream.json that come first, and what they show, a line each."""
    source = next(iter(task["sources"].values()))
    test = task["test"]
    lines = [f"{task['title']}, n = {count(test['n'])} images of {count(test['n_subjects'])} people:"]
    for metric, name in FIRST.items():
        lines.append(f"  {name}: {figure(source[metric], share=metric != 'auc')}")
    if test["n_not_found"] != 0:
        lines.append(f"  images without a lip, which count apart: {count(test['n_not_found'])}")
    if test["leak"] and test["leak"] not in task["reading"]:
        lines.append(f"  {test['leak']}")
    if test.get("chosen"):
        lines.append(f"  {test['chosen']}")
    lines.append(f"  {task['reading']}")
    return lines


def ends_of(found: Mapping[str, Any]) -> tuple[float, float]:
    """The interval that a figure is told with: it covers other trainings too where there are several."""
    low, high = found["ci95_trainings"] or found["ci95"]
    return float(low), float(high)


def figure(found: Mapping[str, Any], *, share: bool) -> str:
    """`84.0 % (75.3 to 90.6)`, or why it is not told."""
    if found["value"] is None:
        return str(found.get("note") or "none")
    low, high = ends_of(found)
    if share:
        return f"{100 * found['value']:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
    return f"{found['value']:.3f} ({low:.3f} to {high:.3f})"
