"""What a vocabulary file says, as plain values: attributes, metadata columns, conditions, modes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from ..errors import UserError
from ..text import nearest
from .grammar import Template, literal_words, spoken_in, words_of

Weights = Mapping[str, Mapping[str, Fraction]]
PAPER_MODE = "paper"
LANDMARKS = ("eye_left", "eye_right", "nose", "mouth_left", "mouth_right")
"""The five landmarks that a face detector gives, in its order; left and right as seen in the picture."""
GROUPS = ("age_group", "skin_tone", "gender")
"""What a study tells faces apart by."""
UNKNOWN = "unknown"
"""A column's word for what is not known."""
ALL = "all"
"""The union of a vocabulary's conditions, where figures are told by condition."""
REPORTED_METRICS = ("fir_pairs", "fir_images", "fid", "lpips", "similarity_mean")
"""Our figures beside which another's can be reported."""


@dataclass(frozen=True)
class Attribute:
    """An attribute of a prompt or a column of metadata.csv.

    Attributes:
        values: allowed values, () for free text.
        phrases: the words of a value that is not spoken as it is written ("" says nothing).
        absent: the words used when the attribute is left out.
        requires: it may be given only where each of these attributes has one of these values.
        required: a column that may not be blank.
        source: where in the literature the values come from.
    """

    name: str
    title: str
    values: tuple[str, ...]
    phrases: Mapping[str, str]
    absent: str = ""
    requires: Mapping[str, tuple[str, ...]] | None = None
    required: bool = False
    source: str = ""

    def text(self, value: str) -> str:
        """The words a prompt or caption has for a value; "" is the value left out."""
        return self.phrases.get(value, value) if value else self.absent

    def applies(self, values: Mapping[str, str]) -> bool:
        """Whether the attribute has a meaning beside the others: a side, for instance, only for one-sided."""
        return all(values.get(key, "") in allowed for key, allowed in (self.requires or {}).items())

    def check(self, value: str, where: str) -> str:
        """Return `value` in the file's spelling (case and spaces don't count) or raise UserError."""
        if not self.values:
            return value
        wanted = " ".join(value.split()).casefold()
        for known in self.values:
            if known.casefold() == wanted:
                return known
        raise UserError(f"{where} has no {self.name} {value!r}{_near(wanted, self.values)}")


@dataclass(frozen=True)
class Rule:
    """Other weights where the attributes of `when` have one of the values named there, and why."""

    when: Mapping[str, tuple[str, ...]]
    weights: Weights
    reason: str

    def holds(self, values: Mapping[str, str]) -> bool:
        """Whether the rule applies beside the attributes chosen so far."""
        return all(values.get(key, "") in allowed for key, allowed in self.when.items())


@dataclass(frozen=True)
class Mode:
    """A way to draw a plan: the attributes drawn, their weights (uniform where none are given) and rules."""

    name: str
    title: str
    draw: tuple[str, ...]
    weights: Weights
    rules: tuple[Rule, ...]
    source: str


@dataclass(frozen=True)
class Region:
    """Where in a face the finding lies: the box around some of its five landmarks, widened on every side.

    Attributes:
        landmarks: names out of `LANDMARKS`.
        margin: as a share of the box's longer side.
    """

    landmarks: tuple[str, ...]
    margin: float


@dataclass(frozen=True)
class Phantom:
    """How the phantom stands in for patients.

    Attributes:
        finding: what it draws.
        photographs: how many a demo trains on.
        strength: of the LoRA in a run's pictures: at 1 what the embedded model learned is faint.
        max_timestep: the most noise, in thousandths, that `robust` trains on; None: the preset's. The smaller
            the finding, the less noise hides it.
    """

    finding: str
    photographs: int
    strength: float
    max_timestep: int | None = None


@dataclass(frozen=True)
class Reported:
    """One figure as others printed it.

    Attributes:
        column: the method's short title.
        condition: a condition of the vocabulary, or `ALL`.
        value: in the unit of our own metric of that name, proportions from 0 to 1.
    """

    method: str
    column: str
    condition: str
    metric: str
    value: float
    source: str = ""
    caveat: str = ""


@dataclass(frozen=True)
class Condition:
    """One state of the anomaly with a trigger, a vocabulary and a LoRA of its own.

    Attributes:
        label: short title for plots.
        contrast: the condition it must not be mistaken for, with its trigger.
        option: `run` takes its photographs as `--photos-OPTION` too.
        phantom: None where it can't be drawn.
        attributes: allowed values of each attribute, in drawing order.
        details: the same attributes in full.
        descriptors: the attributes that describe the anomaly and not the person; a healthy prompt ignores
            them.
        needs_one_of: a prompt must say something about at least one of these.
        region: where in the face the finding lies, None when it may be anywhere.
        metadata: what metadata.csv must say for a photograph to belong to the condition.
        face, healthy_face, appearance, caption, caption_appearance, phrases: templates (see grammar.py).
        columns: the columns of metadata.csv, from which captions are made.
    """

    name: str
    title: str
    trigger: str
    status: str
    closing: str
    attributes: Mapping[str, tuple[str, ...]]
    details: Mapping[str, Attribute]
    descriptors: tuple[str, ...]
    needs_one_of: tuple[str, ...]
    metadata: Mapping[str, tuple[str, ...]]
    columns: Mapping[str, Attribute]
    modes: Mapping[str, Mode]
    face: str
    healthy_face: str
    appearance: tuple[str, ...]
    caption: tuple[str, ...]
    caption_appearance: tuple[str, ...]
    phrases: Mapping[str, Template]
    caption_phrases: Mapping[str, Template]
    articles: Mapping[str, str]
    region: Region | None = None
    label: str = ""
    option: str = ""
    contrast: str | None = None
    contrast_trigger: str | None = None
    phantom: Phantom | None = None

    @property
    def max_timestep(self) -> int | None:
        """The phantom's, where the condition can be drawn."""
        return self.phantom.max_timestep if self.phantom else None

    @property
    def appearance_attributes(self) -> frozenset[str]:
        """The attributes that the sentences on appearance speak of, which clinical captions leave out."""
        found: set[str] = set()
        open_names = {name for template in self.appearance for name in spoken_in(template)}
        while open_names:
            name = open_names.pop()
            if name in self.details:
                found.add(name)
            for template in _texts({name: self.phrases[name]} if name in self.phrases else {}):
                open_names |= spoken_in(template)
        return frozenset(found)

    def check_attributes(self, attributes: Mapping[str, str]) -> dict[str, str]:
        """Return the attributes in the file's order and spelling, those left out ("") dropped.

        Raises:
            UserError: an attribute or value is unknown, with the allowed ones, or an attribute means nothing
                beside the others.
        """
        for name in attributes:
            self.attribute(name)
        checked = {
            name: detail.check(attributes[name], self.name)
            for name, detail in self.details.items()
            if attributes.get(name)
        }
        for name in checked:
            detail = self.details[name]
            if not detail.applies(checked):
                raise UserError(
                    f"{self.name}: {name} can be given only with {_requirement(detail)}; leave it out"
                )
        return checked

    def attribute(self, name: str) -> Attribute:
        """The attribute of that name; UserError names the existing ones."""
        if name not in self.details:
            raise UserError(f"{self.name} has no attribute {name!r}{_near(name, self.details)}")
        return self.details[name]

    def mode(self, name: str) -> Mode:
        """The mode of that name; UserError names the existing ones."""
        if name not in self.modes:
            raise UserError(f"{self.name} has no mode {name!r}{_near(name, self.modes)}")
        return self.modes[name]


@dataclass(frozen=True)
class Vocabulary:
    """A vocabulary file: its conditions, the columns of metadata.csv, and the SHA-256 of its content.

    Attributes:
        path: the file, None for the embedded one.
        zero_shot: prompts that probe the base model without a LoRA.
        zero_shot_note: what was found with them before.
        reported, reported_notes: others' figures, and how they are to be read.
        groups: for each of `GROUPS` the attributes that tell it, with the group of each value; without
            values the attribute's own value is the group.
    """

    name: str
    title: str
    conditions: Mapping[str, Condition]
    columns: Mapping[str, Attribute]
    sha256: str
    path: Path | None = None
    zero_shot: tuple[str, ...] = ()
    zero_shot_note: str = ""
    reported: tuple[Reported, ...] = ()
    reported_notes: tuple[str, ...] = ()
    groups: Mapping[str, Mapping[str, Mapping[str, str]]] = field(default_factory=dict)

    def groups_of(self, said: Mapping[str, str]) -> dict[str, str | None]:
        """Each of `GROUPS`, by a face's attributes or its row; None where they don't say."""
        return {name: self._group(name, said) for name in GROUPS}

    def _group(self, name: str, said: Mapping[str, str]) -> str | None:
        own = said.get(name, "").strip()
        if own:
            return None if own.casefold() == UNKNOWN else own
        for attribute, values in self.groups.get(name, {}).items():
            value = said.get(attribute, "")
            if group := (values.get(value) if values else value):
                return group
        return None

    def condition(self, name: str) -> Condition:
        """The condition of that name; UserError names the existing ones."""
        if name not in self.conditions:
            raise UserError(f"{self.title} has no condition {name!r}{_near(name, self.conditions)}")
        return self.conditions[name]

    def check_metadata(self, row: Mapping[str, str], where: str = "metadata.csv") -> dict[str, str]:
        """Return the known columns of a metadata row in the file's spelling, blank ones dropped.

        Columns that the vocabulary does not know are ignored.

        Raises:
            UserError: a value is not allowed, or a required column is blank; begins with `where`.
        """
        checked = {}
        for name, column in self.columns.items():
            value = (row.get(name) or "").strip()
            if value:
                checked[name] = column.check(value, where)
            elif column.required:
                raise UserError(
                    f"{where}: {name} is blank; fill in {_choices(column.values) or column.title}"
                )
        return checked

    def words(self) -> list[str]:
        """Every word that a prompt or caption can contain: lower case, sorted, triggers included."""
        words = {"a", "an", "and"}
        for condition in self.conditions.values():
            words |= {*words_of(condition.trigger), *words_of(condition.closing)}
            prompt = [condition.face, condition.healthy_face, *condition.appearance]
            words |= _words_of_templates([*prompt, *_texts(condition.phrases)], condition.details)
            caption = [*condition.caption, *condition.caption_appearance, *_texts(condition.caption_phrases)]
            words |= _words_of_templates(caption, condition.columns)
        return sorted(words)


def _texts(phrases: Mapping[str, Template]) -> list[str]:
    return [text for phrase in phrases.values() for text in ([phrase] if isinstance(phrase, str) else phrase)]


def _words_of_templates(templates: Iterable[str], spoken: Mapping[str, Attribute]) -> set[str]:
    words: set[str] = set()
    for template in templates:
        words.update(literal_words(template))
        for attribute in (spoken[name] for name in spoken_in(template) if name in spoken):
            for value in ("", *attribute.values):
                words.update(words_of(attribute.text(value)))
    return words


def _requirement(attribute: Attribute) -> str:
    needs = (attribute.requires or {}).items()
    return " and ".join(f"{key} {' or '.join(allowed)}" for key, allowed in needs)


def _choices(names: Iterable[str]) -> str:
    return ", ".join(names)


def _near(wanted: str, known: Iterable[str]) -> str:
    """What to do about an unknown name: the nearest one, if any, and all that are allowed."""
    known = list(known)
    near = nearest(wanted, known)
    hint = f"; did you mean {near!r}? Allowed: " if near else "; allowed: "
    return hint + (_choices(known) or "none")
