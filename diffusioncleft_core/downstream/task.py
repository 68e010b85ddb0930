"""A task: two classes, what of a picture a classifier sees, and the controls that tell what it learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..conditions.names import why_not
from ..conditions.table import Table
from ..errors import UserError
from ..files import sha256_bytes
from ..imageset.manifest import ROLES
from ..ranges import CROP_SIDE, Range, number, whole
from ..text import decoded, opened, parse_toml

SCHEMA = 1
TASKS = Path(__file__).with_name("tasks")
MARGIN = number(0, 2)
FRACTION = number(0, 1)
COUNT = whole(1, 10_000_000)
_WHAT = "the task file"

CHANCE, LINE, KEPT = "chance", "line", "kept"


@dataclass(frozen=True)
class Control:
    """A training beside the main one whose outcome tells what that one learned.

    Attributes:
        what: what is trained, in words.
        expected: `chance` (above it, something else than the finding was learned), `kept` (where it falls,
            something else was learned) or `line` (what generated images have to beat).
    """

    name: str
    what: str
    expected: str


CONTROLS: Mapping[str, Control] = {
    control.name: control
    for control in (
        Control("generated_negatives", "Healthy faces of the same base model as negatives.", KEPT),
        Control("lip_masked", "The crop with the lip greyed out.", CHANCE),
        Control("lip_alone", "The lip with all else greyed out.", KEPT),
        Control("background", "The whole picture with the face greyed out.", CHANCE),
        Control("shuffled_labels", "The training labels shuffled.", CHANCE),
        Control("base_as_both", "Faces of the base model as both classes.", CHANCE),
        Control("real", "Trained on photographs, cross-validated over subjects.", LINE),
        Control("real_and_generated", "Trained on photographs and generated images together.", LINE),
    )
}


@dataclass(frozen=True)
class Class:
    """One class of a task.

    Attributes:
        title: what its images show.
        condition: of the vocabulary, by which the images of a set are told to be of this class.
        role: of a set's images, likewise; one of the two is there, or both.
    """

    title: str
    condition: str | None = None
    role: str | None = None


@dataclass(frozen=True)
class Crop:
    """What of a face a classifier sees.

    Attributes:
        margin: around the lip, on every side, as a share of the longer side of its box.
        side: of the square crop, px.
    """

    margin: float = 0.2
    side: int = 224


@dataclass(frozen=True)
class ReportedAccuracy:
    """A figure that others printed for the task; `n`: images it was measured on."""

    method: str
    metric: str
    value: float
    n: int
    source: str
    caveat: str


@dataclass(frozen=True)
class Task:
    """A binary classification and its controls, as a TOML file has it. `sha256`: of that file."""

    name: str
    title: str
    positive: Class
    negative: Class
    crop: Crop
    controls: tuple[Control, ...]
    curve: tuple[int, ...]
    reported: tuple[ReportedAccuracy, ...]
    sha256: str

    def to_json(self) -> dict[str, Any]:
        """The task as a JSON object."""
        return {**asdict(self), "controls": [control.name for control in self.controls]}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Task:
        """Read what `to_json` gave. Raises KeyError or TypeError where it is something else."""
        return cls(
            str(row["name"]),
            str(row["title"]),
            Class(**row["positive"]),
            Class(**row["negative"]),
            Crop(**row["crop"]),
            tuple(CONTROLS[name] for name in row["controls"]),
            tuple(row["curve"]),
            tuple(ReportedAccuracy(**figure) for figure in row["reported"]),
            str(row["sha256"]),
        )

    def label_of(self, condition: str | None, role: str | None) -> int | None:
        """1 or 0 for an image of this condition and role; None where they don't say."""
        for label, found in ((1, self.positive), (0, self.negative)):
            if found.condition is not None and found.condition == condition:
                return label
        for label, found in ((1, self.positive), (0, self.negative)):
            if found.condition is None and found.role == role and role is not None:
                return label
        return None


def known_tasks() -> tuple[str, ...]:
    """Names of the tasks that come along."""
    return tuple(sorted(path.stem for path in TASKS.glob("*.toml")))


def load_task(name_or_path: str | Path) -> Task:
    """The task of that name, or of that TOML file.

    Raises:
        UserError: there is none, or it can't be used; names the file and the table.
    """
    named = TASKS / f"{name_or_path}.toml"
    is_known = isinstance(name_or_path, str) and name_or_path in known_tasks()
    path = named if is_known else Path(name_or_path)
    if not is_known and not path.is_file():
        raise UserError(
            f"there is no task {str(name_or_path)!r}; choose one of: {', '.join(known_tasks())}, "
            "or give the path of a task file (TOML)"
        )
    with opened(path, _WHAT) as handle:
        data = handle.read()
    name = f"{_WHAT} {path}"
    document = parse_toml(decoded(data, name).text, name)
    return _task(Table(document, path.name), sha256_bytes(data))


def _task(root: Table, digest: str) -> Task:
    root.only("schema", "name", "title", "positive", "negative", "crop", "controls", "reported")
    if root.content.get("schema") != SCHEMA:
        raise root.fail(f"schema must be {SCHEMA}; this version reads no other")
    positive, negative = _class(root.table("positive")), _class(root.table("negative"))
    if (positive.condition, positive.role) == (negative.condition, negative.role):
        raise root.fail("both classes have the same condition and role; they must differ in one")
    crop, controls = root.table("crop"), root.table("controls")
    crop.only("margin", "side")
    controls.only("use", "curve")
    names = controls.texts("use", ())
    if unknown := [name for name in names if name not in CONTROLS]:
        raise controls.fail(f"use names {unknown[0]!r}; there are: {', '.join(CONTROLS)}")
    curve = controls.content.get("curve", [])
    if not isinstance(curve, list) or not all(COUNT.holds(n) for n in curve):
        raise controls.fail(f"curve must be a list of numbers of images, each {COUNT}")
    return Task(
        root.text("name"),
        root.text("title"),
        positive,
        negative,
        Crop(_number(crop, "margin", MARGIN, Crop.margin), _number(crop, "side", CROP_SIDE, Crop.side)),
        tuple(CONTROLS[name] for name in names),
        tuple(sorted(set(curve))),
        tuple(_reported(table) for table in root.list_of_tables("reported")),
        digest,
    )


def _class(table: Table) -> Class:
    table.only("title", "condition", "role")
    condition, role = (table.text(key) if key in table.content else None for key in ("condition", "role"))
    if condition is None and role is None:
        raise table.fail("condition or role must say which images are of this class")
    if condition is not None and (problem := why_not(condition)):
        raise table.fail(f"no condition can be called {condition!r}: {problem}")
    if role is not None and role not in ROLES:
        raise table.fail(f"role names {role!r}; there are: {', '.join(ROLES)}")
    return Class(table.text("title"), condition, role)


def _reported(table: Table) -> ReportedAccuracy:
    table.only("method", "metric", "value", "n", "source", "caveat")
    return ReportedAccuracy(
        table.text("method"),
        table.text("metric"),
        _number(table, "value", FRACTION),
        _number(table, "n", COUNT),
        table.text("source", ""),
        table.text("caveat", ""),
    )


def _number(table: Table, key: str, allowed: Range, default: float | None = None) -> Any:
    value = table.content.get(key, default)
    if not allowed.holds(value):
        raise table.fail(f"{key} must be {allowed}")
    return allowed.kind(value)
