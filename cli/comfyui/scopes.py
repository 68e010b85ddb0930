"""A UI workflow as nested scopes: the graph, and a subgraph's inside once for each node that stands for it.

Links are followed the frontend's way: through reroutes, bypassed nodes, and the edges of subgraphs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...diffusioncleft_core.errors import UserError

MUTED, BYPASSED = 2, 4
NOTES = frozenset({"Note", "MarkdownNote"})
VIRTUAL = frozenset({"Reroute", "PrimitiveNode"}) | NOTES
_MOST_HOPS, _MOST_DEPTH = 300, 50
_INSIDE, _OUTSIDE = -10, -20
"""Ids of the nodes that stand for a subgraph's inputs and outputs inside it."""
Node = Mapping[str, Any]


@dataclass(frozen=True)
class Value:
    """A value that a primitive node, or the widget of a subgraph's node, gives to an input."""

    value: Any


@dataclass(frozen=True)
class Origin:
    """The output that feeds an input: the id that the node has in the API graph, and the output's place."""

    node_id: str
    slot: int


@dataclass(eq=False)
class Scope:
    """The nodes and links of one graph. parent, outer: the scope and node that it is the inside of.

    links: origin, its output, target, its input and type by number.
    """

    source: str
    nodes: dict[str, Node]
    links: dict[Any, tuple[str, int, str, int, str]]
    path: tuple[str, ...] = ()
    parent: Scope | None = None
    outer: Node | None = None
    inner: dict[str, Scope] = field(default_factory=dict)

    def node_id(self, node: Node) -> str:
        """The node's id in the API graph: those of the subgraphs' nodes that it lies in before it."""
        return ":".join([*self.path, str(node["id"])])

    def running(self) -> Iterator[tuple[Scope, Node]]:
        """The nodes that run, those inside subgraphs too, each with its scope."""
        for node in sorted(self.nodes.values(), key=lambda node: node.get("order") or 0):
            if node["type"] in VIRTUAL or node.get("mode", 0) in (MUTED, BYPASSED):
                continue
            if inside := self.inner.get(str(node["id"])):
                yield from inside.running()
            else:
                yield self, node

    def input(self, node: Node, place: int, hops: int = 0) -> Origin | Value | None:
        """What feeds an input of a node; None where nothing does."""
        if hops > _MOST_HOPS:
            raise UserError(
                f"{self.source}: the links run in a circle; open it in ComfyUI and remove the circle"
            )
        slots = node.get("inputs") or []
        if place >= len(slots) or slots[place].get("link") not in self.links:
            return None
        origin, slot, _, _, kind = self.links[slots[place]["link"]]
        if origin == str(_INSIDE) and self.parent is not None and self.outer is not None:
            given = self.parent.input(self.outer, slot, hops + 1)
            outside = self.outer.get("inputs") or []
            linked = slot < len(outside) and outside[slot].get("link") is not None
            return given if linked else _promoted(self.outer, slot)
        return self._output(origin, slot, str(slots[place].get("type") or kind), hops + 1)

    def _output(self, origin: str, slot: int, kind: str, hops: int) -> Origin | Value | None:
        """What an output gives: the node itself, or what it only passes on."""
        node = self.nodes.get(origin)
        if node is None or node.get("mode", 0) == MUTED:
            return None
        if node.get("mode", 0) == BYPASSED:
            passed = _bypass(node, slot, kind)
            return None if passed is None else self.input(node, passed, hops + 1)
        if inside := self.inner.get(origin):
            return inside.result(slot, kind, hops + 1)
        if node["type"] == "PrimitiveNode":
            values = node.get("widgets_values") or []
            return Value(values[0]) if values else None
        if node["type"] == "Reroute":
            return self.input(node, 0, hops + 1)
        return Origin(self.node_id(node), slot)

    def result(self, slot: int, kind: str, hops: int) -> Origin | Value | None:
        """What an output of the subgraph's node gives."""
        for origin, output, target, place, _ in self.links.values():
            if target == str(_OUTSIDE) and place == slot:
                if origin == str(_INSIDE) and self.parent is not None and self.outer is not None:
                    return self.parent.input(self.outer, output, hops + 1)
                return self._output(origin, output, kind, hops + 1)
        return None


def scopes_of(workflow: Mapping[str, Any], source: str) -> Scope:
    """The workflow's scope, with those of its subgraphs.

    Raises:
        UserError: a node or link is damaged, or subgraphs lie in each other without end.
    """
    definitions = (workflow.get("definitions") or {}).get("subgraphs") or []
    subgraphs = {str(item.get("id")): item for item in definitions if isinstance(item, Mapping)}

    def scope(
        graph: Mapping[str, Any],
        path: tuple[str, ...] = (),
        parent: Scope | None = None,
        outer: Node | None = None,
    ) -> Scope:
        if len(path) > _MOST_DEPTH:
            raise UserError(f"{source}: a subgraph lies in itself; open it in ComfyUI and take it out")
        nodes = {str(node["id"]): node for node in graph.get("nodes") or [] if _is_node(node, source)}
        links = dict(_link(link, source) for link in graph.get("links") or [])
        found = Scope(source, nodes, links, path, parent, outer)
        for name, node in nodes.items():
            if inside := subgraphs.get(node["type"]):
                found.inner[name] = scope(inside, (*path, name), found, node)
        return found

    return scope(workflow)


def _promoted(outer: Node, slot: int) -> Value | None:
    """The value of a widget that a subgraph's node shows for an input; None where the inside keeps it."""
    inputs = outer.get("inputs") or []
    if slot >= len(inputs) or "widget" not in inputs[slot]:
        return None
    name = inputs[slot]["name"]
    named, stored = outer.get("widgets_values_named"), outer.get("widgets_values")
    if isinstance(named, Mapping):
        return Value(named[name]) if name in named else None
    if isinstance(stored, Mapping):
        return Value(stored[name]) if name in stored else None
    place = sum("widget" in item for item in inputs[:slot])
    widgets = sum("widget" in item for item in inputs)
    return Value(stored[place]) if isinstance(stored, list) and len(stored) == widgets else None


def _bypass(node: Node, slot: int, kind: str) -> int | None:
    """The input a bypassed node passes on to an output: the one beside it, else the first of its type."""
    inputs, outputs = node.get("inputs") or [], node.get("outputs") or []
    given = str(outputs[slot]["type"]) if slot < len(outputs) else kind
    if kind in ("*", ""):
        return (slot if slot < len(inputs) else 0) if inputs else None
    types = [str(item.get("type")) for item in inputs]
    fits = [_connects(found, given) and _connects(found, kind) for found in types]
    if slot < len(inputs) and fits[slot]:
        return slot
    same = (place for place, item in enumerate(inputs) if item.get("type") == kind)
    return next(same, next((place for place, fit in enumerate(fits) if fit), None))


def _connects(one: str, other: str) -> bool:
    """Whether the frontend links two types: equal ones, any, or lists that share one."""
    if one in ("", "*", "0") or other in ("", "*", "0"):
        return True
    return bool(set(one.lower().split(",")) & set(other.lower().split(",")))


def _is_node(node: Any, source: str) -> bool:
    if isinstance(node, dict) and "id" in node and isinstance(node.get("type"), str):
        return True
    raise UserError(f"{source}: a node has no id or no type; the file is damaged, save it again in ComfyUI")


def _link(link: Any, source: str) -> tuple[Any, tuple[str, int, str, int, str]]:
    """A link by its number: a list in format 0.4, an object in format 1.0 and in subgraphs."""
    try:
        if isinstance(link, dict):
            ends = (link["origin_id"], link["origin_slot"], link["target_id"], link["target_slot"])
            number, kind = link["id"], link["type"]
        else:
            number, *ends, kind = link[:6]
        return number, (str(ends[0]), int(ends[1]), str(ends[2]), int(ends[3]), str(kind))
    except (LookupError, TypeError, ValueError) as error:
        raise UserError(f"{source}: a link is damaged; save the workflow again in ComfyUI") from error
