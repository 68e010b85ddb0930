"""How a dataset is built, and what is recorded from one build to the next."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ..conditions.loader import load_vocabulary
from ..conditions.prompts import CaptionForm
from ..errors import UserError
from ..files import read_json, read_jsonl, write_json
from ..imageset.copies import NEAR_COPY, NEAR_COPY_VISIT
from ..imageset.decode import MAX_SIDE
from ..ranges import HOLDOUT, SEED, check_fields, number, ranged, whole
from ..recipe.presets import NOTHING_KNOWN, TrainingFacts
from . import select as people
from .folder import READMITTED, ROLES, SETTINGS, dataset_rows, is_dataset

MIN_SIDE = 256
MIN_SIDE_PHANTOM = 64
SMALLEST_SIDE = whole(1, 8192)
LARGEST_SIDE = whole(64, 8192)
SAME_PERSON = number(0, 1, above=True, below=True)
_SET_ASIDE = "set_aside"
"""In roles.json beside the source hashes: the roles of what is not in the dataset at present."""


@dataclass(frozen=True)
class Photographs:
    """One condition's photographs and their table.

    Attributes:
        folder: the photographs; read, never changed.
        metadata: their table; None takes the consent of the folder's CONSENT.txt.
        apart_from: datasets of other conditions, whose subjects keep their side of the hold-out.
    """

    folder: Path
    metadata: Path | None
    apart_from: Sequence[Path] = ()


@dataclass(frozen=True)
class BuildSettings:
    """How a dataset is built; every field is recorded in `dataset.json`.

    Attributes:
        holdout: share of subjects, 0 to 0.5.
        seed: draws the hold-out.
        min_side: px, of the original's shorter side (None: 256, on phantoms 64).
        max_side: px, of the normalised image's longer side.
        same_person: cosine, for photographs without a subject id.
        bracketed: trigger as `[CLP]` rather than `CLP`.
        whole_captions: with skin, hair and eyes where the table has them and the closing phrase, as prompts;
            False: clinical facts alone, as in the paper.
        phantom: allows the embedded face models.
    """

    holdout: float = ranged(HOLDOUT, default=0.1)
    seed: int = ranged(SEED, default=0)
    min_side: int | None = ranged(SMALLEST_SIDE, default=None)
    max_side: int = ranged(LARGEST_SIDE, default=MAX_SIDE)
    same_person: float | None = ranged(SAME_PERSON, default=None)
    bracketed: bool = True
    whole_captions: bool = True
    phantom: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        if self.min_side is not None and self.min_side > self.max_side:
            raise UserError(f"min_side is {self.min_side}; give at most max_side, which is {self.max_side}")

    @property
    def caption_form(self) -> CaptionForm:
        """How its captions are written."""
        return CaptionForm(self.bracketed, self.whole_captions)

    @property
    def person_threshold(self) -> float:
        """`same_person`, or the default for the face models in use."""
        return self.same_person or (people.SAME_PERSON_PHANTOM if self.phantom else people.SAME_PERSON)

    @property
    def smallest_side(self) -> int:
        """`min_side`, or its default."""
        return self.min_side or (MIN_SIDE_PHANTOM if self.phantom else MIN_SIDE)

    @property
    def copy_threshold(self) -> float:
        """Score from which two photographs are near copies."""
        return NEAR_COPY_VISIT if self.phantom else NEAR_COPY


def dataset_trigger(folder: Path) -> str | None:
    """The trigger of a built dataset's condition, as `dataset.json` records it; None for another folder."""
    path = Path(folder) / SETTINGS
    if not is_dataset(folder) or not path.is_file():
        return None
    trigger = read_json(path).get("trigger")
    return trigger if isinstance(trigger, str) and trigger else None


def recorded_max_side(folder: Path) -> int:
    """The `max_side` of a dataset's last build, px, by which its pixel hashes are; the default before one."""
    described = read_json(folder / SETTINGS) if (folder / SETTINGS).is_file() else {}
    return int(described.get("settings", {}).get("max_side", MAX_SIDE))


def read_overruled(folder: Path) -> dict[str, set[str]]:
    """Reasons that a person overruled with `dataset readmit`, by source hash."""
    overruled: dict[str, set[str]] = {}
    if (folder / READMITTED).is_file():
        for row in read_jsonl(folder / READMITTED):
            overruled.setdefault(str(row.get("source")), set()).add(str(row.get("reason")))
    return overruled


def read_roles(folder: Path) -> dict[str, str]:
    """The roles of the photographs in the dataset, by source hash."""
    roles = dict(read_json(folder / ROLES)) if (folder / ROLES).is_file() else {}
    roles.pop(_SET_ASIDE, None)
    return roles


def roles_set_aside(folder: Path) -> dict[str, str]:
    """The roles that photographs had which the table allows and the last build set aside, by source hash."""
    found = read_json(folder / ROLES) if (folder / ROLES).is_file() else {}
    return dict(found.get(_SET_ASIDE, {}))


def write_roles(folder: Path, roles: Mapping[str, str], set_aside: Mapping[str, str]) -> None:
    """Record the roles of the photographs in the dataset, and those that photographs set aside have had."""
    kept = {_SET_ASIDE: dict(sorted(set_aside.items()))} if set_aside else {}
    write_json(folder / ROLES, dict(sorted(roles.items())) | kept)


def recorded_roles(folder: Path, settings: BuildSettings, warnings: list[str]) -> dict[str, str]:
    """Roles of earlier builds by source hash, also of what was set aside; none, with a warning, when another
    split is asked for."""
    roles = roles_set_aside(folder) | read_roles(folder)
    if not roles or not (folder / SETTINGS).is_file():
        return roles
    before = read_json(folder / SETTINGS).get("settings", {})
    now = asdict(settings)
    changed = [name for name in ("holdout", "seed", "same_person") if before.get(name) != now[name]]
    if not changed:
        return roles
    warnings.append(
        f"the hold-out was drawn anew because {' and '.join(changed)} changed; "
        "a LoRA trained on the earlier split has seen subjects that are now held out"
    )
    return {}


def training_facts(folder: Path | None) -> TrainingFacts:
    """The facts of a built dataset of one condition; of any other folder nothing is known."""
    if folder is None or not is_dataset(folder):
        return NOTHING_KNOWN
    rows = dataset_rows(folder, "train")
    described = read_json(folder / SETTINGS) if (folder / SETTINGS).is_file() else {}
    known = load_vocabulary().conditions
    conditions = {row.condition for row in rows}
    condition = known.get(conditions.pop() or "") if len(conditions) == 1 else None
    trigger = str(described.get("trigger") or (condition.trigger if condition else "")) or None
    # A dataset of an earlier version does not say it; it is of the embedded vocabulary.
    embedded = condition.contrast_trigger if condition and condition.trigger == trigger else None
    return TrainingFacts(
        len(rows),
        trigger,
        described.get("contrast_trigger", embedded),
        bool(described.get("settings", {}).get("bracketed", True)),
        condition.max_timestep if condition else None,
    )
