"""Builds one workflow: nodes in columns, columns in groups, groups in a row; UI format, laid out by itself.

Widget values are put in order by the server's own node definitions, by the code that the client reads
workflows with, so that a UI file and its API twin can't drift apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from diffusioncleft.cli.comfyui.inputs import Input, inputs_of

# Canvas units of ComfyUI's frontend: title bar, one slot, one widget, a text box.
TITLE, SLOT, WIDGET, TEXT = 30, 20, 24, 110
GAP, PAD, GROUP_TITLE = 40, 20, 45
COLORS = {"data": "#3f789e", "model": "#a1309b", "draw": "#3f8f4f", "check": "#b58b2a", "measure": "#8a5a3c"}
NOTE = "MarkdownNote"
OURS = "DiffusionCleft_"


@dataclass(eq=False)
class Node:
    """One node. inputs: literal values, or (node, output) for a link. height: at least so much."""

    number: int
    kind: str
    title: str | None
    inputs: dict[str, Any]
    width: int
    height: int
    control: str = "fixed"
    pos: tuple[int, int] = (0, 0)

    def __getitem__(self, output: int) -> tuple[Node, int]:
        return self, output


@dataclass(eq=False)
class Group:
    """A titled box of columns."""

    graph: Graph
    title: str
    color: str
    columns: list[list[Node]] = field(default_factory=lambda: [[]])
    box: tuple[int, int, int, int] = (0, 0, 0, 0)

    def column(self) -> None:
        """Start the next column."""
        self.columns.append([])

    def add(
        self,
        kind: str,
        title: str | None = None,
        *,
        width: int = 320,
        height: int = 0,
        control: str = "fixed",
        **inputs: Any,
    ) -> Node:
        """Put a node under the last one. height: room for what it will show.

        An input whose name is taken here has an underscore behind it: `width_`.
        """
        inputs = {name.rstrip("_"): value for name, value in inputs.items()}
        node = self.graph.new_node(kind, title, inputs, width, height, control)
        self.columns[-1].append(node)
        return node

    def note(self, text: str, *, width: int = 320, height: int = 160) -> Node:
        return self.add(NOTE, "Note", width=width, height=height, text=text)


class Graph:
    """A workflow in the making. info: the server's /object_info."""

    def __init__(self, name: str, info: Mapping[str, Any]) -> None:
        self.name, self._info = name, info
        self.nodes: list[Node] = []
        self.groups: list[Group] = []

    def group(self, title: str, color: str) -> Group:
        """A group to the right of the last one."""
        group = Group(self, title, COLORS[color])
        self.groups.append(group)
        return group

    def new_node(
        self, kind: str, title: str | None, inputs: dict[str, Any], width: int, height: int, control: str
    ) -> Node:
        declared = self.declared(kind)
        unknown = set(inputs) - set(declared)
        if unknown:
            raise ValueError(f"{self.name}: {kind} has no input {sorted(unknown)}; it has {list(declared)}")
        missing = [
            item.name
            for item in declared.values()
            if item.required and not item.is_widget and item.name not in inputs
        ]
        if missing:
            raise ValueError(f"{self.name}: {kind} needs a link for {missing}")
        node = Node(len(self.nodes) + 1, kind, title, inputs, width, max(height, self._least(kind)), control)
        self.nodes.append(node)
        return node

    def declared(self, kind: str) -> dict[str, Input]:
        if kind == NOTE:
            return {"text": Input("text", "STRING", True, {"multiline": True})}
        return {item.name: item for item in inputs_of(self._info[kind])}

    def _least(self, kind: str) -> int:
        """Height that the frontend needs for slots and widgets."""
        if kind == NOTE:
            return 60
        widgets = [item for item in self.declared(kind).values() if item.is_widget]
        sockets = len(self.declared(kind)) - len(widgets)
        height = SLOT * max(sockets, len(self._info[kind]["output"])) + 16
        for item in widgets:
            height += TEXT if item.settings.get("multiline") else WIDGET
            height += WIDGET if item.has_control else 0
        return height

    def lay_out(self) -> None:
        """Give every node its place and every group its box; all groups are as tall as the tallest."""
        left = 0
        tallest = max(self._tall(column) for group in self.groups for column in group.columns)
        for group in self.groups:
            start, left = left, left + PAD
            for column in group.columns:
                down = GROUP_TITLE
                for node in column:
                    node.pos = (left, down + TITLE)
                    down += TITLE + node.height + GAP
                left += max(node.width for node in column) + GAP
            left += PAD - GAP
            group.box = (start, 0, left - start, GROUP_TITLE + tallest + PAD)
            left += GAP

    @staticmethod
    def _tall(column: list[Node]) -> int:
        return sum(TITLE + node.height for node in column) + GAP * (len(column) - 1)

    def ui(self) -> dict[str, Any]:
        """The workflow in UI format 0.4."""
        self.lay_out()
        links: list[list[Any]] = []
        written = {node: self._ui_node(node) for node in self.nodes}
        for node in self.nodes:
            for slot, described in enumerate(written[node]["inputs"]):
                source = node.inputs.get(described["name"])
                if not isinstance(source, tuple):
                    continue
                origin, output = source
                number = len(links) + 1
                described["link"] = number
                given = written[origin]["outputs"][output]
                given["links"] = [*(given["links"] or []), number]
                links.append([number, origin.number, output, node.number, slot, given["type"]])
        for order, node in enumerate(self._order()):
            written[node]["order"] = order
            outputs = written[node]["outputs"]
            # ComfyUI's nodes gain outputs from release to release: only what is used is written down.
            while outputs and not node.kind.startswith(OURS) and outputs[-1]["links"] is None:
                outputs.pop()
        return {
            "last_node_id": len(self.nodes),
            "last_link_id": len(links),
            "nodes": [written[node] for node in self.nodes],
            "links": links,
            "groups": [
                {
                    "id": number,
                    "title": group.title,
                    "bounding": list(group.box),
                    "color": group.color,
                    "font_size": 24,
                    "flags": {},
                }
                for number, group in enumerate(self.groups, start=1)
            ],
            "config": {},
            "extra": {"ds": {"scale": 0.6, "offset": [40, 60]}},
            "version": 0.4,
        }

    def _ui_node(self, node: Node) -> dict[str, Any]:
        """Sockets first, then widgets' inputs, as the frontend keeps them."""
        declared = list(self.declared(node.kind).values())
        values: list[Any] = []
        for item in declared:
            if not item.is_widget:
                continue
            # without a declared default a combo begins with what this machine has
            default = "" if item.options and "default" not in item.settings else item.default
            given = node.inputs.get(item.name, item.default)
            values.append(default if isinstance(given, tuple) else given)
            values += [node.control] if item.has_control else []
        described: dict[str, Any] = {
            "id": node.number,
            "type": node.kind,
            "pos": list(node.pos),
            "size": [node.width, node.height],
            "flags": {},
            "order": 0,
            "mode": 0,
        }
        if node.kind == NOTE:
            return described | {
                "inputs": [],
                "outputs": [],
                "title": node.title,
                "properties": {},
                "widgets_values": [node.inputs["text"]],
                "color": "#432",
                "bgcolor": "#653",
            }
        sockets = [item for item in declared if not item.is_widget]
        widgets = [item for item in declared if item.is_widget]
        described["inputs"] = [
            {"name": item.name, "type": item.kind, "link": None} | ({} if item.required else {"shape": 7})
            for item in sockets
        ] + [
            {"name": item.name, "type": item.kind, "widget": {"name": item.name}, "link": None}
            for item in widgets
        ]
        definition = self._info[node.kind]
        described["outputs"] = [
            {"name": name, "type": kind, "links": None}
            for name, kind in zip(definition["output_name"], definition["output"], strict=True)
        ]
        if node.title:
            described["title"] = node.title
        return described | {"properties": {"Node name for S&R": node.kind}, "widgets_values": values}

    def _order(self) -> list[Node]:
        """Nodes so that each comes after those it is linked from."""
        done: list[Node] = []
        left = list(self.nodes)
        while left:
            for node in left:
                if all(source[0] in done for source in node.inputs.values() if isinstance(source, tuple)):
                    done.append(node)
                    left.remove(node)
                    break
            else:
                raise ValueError(f"{self.name}: the links run in a circle")
        return done
