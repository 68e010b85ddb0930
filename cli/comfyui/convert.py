"""UI-format workflows to API-format graphs, as the frontend's own export makes them.

The UI file keeps what a person sees: positions, widgets in order, reroutes, notes, muted and bypassed nodes.
The API graph keeps what runs: class, inputs by name, links as [node id, output].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...diffusioncleft_core.errors import UserError
from .inputs import Graph, inputs_of, widget_values
from .scopes import BYPASSED, MUTED, Node, Origin, Scope, Value, scopes_of

__all__ = ["BYPASSED", "MUTED", "is_api_format", "is_ui_format", "to_api"]


def is_ui_format(workflow: Any) -> bool:
    return isinstance(workflow, dict) and isinstance(workflow.get("nodes"), list)


def is_api_format(workflow: Any) -> bool:
    return (
        isinstance(workflow, dict)
        and bool(workflow)
        and all(isinstance(node, dict) and "class_type" in node for node in workflow.values())
    )


def to_api(workflow: Any, object_info: Mapping[str, Any], source: str = "the workflow") -> Graph:
    """The API-format graph of a workflow in either format.

    Args:
        workflow: the file's content.
        object_info: the server's /object_info.
        source: how to name the workflow in messages.

    Raises:
        UserError: it is neither format, it is damaged, or the server does not have a node's class.
    """
    if is_api_format(workflow):
        graph = {str(name): _api_node(node, source, name) for name, node in workflow.items()}
        _known({node["class_type"] for node in graph.values()}, object_info, source)
        return graph
    if not is_ui_format(workflow):
        raise UserError(
            f"{source} is no ComfyUI workflow: neither UI format (nodes) nor API format (class_type)"
        )
    running = list(scopes_of(workflow, source).running())
    _known({node["type"] for _, node in running}, object_info, source)
    graph = {
        scope.node_id(node): _converted(scope, node, object_info[node["type"]]) for scope, node in running
    }
    for node in graph.values():
        node["inputs"] = {
            name: value
            for name, value in node["inputs"].items()
            if not isinstance(value, list) or value[0] in graph
        }
    return graph


def _converted(scope: Scope, node: Node, definition: Mapping[str, Any]) -> dict[str, Any]:
    """A node in API format: widgets' values, and over them what is linked."""
    inputs = {name: _literal(value) for name, value in widget_values(node, definition).items()}
    for place, slot in enumerate(node.get("inputs") or []):
        found = scope.input(node, place)
        if isinstance(found, Value):
            inputs[slot["name"]] = _literal(found.value)
        elif isinstance(found, Origin):
            inputs[slot["name"]] = [found.node_id, found.slot]
    order = [declared.name for declared in inputs_of(definition) if declared.name in inputs]
    ordered = {name: inputs[name] for name in [*order, *(n for n in inputs if n not in order)]}
    title = node.get("title") or definition.get("display_name") or node["type"]
    return {"inputs": ordered, "class_type": node["type"], "_meta": {"title": title}}


def _literal(value: Any) -> Any:
    """A list would read as a link in an API graph; the server unwraps this form."""
    return {"__value__": value} if isinstance(value, list) else value


def _known(classes: set[str], object_info: Mapping[str, Any], source: str) -> None:
    missing = sorted(name for name in classes if name not in object_info)
    if missing:
        raise UserError(
            f"{source} needs nodes that the server does not have: {', '.join(missing)}; "
            "install their pack in custom_nodes and restart ComfyUI"
        )


def _api_node(node: Mapping[str, Any], source: str, name: str) -> dict[str, Any]:
    inputs = node.get("inputs", {})
    if not isinstance(inputs, dict) or not isinstance(node["class_type"], str):
        raise UserError(
            f"{source}: node {name} is damaged: it needs a class_type and inputs; export it again"
        )
    return {**node, "inputs": dict(inputs)}
