"""UI-format workflows to API-format graphs, as the frontend's own export makes them.

The UI file keeps what a person sees: positions, widgets in order, reroutes, notes, muted and bypassed nodes.
The API graph keeps what runs: class, inputs by name, links as [node id, output].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...diffusioncleft_core.errors import UserError
from .inputs import Graph, inputs_of, widget_values

MUTED, BYPASSED = 2, 4
_NOTES = {"Note", "MarkdownNote"}
_VIRTUAL = {"Reroute", "PrimitiveNode"} | _NOTES
_MOST_HOPS = 1000
Link = tuple[Any, int, str]


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
        UserError: it is neither format, it holds subgraphs, or the server does not have a node's class.
    """
    if is_api_format(workflow):
        graph = {str(name): _api_node(node, source, name) for name, node in workflow.items()}
        _known({node["class_type"] for node in graph.values()}, object_info, source)
        return graph
    if not is_ui_format(workflow):
        raise UserError(
            f"{source} is no ComfyUI workflow: neither UI format (nodes) nor API format (class_type)"
        )
    return _Converter(workflow, object_info, source).graph()


class _Converter:
    def __init__(self, workflow: Mapping[str, Any], object_info: Mapping[str, Any], source: str) -> None:
        if (workflow.get("definitions") or {}).get("subgraphs"):
            raise UserError(
                f"{source} uses subgraphs, which this client does not unpack; "
                "export it from ComfyUI (Workflow, Export (API)) and give that file"
            )
        self.info, self.source = object_info, source
        self.nodes = {node["id"]: node for node in workflow["nodes"] if _is_node(node, source)}
        self.links: dict[Any, Link] = {}
        for link in workflow.get("links") or []:
            number, origin, slot, kind = _link_fields(link, source)
            self.links[number] = (origin, slot, kind)
        kept = [node for node in self.nodes.values() if self._runs(node)]
        self.kept = sorted(kept, key=lambda node: node.get("order", 0))
        _known({node["type"] for node in self.kept}, object_info, source)

    def graph(self) -> Graph:
        """The nodes that run; an input whose source does not run is left out."""
        return {str(node["id"]): self._node(node) for node in self.kept}

    def _runs(self, node: Mapping[str, Any]) -> bool:
        return node["type"] not in _VIRTUAL and node.get("mode", 0) not in (MUTED, BYPASSED)

    def _node(self, node: Mapping[str, Any]) -> dict[str, Any]:
        definition = self.info[node["type"]]
        inputs = {name: _literal(value) for name, value in widget_values(node, definition).items()}
        for slot in node.get("inputs") or []:
            if slot.get("link") is None:
                continue
            found = self._source(slot["link"])
            if found is None:
                inputs.pop(slot["name"], None)
            elif isinstance(found, _Value):
                inputs[slot["name"]] = _literal(found.value)
            else:
                inputs[slot["name"]] = [str(found[0]), found[1]]
        order = [declared.name for declared in inputs_of(definition) if declared.name in inputs]
        ordered = {name: inputs[name] for name in [*order, *(n for n in inputs if n not in order)]}
        title = node.get("title") or definition.get("display_name") or node["type"]
        return {"inputs": ordered, "class_type": node["type"], "_meta": {"title": title}}

    def _source(self, link: Any) -> tuple[Any, int] | _Value | None:
        """Follow a link through reroutes and bypassed nodes to the output, or the value, that feeds it."""
        for _ in range(_MOST_HOPS):
            if link not in self.links:
                return None
            origin, slot, kind = self.links[link]
            node = self.nodes.get(origin)
            if node is None or node.get("mode", 0) == MUTED:
                return None
            if node["type"] == "PrimitiveNode":
                values = node.get("widgets_values") or []
                return _Value(values[0]) if values else None
            if node["type"] == "Reroute":
                following = 0
            elif node.get("mode", 0) == BYPASSED:
                found = _bypass(node, slot, kind)
                if found is None:
                    return None
                following = found
            else:
                return origin, slot
            inputs = node.get("inputs") or []
            if following >= len(inputs) or inputs[following].get("link") is None:
                return None
            link = inputs[following]["link"]
        raise UserError(f"{self.source}: the links run in a circle; open it in ComfyUI and remove the circle")


class _Value:
    """A value that a primitive node holds."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _bypass(node: Mapping[str, Any], slot: int, kind: str) -> int | None:
    """The input a bypassed node passes on to an output: the one beside it, else the first of its type."""
    inputs, outputs = node.get("inputs") or [], node.get("outputs") or []
    wanted = outputs[slot]["type"] if slot < len(outputs) else kind
    if "*" in (wanted, kind) or (slot < len(inputs) and inputs[slot].get("type") == wanted):
        return slot
    return next((place for place, found in enumerate(inputs) if found.get("type") == wanted), None)


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


def _is_node(node: Any, source: str) -> bool:
    if isinstance(node, dict) and "id" in node and isinstance(node.get("type"), str):
        return True
    raise UserError(f"{source}: a node has no id or no type; the file is damaged, save it again in ComfyUI")


def _link_fields(link: Any, source: str) -> tuple[Any, Any, int, str]:
    """Number, origin, output and type of a link: a list in format 0.4, an object in format 1.0."""
    try:
        if isinstance(link, dict):
            return link["id"], link["origin_id"], int(link["origin_slot"]), str(link["type"])
        return link[0], link[1], int(link[2]), str(link[5])
    except (LookupError, TypeError, ValueError) as error:
        raise UserError(f"{source}: a link is damaged; save the workflow again in ComfyUI") from error
