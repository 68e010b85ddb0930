"""What `downstream.json` looks like: it is checked when it is written and when it is read."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import read_json, shown, write_json
from ..outputs import WINDOWS_DEVICE
from .reading import EXPECTED
from .resampling import METRICS

SCHEMA = 1
FILE_NAME = "downstream.json"
NOT_A_DEVICE = "Not a diagnostic device"
NOTICE = f"{NOT_A_DEVICE}: these figures are of what generated images are good for, not of a patient."
TOLD = ("value", "ci95", "n", "n_subjects")
_DIGITS = 6
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")


def write_document(path: Path, document: Mapping[str, Any]) -> None:
    """Write `downstream.json`. UserError as `check_document`."""
    write_json(path, check_document(document, shown(path)))


def read_document(path: Path) -> dict[str, Any]:
    """Read `downstream.json`. UserError where it is missing, or not as this version writes it."""
    return check_document(read_json(path), shown(path))


def check_document(document: Any, where: str = FILE_NAME) -> dict[str, Any]:
    """Return the document, or raise UserError that names the first place where it is not of schema 1."""
    try:
        found = _object(document, "the file")
        if found.get("schema") != SCHEMA:
            raise _Wrong("schema", f"must be {SCHEMA}")
        _flag(found.get("phantom"), "phantom")
        for name, task in _object(found.get("tasks"), "tasks").items():
            _task(task, f"tasks.{name}")
    except _Wrong as wrong:
        place, what = wrong.args
        raise UserError(
            f"{where} is no downstream evidence of schema {SCHEMA} ({place} {what}); evaluate again with "
            "this version"
        ) from None
    return dict(found)


def check_name(name: str, what: str) -> str:
    """The name of a test set or a source, which stands in the document and may be a folder's.

    Raises:
        UserError: it can't be one; `what` says whose it is.
    """
    if not _NAME.fullmatch(name):
        raise UserError(
            f"{what} can't be called {name!r}: give up to 40 letters, digits, _ and -, the first no sign"
        )
    if WINDOWS_DEVICE.match(name):
        raise UserError(
            f"{what} can't be called {name!r}, which Windows keeps for a device: give another name"
        )
    return name


def training_names(document: Mapping[str, Any]) -> list[str]:
    """By what the trainings are known that a classifier or its figures come from: its own, its images' LoRAs.

    document: of this file or of a model's (`model.json`); of any other there are none.
    """
    tasks = document.get("tasks")
    models = [task.get("model") for task in tasks.values()] if isinstance(tasks, Mapping) else [document]
    found = [model for model in models if isinstance(model, Mapping) and "backbone" in model]
    names = [str(name) for model in found for loras in model.get("loras") or () for name in loras]
    return names + [str(model["fingerprint"]) for model in found if model.get("fingerprint")]


def rounded(value: Any) -> Any:
    """The same with every number to six digits: what comes after them hangs on the machine."""
    if isinstance(value, float):
        return round(value, _DIGITS)
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list | tuple) else value


class _Wrong(Exception):
    """A place in the document, and what is wrong there."""


def _task(task: Any, at: str) -> None:
    found = _object(task, at)
    for key in ("title", "reading"):
        _text(found.get(key), f"{at}.{key}")
    classes = _object(found.get("classes"), f"{at}.classes")
    for key in ("positive", "negative"):
        _text(classes.get(key), f"{at}.classes.{key}")
    _object(found.get("model"), f"{at}.model")
    _test(found.get("test"), f"{at}.test")
    sources = _object(found.get("sources"), f"{at}.sources")
    if not sources:
        raise _Wrong(f"{at}.sources", "names none")
    for name, source in sources.items():
        _source(source, f"{at}.sources.{name}")
    for i, control in enumerate(_list(found.get("controls"), f"{at}.controls")):
        _control(control, f"{at}.controls[{i}]")
    last = 0
    for i, point in enumerate(_list(found.get("curve"), f"{at}.curve")):
        n = _count(_object(point, f"{at}.curve[{i}]").get("n"), f"{at}.curve[{i}].n")
        if n is None or n <= last:
            raise _Wrong(f"{at}.curve[{i}].n", "must grow")
        last = n
        _figures(point, f"{at}.curve[{i}]", ("balanced_accuracy",))
    for i, row in enumerate(_list(found.get("comparisons"), f"{at}.comparisons")):
        _comparison(row, f"{at}.comparisons[{i}]")
    for i, row in enumerate(_list(found.get("reported", []), f"{at}.reported")):
        place = f"{at}.reported[{i}]"
        _within(_object(row, place).get("value"), f"{place}.value", 0, 1)
        if not _count(row.get("n"), f"{place}.n"):
            raise _Wrong(f"{place}.n", "must be a number of images")
    if found.get("saliency") is not None:
        saliency = _object(found["saliency"], f"{at}.saliency")
        for key in ("inside", "area"):
            if key not in saliency or saliency[key] is not None:
                _within(saliency.get(key), f"{at}.saliency.{key}", 0, 1)


def _test(test: Any, at: str) -> None:
    found = _object(test, at)
    for key in ("n", "n_subjects", "n_not_found"):
        _count(found.get(key), f"{at}.{key}")
    try:
        datetime.date.fromisoformat(str(found.get("touched")))
    except ValueError:
        raise _Wrong(f"{at}.touched", "must be a date, as 2026-11-24") from None
    for key in ("leak", "chosen"):
        if found.get(key) is not None:
            _text(found[key], f"{at}.{key}")


def _source(source: Any, at: str) -> None:
    found = _object(source, at)
    _figures(found, at, METRICS)
    for kind, groups in _object(found.get("groups"), f"{at}.groups").items():
        for name, group in _object(groups, f"{at}.groups.{kind}").items():
            _figures(group, f"{at}.groups.{kind}.{name}", METRICS)
    _object(found.get("seeds"), f"{at}.seeds")
    for i, row in enumerate(_list(found.get("reliability"), f"{at}.reliability")):
        place = f"{at}.reliability[{i}]"
        low = _within(_object(row, place).get("from"), f"{place}.from", 0, 1)
        _within(row.get("to"), f"{place}.to", low or 0, 1)
        _figure(row, place, 0)
        if row.get("value") is not None:
            _within(row.get("score"), f"{place}.score", 0, 1)


def _control(control: Any, at: str) -> None:
    found = _object(control, at)
    for key in ("name", "what", "verdict"):
        _text(found.get(key), f"{at}.{key}")
    if found.get("expected") not in EXPECTED:
        raise _Wrong(f"{at}.expected", f"must be one of {', '.join(EXPECTED)}")
    if found.get("passed") is not None:
        _flag(found["passed"], f"{at}.passed")
    if found.get("figures") is not None:
        _figures(found["figures"], f"{at}.figures", METRICS)


def _comparison(row: Any, at: str) -> None:
    found = _object(row, at)
    for key in ("a", "b"):
        _text(found.get(key), f"{at}.{key}")
    if "mcnemar_p" not in found or found["mcnemar_p"] is not None:
        _within(found.get("mcnemar_p"), f"{at}.mcnemar_p", 0, 1)
    for name, figure in _object(found.get("difference"), f"{at}.difference").items():
        _figure({**_object(figure, f"{at}.difference.{name}"), "n": 0}, f"{at}.difference.{name}", -1)


def _figures(found: Any, at: str, metrics: Sequence[str]) -> None:
    for name in metrics:
        place = f"{at}.{name}"
        figure = _object(_object(found, at).get(name), place)
        if missing := [key for key in TOLD if key not in figure]:
            raise _Wrong(place, f"has no {missing[0]}")
        _figure(figure, place, 0)


def _figure(figure: Mapping[str, Any], at: str, low: float) -> None:
    """A value from `low` to 1 within its interval, or none of both."""
    value, ends = figure.get("value"), figure.get("ci95")
    _count(figure.get("n"), f"{at}.n")
    if value is None:
        if ends is not None:
            raise _Wrong(at, "has an interval without a value")
        return
    _within(value, f"{at}.value", low, 1)
    for key in ("ci95", "ci95_trainings"):
        if figure.get(key) is None:
            if key == "ci95":
                raise _Wrong(f"{at}.ci95", "is missing: no figure stands without its interval")
            continue
        ends = _list(figure[key], f"{at}.{key}")
        if len(ends) != 2:
            raise _Wrong(f"{at}.{key}", "must have two ends")
        first = _within(ends[0], f"{at}.{key}", low, value)
        _within(ends[1], f"{at}.{key}", max(value, first), 1)


def _object(value: Any, at: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _Wrong(at, "must be a JSON object")
    return value


def _list(value: Any, at: str) -> Sequence[Any]:
    if not isinstance(value, list):
        raise _Wrong(at, "must be a list")
    return value


def _text(value: Any, at: str) -> None:
    if not isinstance(value, str) or not value:
        raise _Wrong(at, "must be text")


def _flag(value: Any, at: str) -> None:
    if not isinstance(value, bool):
        raise _Wrong(at, "must be true or false")


def _count(value: Any, at: str) -> int | None:
    """A whole number, or None, which is a count that is not told."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _Wrong(at, "must be a count")
    return value


def _within(value: Any, at: str, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise _Wrong(at, f"must be a number from {low:g} to {high:g}")
    return float(value)
