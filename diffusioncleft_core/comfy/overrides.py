"""`--set node.input=value`: which node and input of a graph are meant, and whether the value fits."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import UserError
from .convert import Graph
from .widgets import Input, inputs_of, parse_value

PREFIX = "DiffusionCleft_"


def apply_settings(graph: Graph, settings: Sequence[str], object_info: Mapping[str, Any]) -> Graph:
    """A copy of the graph with `NODE.INPUT=VALUE` settings applied, in order.

    NODE: id, title or class (ours with or without their prefix). A link to a widget's input is replaced by
    the value. Raises UserError, with the allowed names, for a node, an input or a value that does not fit.
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
    near = difflib.get_close_matches(splits[-1][0], _names(graph), n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
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
    declared = {found.name: found for found in inputs_of(object_info.get(kind, {}))}
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
