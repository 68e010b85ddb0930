"""Builds one workflow: nodes in columns, columns in groups, groups in rows; UI format, laid out by itself.

The whole graph fits ComfyUI's first view of a template at a zoom at which text is drawn (`MOST`).

Widget values are put in order by the server's own node definitions, by the code that the client reads
workflows with, so that a UI file and its API twin can't drift apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from workflow_routes import Router

from diffusioncleft.cli.comfyui.inputs import Input, inputs_of

# Canvas units of ComfyUI's frontend: title bar, one slot, one widget, a text box.
TITLE, SLOT, WIDGET, TEXT = 30, 20, 24, 110
GAP, PAD, GROUP_TITLE = 30, 20, 40
LANE = 6
LETTER = 12
"""Width of a letter of a group's title, on the average."""
MOST = (2120, 1350)
"""Width and height that a 1600 x 1000 window shows whole. ComfyUI opens a template at 3/4 of the window, and
draws no text below a zoom of 0.58.
"""
CORNER, FREE, LEAST = (72, 100), ((1180, 800), (1440, 557)), 0.6
"""Where the first group's corner is put on the screen, the pixels beyond it that are free in a window of
1600 x 1000, left of the small map or above it, and the zoom below which an older frontend draws no text.
"""
# Pale: a group's title is drawn in its colour on a dark shade of the same.
COLORS = {"data": "#c4e0ff", "model": "#efc8f5", "draw": "#c2f0cc", "check": "#f7e2a8", "measure": "#f6cfb4"}
NOTE = "MarkdownNote"
OURS = "DiffusionCleft_"


@dataclass(eq=False)
class Node:
    """One node. inputs: literal values, or (node, output) for a link. height: at least so much.

    grows: takes what its column has left, to show more of a text or a picture.
    """

    number: int
    kind: str
    title: str | None
    inputs: dict[str, Any]
    width: int
    height: int
    control: str = "fixed"
    grows: bool = False
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
        width: int = 300,
        height: int = 0,
        control: str = "fixed",
        grows: bool = False,
        **inputs: Any,
    ) -> Node:
        """Put a node under the last one. height: room for what it will show.

        An input whose name is taken here has an underscore behind it: `width_`.
        """
        inputs = {name.rstrip("_"): value for name, value in inputs.items()}
        node = self.graph.new_node(kind, title, inputs, width, height, control)
        node.grows = grows
        self.columns[-1].append(node)
        return node

    def note(self, text: str, *, width: int = 320, height: int = 160) -> Node:
        return self.add(NOTE, "Note", width=width, height=height, grows=True, text=text)


class Graph:
    """A workflow in the making. info: the server's /object_info."""

    def __init__(self, name: str, info: Mapping[str, Any]) -> None:
        self.name, self._info = name, info
        self.nodes: list[Node] = []
        self.groups: list[Group] = []
        self._rows: list[list[Group]] = [[]]
        self._laid_out = False

    def row(self) -> None:
        """Start the next row of groups."""
        self._rows.append([])

    def group(self, title: str, color: str) -> Group:
        """A group to the right of the last one."""
        group = Group(self, title, COLORS[color])
        self.groups.append(group)
        self._rows[-1].append(group)
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
        """Give every node its place and every group its box: rows equally wide, and each row one height."""
        widest = max(self._wide(row) for row in self._rows)
        down = 0
        for row in self._rows:
            columns = [column for group in row for column in group.columns]
            more = (widest - self._wide(row)) // len(columns)
            tallest = max(self._tall(column) for column in columns)
            left = 0
            for group in row:
                start, left = left, left + PAD
                for column in group.columns:
                    self._place(column, left, down + GROUP_TITLE, more, tallest)
                    left += max(node.width for node in column) + GAP
                left += PAD - GAP
                group.box = (start, down, left - start, GROUP_TITLE + tallest + PAD)
                left += GAP
            down += GROUP_TITLE + tallest + PAD + GAP
        if not (widest <= MOST[0] and down - GAP <= MOST[1]):
            raise ValueError(f"{self.name} is {widest} x {down - GAP}; a first view takes {MOST}")

    def _place(self, column: list[Node], left: int, top: int, more: int, tallest: int) -> None:
        growing = [node for node in column if node.grows]
        room = tallest - self._tall(column)
        for node in column:
            node.pos, node.width = (left, top + TITLE), node.width + more
            node.height += room // len(growing) if node.grows else 0
            top += TITLE + node.height + GAP

    @staticmethod
    def _wide(row: list[Group]) -> int:
        columns = [column for group in row for column in group.columns]
        inside = sum(max(node.width for node in column) + GAP for column in columns)
        return inside + (2 * PAD - GAP) * len(row) + GAP * (len(row) - 1)

    @staticmethod
    def _tall(column: list[Node]) -> int:
        return sum(TITLE + node.height for node in column) + GAP * (len(column) - 1)

    def ui(self) -> dict[str, Any]:
        """The workflow in UI format 0.4."""
        if not self._laid_out:
            self.lay_out()
            self._laid_out = True
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
        reroutes, extensions = self._routes(links, written)
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
            "extra": {
                "ds": self._first_view(),
                "linkExtensions": extensions,
                "reroutes": reroutes,
            },
            "version": 0.4,
        }

    def _first_view(self) -> dict[str, Any]:
        """Scale and offset that older frontends open the template with; today's fits it by itself."""
        right = max(group.box[0] + group.box[2] for group in self.groups)
        bottom = max(group.box[1] + group.box[3] for group in self.groups)
        scale = max(LEAST, *(min(wide / right, high / bottom, 1.0) for wide, high in FREE))
        return {"scale": round(scale, 3), "offset": [round(CORNER[0] / scale), round(CORNER[1] / scale)]}

    def _routes(
        self, links: list[list[Any]], written: Mapping[Node, dict[str, Any]]
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The points that lead links around nodes, and which of them each link ends with."""
        by_number = {node.number: node for node in self.nodes}
        boxes = [
            (node.pos[0], node.pos[1] - TITLE, node.pos[0] + node.width, node.pos[1] + node.height)
            for node in self.nodes
        ]
        below = {group.box[1] + group.box[3] - PAD + LANE for group in self.groups}
        words = [
            (left, top, left + LETTER * (len(group.title) + 1), top + GROUP_TITLE - 4)
            for group in self.groups
            for left, top, _, _ in [group.box]
        ]
        router = Router(boxes, sorted(below), words)
        reroutes: list[dict[str, Any]] = []
        extensions: list[dict[str, Any]] = []
        for number, origin, output, target, slot, _ in links:
            source, node = by_number[origin], by_number[target]
            start = (source.pos[0] + source.width, source.pos[1] + SLOT * (output + 0.7))
            end = (node.pos[0], node.pos[1] + self._input_height(written[node], slot))
            last = None
            for point in router.points(start, end):
                found = {"id": len(reroutes) + 1, "pos": list(point), "linkIds": [number]}
                reroutes.append(found | ({"parentId": last} if last else {}))
                last = len(reroutes)
            if last:
                extensions.append({"id": number, "parentId": last})
        return reroutes, extensions

    @staticmethod
    def _input_height(described: Mapping[str, Any], slot: int) -> float:
        """How far below a node's top an input is drawn: sockets first, then widgets."""
        sockets = [item for item in described["inputs"] if "widget" not in item]
        if slot < len(sockets):
            return SLOT * (slot + 0.7)
        top = SLOT * max(len(sockets), len(described["outputs"])) + 14
        return top + WIDGET * (slot - len(sockets)) + 10

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
