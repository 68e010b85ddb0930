"""Reads a vocabulary file (TOML) and checks it; docs/conditions.md describes the tables."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from ..files import sha256_bytes
from ..outputs import WINDOWS_DEVICE
from ..ranges import PHANTOM_NOISE, PHANTOMS, STRENGTH, number, whole
from ..text import opened, parse_toml, unicode_text
from .grammar import Template, names_in, words_of
from .names import why_not
from .table import Table
from .vocabulary import (
    ALL,
    GROUPS,
    LANDMARKS,
    PAPER_MODE,
    REPORTED_METRICS,
    Attribute,
    Condition,
    Mode,
    Phantom,
    Region,
    Reported,
    Rule,
    Vocabulary,
)

SCHEMA = 1
MARGIN = number(0, 10)
NOISE = whole(PHANTOM_NOISE[0] + 1, 1000)
"""Above the least noise that `robust` trains on."""
WEIGHT = number(0)
VALUE = number()
_WHAT = "the conditions file"
EMBEDDED = Path(__file__).with_name("cleft_lip.toml")


def load_vocabulary(path: Path | None = None) -> Vocabulary:
    """Read a vocabulary file; without a path, the embedded one.

    Raises:
        UserError: the rest of the software could not use it; names the file and the table.
    """
    own = None if path is None else Path(path)
    path = own or EMBEDDED
    with opened(path, _WHAT) as handle:
        data = handle.read()
    return _read(data, path, own)


@functools.lru_cache(maxsize=4)
def _read(data: bytes, path: Path, own: Path | None) -> Vocabulary:
    name = f"{_WHAT} {path}"
    document = parse_toml(unicode_text(data, name), name)
    return _vocabulary(Table(document, path.name), sha256_bytes(data), own)


def _vocabulary(root: Table, digest: str, path: Path | None) -> Vocabulary:
    root.only(
        "schema", "name", "title", "closing", "healthy_face", "appearance", "caption_appearance",
        "phrases", "articles", "attributes", "columns", "caption_phrases", "conditions", "zero_shot",
        "reported", "reported_notes", "groups",
    )  # fmt: skip
    if root.content.get("schema") != SCHEMA:
        raise root.fail(f"schema must be {SCHEMA}; this version reads no other")
    attributes = {name: _attribute(name, table) for name, table in root.tables("attributes").items()}
    columns = {name: _attribute(name, table) for name, table in root.tables("columns").items()}
    conditions = {
        name: _condition(name, table, root, attributes, columns)
        for name, table in root.tables("conditions").items()
    }
    if not conditions:
        raise root.fail("there is no condition; add a table [conditions.NAME]")
    if len({name.casefold() for name in conditions}) != len(conditions):
        raise root.fail(
            "two conditions' names differ in capitals alone; some systems have one folder for both"
        )
    triggers = [condition.trigger for condition in conditions.values()]
    if len(set(triggers)) != len(triggers):
        raise root.fail("two conditions have the same trigger; each needs its own")
    options = [condition.option for condition in conditions.values() if condition.option]
    if len(set(options)) != len(options):
        raise root.fail("two conditions have the same option; each needs its own")
    probes = root.table("zero_shot")
    probes.only("prompts", "note")
    return Vocabulary(
        root.text("name"),
        root.text("title"),
        {name: _with_contrast(condition, conditions, root) for name, condition in conditions.items()},
        columns,
        digest,
        path,
        probes.texts("prompts", ()),
        probes.text("note", ""),
        tuple(_reported(table, conditions) for table in root.list_of_tables("reported")),
        root.texts("reported_notes", ()),
        _groups(root.table("groups"), attributes),
    )


def _groups(table: Table, attributes: Mapping[str, Attribute]) -> dict[str, dict[str, dict[str, str]]]:
    """For each group of a study the attributes that tell it, with the group of each value."""
    table.only(*GROUPS)
    found = {}
    for name in table.content:
        group = table.table(name)
        group.only(*attributes)
        for attribute in group.content:
            group.table(attribute).only(*attributes[attribute].values)
        found[name] = {attribute: group.text_map(attribute) for attribute in group.content}
    return found


def _with_contrast(condition: Condition, known: Mapping[str, Condition], root: Table) -> Condition:
    """The condition with the trigger of the one it must not be mistaken for."""
    if condition.contrast is None:
        return condition
    if condition.contrast not in known or condition.contrast == condition.name:
        others = ", ".join(name for name in known if name != condition.name) or "none"
        raise (
            root.table("conditions")
            .table(condition.name)
            .fail(f"contrast names {condition.contrast!r}; there are: {others}")
        )
    return replace(condition, contrast_trigger=known[condition.contrast].trigger)


def _reported(table: Table, conditions: Mapping[str, Condition]) -> Reported:
    table.only("method", "column", "condition", "metric", "value", "source", "caveat")
    for key, known in (("condition", (*conditions, ALL)), ("metric", REPORTED_METRICS)):
        if table.text(key) not in known:
            raise table.fail(f"{key} names {table.text(key)!r}; there are: {', '.join(known)}")
    value = table.content.get("value")
    if not VALUE.holds(value):
        raise table.fail("value must be a number, in the unit of our own figure")
    return Reported(
        table.text("method"),
        table.text("column", table.text("method")),
        table.text("condition"),
        table.text("metric"),
        float(value or 0),
        table.text("source", ""),
        table.text("caveat", ""),
    )


def _attribute(name: str, table: Table) -> Attribute:
    table.only("title", "values", "phrases", "absent", "requires", "required", "source")
    values = table.texts("values", ())
    phrases = table.text_map("phrases")
    for value, phrase in phrases.items():
        if value not in values:
            raise table.fail(f"phrases names {value!r}, which is not among the values")
        if set(phrase) & set("()[]{}"):
            raise table.fail(f"the phrase {phrase!r} has brackets or parentheses; write it without")
    for value in values:
        if set(value) & set("()[]{}|,=?"):
            raise table.fail(f"the value {value!r} has one of the signs ()[]{{}}|,=?; write it without")
    return Attribute(
        name,
        table.text("title"),
        values,
        phrases,
        table.text("absent", ""),
        table.allowed_map("requires"),
        table.flag("required"),
        table.text("source", ""),
    )


def _condition(
    name: str, table: Table, root: Table, shared: Mapping[str, Attribute], columns: Mapping[str, Attribute]
) -> Condition:
    table.only(
        "title", "trigger", "status", "attributes", "descriptors", "needs_one_of", "draw", "face", "caption",
        "metadata", "values", "phrases", "caption_phrases", "weights", "modes", "region", "label",
        "option", "contrast", "phantom",
    )  # fmt: skip
    if problem := why_not(name):
        raise table.fail(f"a condition can't be called {name!r}: {problem}")
    details = _details(table, shared)
    trigger = table.text("trigger")
    if len(trigger.split()) != 1 or len(words_of(trigger)) != 1 or not trigger.isalnum():
        raise table.fail(f"trigger {trigger!r} must be one word of letters and digits")
    if WINDOWS_DEVICE.match(trigger):
        raise table.fail(f"trigger {trigger!r} names the LoRA's file, and Windows keeps it for a device")
    condition = Condition(
        name=name,
        title=table.text("title"),
        trigger=trigger,
        status=table.text("status"),
        closing=root.text("closing"),
        attributes={key: detail.values for key, detail in details.items()},
        details=details,
        descriptors=_known(table, "descriptors", details),
        needs_one_of=_known(table, "needs_one_of", details),
        metadata=table.allowed_map("metadata"),
        columns=columns,
        modes=_modes(table, details),
        face=table.template("face"),
        healthy_face=root.template("healthy_face"),
        appearance=root.templates("appearance", ()),
        caption=table.templates("caption"),
        caption_appearance=root.templates("caption_appearance", ()),
        phrases={**root.phrases("phrases"), **table.phrases("phrases")},
        caption_phrases={**root.phrases("caption_phrases"), **table.phrases("caption_phrases")},
        articles=root.text_map("articles"),
        region=_region(table),
        label=table.text("label", table.text("title")),
        option=_option(table),
        contrast=table.text("contrast") if "contrast" in table.content else None,
        phantom=_phantom(table),
    )
    if "(" in condition.closing or ")" in condition.closing:
        raise root.fail("closing has parentheses, which ComfyUI reads as emphasis; write it without")
    _check_choices(table, "metadata", condition.metadata, columns)
    _check_names(table, condition)
    return condition


def _option(table: Table) -> str:
    option = table.text("option", "")
    if option and not (option.isascii() and option.isalnum()):
        raise table.fail(f"option {option!r} must be letters and digits: `run` has it in --photos-{option}")
    return option


def _phantom(table: Table) -> Phantom | None:
    """The condition's `phantom = { finding = ..., photographs = 100, strength = 1.5 }`, if it has one."""
    if "phantom" not in table.content:
        return None
    part = table.table("phantom")
    part.only("finding", "photographs", "strength", "max_timestep")
    finding, photographs = part.text("finding"), part.content.get("photographs", 100)
    strength, noise = part.content.get("strength", 1.0), part.content.get("max_timestep")
    if not PHANTOMS.holds(photographs):
        raise part.fail(f"photographs must be {PHANTOMS}")
    if not STRENGTH.holds(strength):
        raise part.fail(f"strength must be {STRENGTH}")
    if noise is not None and not NOISE.holds(noise):
        raise part.fail(f"max_timestep must be {NOISE}")
    return Phantom(finding, int(photographs), float(strength), noise)


def _region(table: Table) -> Region | None:
    """The condition's `region = { landmarks = ["nose", ...], margin = 0.35 }`, if it has one."""
    if "region" not in table.content:
        return None
    part = table.table("region")
    part.only("landmarks", "margin")
    landmarks = part.texts("landmarks")
    for name in landmarks:
        if name not in LANDMARKS:
            raise part.fail(f"landmarks has no {name!r}; there are {', '.join(LANDMARKS)}")
    margin = part.content.get("margin", 0.0)
    if not landmarks or not MARGIN.holds(margin):
        raise part.fail(f"region needs landmarks and a margin: {MARGIN}, a share of the box's longer side")
    return Region(landmarks, float(margin))


def _details(table: Table, shared: Mapping[str, Attribute]) -> dict[str, Attribute]:
    """The condition's attributes with its own choice of values."""
    details: dict[str, Attribute] = {}
    narrowed = table.allowed_map("values")
    for name in _known(table, "attributes", shared, required=True):
        attribute = shared[name]
        values = narrowed.pop(name, attribute.values)
        if not values or not set(values) <= set(attribute.values):
            raise table.fail(f"values of {name} must be some of: {', '.join(attribute.values)}")
        attribute = Attribute(**{**attribute.__dict__, "values": values})
        _check_choices(table, f"requires of {name}", attribute.requires or {}, details)
        details[name] = attribute
    if narrowed:
        raise table.fail(f"values names {', '.join(narrowed)}, which is not among the attributes")
    return details


def _known(table: Table, key: str, known: Mapping[str, Any], required: bool = False) -> tuple[str, ...]:
    names = table.texts(key, None if required else ())
    for name in names:
        if name not in known:
            raise table.fail(f"{key} names {name!r}; there are: {', '.join(known)}")
    return names


def _modes(table: Table, details: Mapping[str, Attribute]) -> dict[str, Mode]:
    """`paper` (the condition's own draw and weights) and every mode that the file adds."""
    base = _weights(table, details)
    draw = _known(table, "draw", details) or tuple(details)
    title = "every attribute uniform" if not base else "uniform but for the weights of the condition"
    modes = {PAPER_MODE: Mode(PAPER_MODE, title, draw, base, (), "")}
    for name, mode in table.tables("modes").items():
        mode.only("title", "draw", "weights", "rules", "source")
        modes[name] = Mode(
            name,
            mode.text("title"),
            _known(mode, "draw", details) or draw,
            {**base, **_weights(mode, details)},
            _rules(mode, details),
            mode.text("source", ""),
        )
    return modes


def _rules(mode: Table, details: Mapping[str, Attribute]) -> tuple[Rule, ...]:
    order = list(details)
    rules = []
    for table in mode.list_of_tables("rules"):
        table.only("when", "weights", "reason")
        rule = Rule(table.allowed_map("when"), _weights(table, details), table.text("reason"))
        _check_choices(table, "when", rule.when, details)
        for name in rule.weights:
            late = [key for key in rule.when if order.index(key) >= order.index(name)]
            if late:
                raise table.fail(f"{name} is drawn before {late[0]}; change their order in attributes")
        rules.append(rule)
    return tuple(rules)


def _weights(table: Table, details: Mapping[str, Attribute]) -> dict[str, dict[str, Fraction]]:
    weights: dict[str, dict[str, Fraction]] = {}
    for name, entry in table.tables("weights").items():
        _check_choices(table, "weights", {name: tuple(entry.content)}, details)
        if not all(WEIGHT.holds(weight) for weight in entry.content.values()):
            raise entry.fail(f"a weight must be {WEIGHT}")
        weights[name] = {value: Fraction(str(number)) for value, number in entry.content.items()}
        if not any(weights[name].values()):
            raise entry.fail("at least one weight must be above 0")
    return weights


def _check_choices(
    table: Table, what: str, choices: Mapping[str, tuple[str, ...]], known: Mapping[str, Attribute]
) -> None:
    for name, values in choices.items():
        if name not in known:
            raise table.fail(f"{what} names {name!r}; known before it: {', '.join(known) or 'none'}")
        wrong = [value for value in values if value not in known[name].values]
        if wrong:
            raise table.fail(f"{what}: {name} has no {wrong[0]!r}; it has: {', '.join(known[name].values)}")


def _check_names(table: Table, condition: Condition) -> None:
    """Every name in a template must be an attribute, a column, or a phrase that does not mention itself."""
    prompt = [condition.face, condition.healthy_face, *condition.appearance]
    for templates, phrases, known in (
        (prompt, condition.phrases, condition.details),
        ([*condition.caption, *condition.caption_appearance], condition.caption_phrases, condition.columns),
    ):
        _check_phrases(table, [*templates, *(f"{{{name}}}" for name in phrases)], phrases, known, ())


def _check_phrases(
    table: Table,
    templates: Sequence[str],
    phrases: Mapping[str, Template],
    known: Mapping[str, Attribute],
    parents: tuple[str, ...],
) -> None:
    for template in templates:
        for name in names_in(template):
            if name in parents:
                raise table.fail(f"the phrase {name} mentions itself")
            if name in phrases:
                phrase = phrases[name]
                inner = [phrase] if isinstance(phrase, str) else phrase
                _check_phrases(table, inner, phrases, known, (*parents, name))
            elif name not in known:
                names = ", ".join([*phrases, *known])
                raise table.fail(f"a template mentions {{{name}}}; it can mention: {names}")
