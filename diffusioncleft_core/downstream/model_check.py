"""Whether a `model.json` is one that a training wrote: each part of it, by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..ranges import COUNT, CROP_SIDE, SEED, number, whole
from ..weights.backbones import KINDS, PROBE
from .task import CONTROLS, MARGIN

_N_LANDMARKS = (5, 68, 106)
_COUNTED = whole(0)


def _text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _maybe(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or holds(value)


def _listed(holds: Callable[[Any], bool], *, empty: bool = True) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and (empty or bool(value)) and all(map(holds, value))


def _truth(value: Any) -> bool:
    return isinstance(value, bool)


def _object(value: Any) -> bool:
    return isinstance(value, dict)


def _digest(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64


_CLASS = {"title": _text, "condition": _maybe(_text), "role": _maybe(_text)}
_REPORTED = {
    **dict.fromkeys(("method", "metric"), _text),
    **dict.fromkeys(("source", "caveat"), lambda value: isinstance(value, str)),
    "value": number(0, 1).holds,
    "n": COUNT.holds,
}
_PARTS: Mapping[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("task.name", "task.title"), _text),
    "task.sha256": _digest,
    **{f"task.{side}.{name}": holds for side in ("positive", "negative") for name, holds in _CLASS.items()},
    "task.crop.margin": MARGIN.holds,
    "task.crop.side": CROP_SIDE.holds,
    "task.controls": _listed(lambda name: isinstance(name, str) and name in CONTROLS),
    "task.curve": _listed(COUNT.holds),
    "task.reported": _listed(_object),
    "classifier.kind": lambda value: isinstance(value, str) and value in KINDS,
    "backbone.backbone": _text,
    "backbone.name": _text,
    "backbone.sha256": _digest,
    "crop.margin": MARGIN.holds,
    "crop.side": CROP_SIDE.holds,
    "crop.landmarks": lambda value: not isinstance(value, bool) and value in _N_LANDMARKS,
    "crop.pack": _listed(_text, empty=False),
    "phantom": _truth,
    **dict.fromkeys(
        [f"trained_on.{name}" for name in ("positive", "negative", "people", "not_found")],
        _maybe(_COUNTED.holds),
    ),
    "loras": _listed(_listed(_text, empty=False)),
    "bare": _truth,
    "fingerprint": _maybe(_text),
    "trainings": _listed(_object, empty=False),
}
_TRAINING = {"seed": SEED.holds, "file": _text, "sha256": _digest, "validation_accuracy": number(0, 1).holds}
_OF_PROBE = {"C": number(0, above=True).holds}
_OF_PAPER = {"epochs": COUNT.holds, "best_epoch": COUNT.holds}


def wrong_part(document: Mapping[str, Any]) -> str | None:
    """The first part that is not there or not what a training writes, as `task.crop.side`; None for none."""
    for name, holds in _PARTS.items():
        if not holds(_part(document, name)):
            return name
    is_probe = document["classifier"]["kind"] == PROBE
    training = {**_TRAINING, **(_OF_PROBE if is_probe else _OF_PAPER)}
    for place, rows, rules in (
        ("task.reported", document["task"]["reported"], _REPORTED),
        ("trainings", document["trainings"], training),
    ):
        for number_, row in enumerate(rows):
            for name, holds in rules.items():
                if name not in row or not holds(row[name]):
                    return f"{place}[{number_}].{name}"
    return None


def _part(document: Any, name: str) -> Any:
    """A part by its dotted name; `_MISSING`, which no rule holds for, where it is not there."""
    for key in name.split("."):
        if not isinstance(document, dict) or key not in document:
            return _MISSING
        document = document[key]
    return document


_MISSING = object()
