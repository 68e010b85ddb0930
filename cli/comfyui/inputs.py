"""A workflow's inputs: read from widgets, set by name."""

from __future__ import annotations

import math
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...diffusioncleft_core.errors import UserError
from ...diffusioncleft_core.ranges import Range
from ...diffusioncleft_core.text import nearest

DYNAMIC, GROWING = "COMFY_DYNAMICCOMBO_V3", "COMFY_AUTOGROW_V3"
"""A combo each of whose options has inputs of its own, named `combo.input`; a socket that grows, `name.0`."""
_SCALARS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", DYNAMIC}
NUMBERS: Mapping[str, type[int] | type[float]] = {"INT": int, "FLOAT": float}
_UPLOADS = ("image_upload", "animated_image_upload", "video_upload", "audio_upload", "file_upload")
# The frontend gives these names a control even where the node does not ask for one.
_SEEDS = ("seed", "noise_seed")
CONTROLS = ("fixed", "increment", "decrement", "randomize", "increment-wrap")


@dataclass(frozen=True)
class Input:
    """One declared input. kind: a widget's type, or the socket's; options: what a combo offers, else None."""

    name: str
    kind: str
    required: bool
    settings: Mapping[str, Any]
    options: tuple[Any, ...] | None = None

    @property
    def is_widget(self) -> bool:
        return self.kind in _SCALARS and not self.settings.get("forceInput")

    @property
    def has_control(self) -> bool:
        """True where the frontend stores a `control_after_generate` value behind this one."""
        asked = self.settings.get("control_after_generate")
        if asked is None:
            return self.kind in ("INT", "FLOAT") and self.name in _SEEDS
        return bool(asked)

    @property
    def has_upload(self) -> bool:
        """True where the frontend stores the name of an upload button behind this value."""
        return any(self.settings.get(name) for name in _UPLOADS)

    @property
    def default(self) -> Any:
        if "default" in self.settings:
            return self.settings["default"]
        if self.options is not None:
            return self.options[0] if self.options else ""
        return {"INT": 0, "FLOAT": 0.0, "BOOLEAN": False}.get(self.kind, "")


def inputs_of(definition: Mapping[str, Any]) -> list[Input]:
    """All inputs of a class of /object_info, in the server's order, required ones first."""
    return list(_inputs(definition))


def _inputs(definition: Mapping[str, Any]) -> Iterator[Input]:
    for group in ("required", "optional"):
        declared = definition.get("input", {}).get(group) or {}
        order = definition.get("input_order", {}).get(group) or list(declared)
        for name in order:
            spec = declared.get(name)
            if not isinstance(spec, (list, tuple)) or not spec:
                continue
            kind, settings = spec[0], spec[1] if len(spec) > 1 and isinstance(spec[1], Mapping) else {}
            if isinstance(kind, list):
                yield Input(name, "COMBO", group == "required", settings, tuple(kind))
            elif kind == DYNAMIC:
                keys = tuple(option["key"] for option in settings.get("options") or [])
                yield Input(name, kind, group == "required", settings, keys)
            elif kind == "COMBO":
                options = settings.get("options")
                known = None if options is None or settings.get("remote") else tuple(options)
                yield Input(name, kind, group == "required", settings, known)
            else:
                yield Input(name, str(kind), group == "required", settings)


def with_chosen(declared: Iterable[Input], value_of: Callable[[Input], Any]) -> Iterator[tuple[Input, Any]]:
    """Widgets and their values, in the frontend's order: behind a dynamic combo those of what is chosen."""
    for item in declared:
        if not item.is_widget:
            continue
        value = value_of(item)
        yield item, value
        if item.kind == DYNAMIC:
            chosen = [option for option in item.settings.get("options") or [] if option["key"] == value]
            inside = inputs_of({"input": chosen[0].get("inputs") or {}}) if chosen else []
            yield from with_chosen([replace(one, name=f"{item.name}.{one.name}") for one in inside], value_of)


def widget_values(node: Mapping[str, Any], definition: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a UI-format node's widgets by name.

    The file stores them by name, as today's frontend does beside its list, or as a list alone, in the order
    of the declared inputs, with the values of the frontend's own helpers between them. Values that are
    missing at the end take their defaults; too many raise UserError, because then the file was made for
    another version of the node.
    """
    declared = inputs_of(definition)
    stored: Any = node.get("widgets_values_named") or node.get("widgets_values") or []
    if isinstance(stored, Mapping):
        chosen = with_chosen(declared, lambda item: stored.get(item.name, item.default))
        values = {item.name: value for item, value in chosen}
        growing = tuple(f"{item.name}." for item in declared if item.kind == GROWING)
        return values | {
            name: value for name, value in stored.items() if growing and name.startswith(growing)
        }
    place = 0

    def taken(item: Input) -> Any:
        nonlocal place
        value = stored[place] if place < len(stored) else item.default
        place += 1
        if item.has_control and place < len(stored) and stored[place] in CONTROLS:
            place += 1
        if item.has_upload and place < len(stored) and stored[place] in ("image", "video", "audio", "file"):
            place += 1
        return value

    values = {item.name: value for item, value in with_chosen(declared, taken)}
    left = [value for value in stored[place:] if value not in (None, "")]
    if left and definition.get("python_module", "").startswith("custom_nodes"):
        left = []  # an extension's own script may have added widgets that the server knows nothing of
    if left:
        raise UserError(
            f"node {node.get('id')} ({node.get('type')}) stores {len(stored)} values, the server's node has "
            f"{place}: the workflow was made with another version; open it in ComfyUI and save it again"
        )
    return values


def parse_value(declared: Input, text: str, where: str) -> Any:
    """The typed value of `--set WHERE=TEXT`. Raises UserError that lists what is allowed."""
    if declared.kind in NUMBERS:
        return _number(declared, text, where)
    if declared.kind == "BOOLEAN":
        if text.lower() not in ("true", "false"):
            raise UserError(f"--set {where}: {text!r} is neither true nor false")
        return text.lower() == "true"
    if declared.options is not None:
        by_text = {str(option): option for option in declared.options}
        if text not in by_text:
            raise UserError(f"--set {where}: there is no {text!r}; choose one of: {_listed(by_text)}")
        return by_text[text]
    return text


def number_range(kind: str, settings: Mapping[str, Any]) -> Range:
    """What an INT or FLOAT input takes, by its own `min` and `max` in /object_info."""
    low, high = settings.get("min"), settings.get("max")
    return Range(NUMBERS[kind], -math.inf if low is None else low, math.inf if high is None else high)


def _number(declared: Input, text: str, where: str) -> Any:
    try:
        return number_range(declared.kind, declared.settings)(text)
    except ArgumentTypeError as error:
        raise UserError(f"--set {where}: {error}") from error


def _listed(names: Mapping[str, Any], most: int = 40) -> str:
    shown = ", ".join(list(names)[:most]) or "(the server has none)"
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


PREFIX = "DiffusionCleft_"


def apply_settings(graph: Graph, settings: Sequence[str], object_info: Mapping[str, Any]) -> Graph:
    """A copy of the graph with `NODE.INPUT=VALUE` settings applied, in order.

    NODE: id, title or class (ours with or without their prefix). A link to a widget's input is replaced by
    the value.

    Raises:
        UserError: a node, an input or a value does not fit; names those that do.
    """
    changed = {name: {**node, "inputs": dict(node["inputs"])} for name, node in graph.items()}
    for setting in settings:
        target, separator, text = setting.partition("=")
        if not separator:
            raise UserError(f"--set {setting!r} has no value; write --set NODE.INPUT=VALUE")
        node_id, declared = find_input(changed, target, object_info)
        changed[node_id]["inputs"][declared.name] = parse_value(declared, text, target)
    return changed


def find_input(graph: Graph, target: str, object_info: Mapping[str, Any]) -> tuple[str, Input]:
    """Node id and declared input that `NODE.INPUT` names. Titles and input names may hold dots themselves."""
    splits = [
        (target[:place], target[place + 1 :])
        for place, letter in enumerate(target)
        if letter == "." and place
    ]
    if not splits:
        raise UserError(f"{target!r} names no input; write NODE.INPUT, with a node of: {_nodes(graph)}")
    for name, wanted in reversed(splits):
        found = find_nodes(graph, name)
        if len(found) > 1:
            raise UserError(f"{name!r} is the name of nodes {', '.join(found)}; say which by its id")
        if found:
            return found[0], _input(graph, found[0], wanted, object_info)
    near = nearest(splits[-1][0], _names(graph))
    hint = f"did you mean {near!r}? " if near else ""
    raise UserError(f"there is no node {splits[-1][0]!r}; {hint}the workflow has: {_nodes(graph)}")


def find_nodes(graph: Graph, name: str) -> list[str]:
    """Ids of the nodes that are meant by an id, else by a title, else by a class."""
    if name in graph:
        return [name]
    for match in (_title, _class, _short_class):
        found = [node_id for node_id, node in graph.items() if match(node) == name]
        if found:
            return found
    return []


def _input(graph: Graph, node_id: str, wanted: str, object_info: Mapping[str, Any]) -> Input:
    kind = graph[node_id]["class_type"]
    given = graph[node_id]["inputs"]
    top = inputs_of(object_info.get(kind, {}))
    declared = {found.name: found for found in top}
    declared |= {item.name: item for item, _ in with_chosen(top, lambda item: given.get(item.name))}
    allowed = [name for name, found in declared.items() if found.is_widget]
    listed = ", ".join(allowed) or "(none)"
    if wanted not in declared:
        raise UserError(f"node {node_id} ({kind}) has no input {wanted!r}; it has: {listed}")
    if wanted not in allowed:
        raise UserError(f"{wanted!r} of node {node_id} ({kind}) is a connection; what can be set: {listed}")
    return declared[wanted]


def _title(node: Mapping[str, Any]) -> str:
    return str((node.get("_meta") or {}).get("title", ""))


def _class(node: Mapping[str, Any]) -> str:
    return str(node["class_type"])


def _short_class(node: Mapping[str, Any]) -> str:
    return _class(node).removeprefix(PREFIX)


def _names(graph: Graph) -> list[str]:
    return [name for node_id, node in graph.items() for name in (node_id, _title(node), _short_class(node))]


def _nodes(graph: Graph) -> str:
    parts = []
    for node_id, node in graph.items():
        title, kind = _title(node), _short_class(node)
        parts.append(f"{node_id} ({title}, {kind})" if title and title != kind else f"{node_id} ({kind})")
    return ", ".join(parts)


Graph = dict[str, dict[str, Any]]
