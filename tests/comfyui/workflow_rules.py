"""What a workflow file in UI format 0.4 must be, as rules: its schema's, and those of a clean canvas.

The published schema (docs.comfy.org/specs/workflow_json_0.4) is under a licence that this repository can't
take text from, so its demands are written out here.
"""

import math
from itertools import combinations, pairwise
from typing import Any

TITLE = 30


def broken_rules(workflow: dict[str, Any]) -> list[str]:
    """Every rule that the workflow breaks, in words."""
    found = [
        f"{name} is missing"
        for name in ("last_node_id", "last_link_id", "nodes", "links", "version")
        if name not in workflow
    ]
    if found:
        return found
    return _shape(workflow) or [*_links(workflow), *_canvas(workflow)]


def _shape(workflow: dict[str, Any]) -> list[str]:
    found = []
    if workflow["version"] != 0.4:
        found.append("version is not 0.4")
    for node in workflow["nodes"]:
        name = f"node {node.get('id')}"
        missing = {"id", "type", "pos", "size", "flags", "order", "mode", "properties"} - set(node)
        found += [f"{name}: {key} is missing" for key in sorted(missing)]
        if missing:
            continue
        for key in ("pos", "size"):
            if not (len(node[key]) == 2 and all(_number(value) for value in node[key])):
                found.append(f"{name}: {key} is no pair of numbers")
        if not isinstance(node["id"], int) or not isinstance(node["type"], str):
            found.append(f"{name}: id or type has the wrong kind")
        if not isinstance(node["flags"], dict) or not isinstance(node["properties"], dict):
            found.append(f"{name}: flags and properties are objects")
        if not _number(node["order"]) or not _number(node["mode"]):
            found.append(f"{name}: order and mode are numbers")
        if not isinstance(node.get("widgets_values", []), (list, dict)):
            found.append(f"{name}: widgets_values is a list or an object")
        for slot in [*node.get("inputs", []), *node.get("outputs", [])]:
            if not isinstance(slot.get("name"), str) or not isinstance(slot.get("type"), str):
                found.append(f"{name}: a slot needs a name and a type")
    for group in workflow.get("groups", []):
        box = group.get("bounding", [])
        if not isinstance(group.get("title"), str) or len(box) != 4 or not all(map(_number, box)):
            found.append("a group needs a title and four numbers")
    return found


def _links(workflow: dict[str, Any]) -> list[str]:
    found = []
    nodes = {node["id"]: node for node in workflow["nodes"]}
    links = {link[0]: link for link in workflow["links"]}
    if len(nodes) != len(workflow["nodes"]) or max(nodes) > workflow["last_node_id"]:
        found.append("node ids are not unique, or last_node_id is too small")
    if len(links) != len(workflow["links"]) or (links and max(links) > workflow["last_link_id"]):
        found.append("link ids are not unique, or last_link_id is too small")
    for number, link in links.items():
        if len(link) != 6:
            found.append(f"link {number} has {len(link)} fields")
            continue
        _, origin, output, target, place, kind = link
        given, taken = nodes[origin]["outputs"][output], nodes[target]["inputs"][place]
        if number not in (given["links"] or []) or taken["link"] != number or given["type"] != kind:
            found.append(f"link {number} and its two ends disagree")
        if nodes[origin]["order"] >= nodes[target]["order"]:
            found.append(f"link {number} runs against the order")
    for node in workflow["nodes"]:
        ends = [slot["link"] for slot in node["inputs"] if slot["link"] is not None]
        ends += [number for slot in node["outputs"] for number in slot["links"] or []]
        found += [f"node {node['id']} names link {number}" for number in ends if number not in links]
    return found


def _canvas(workflow: dict[str, Any]) -> list[str]:
    """No two nodes overlap, every node lies in one group, no two groups overlap, and there is a note."""
    boxes = {
        f"{node['id']} {node['type']}": (
            node["pos"][0],
            node["pos"][1] - TITLE,
            node["size"][0],
            node["size"][1] + TITLE,
        )
        for node in workflow["nodes"]
    }
    groups = {group["title"]: tuple(group["bounding"]) for group in workflow["groups"]}
    found = [f"{a} overlaps {b}" for a, b in combinations(boxes, 2) if _overlap(boxes[a], boxes[b])]
    found += [f"group {a} overlaps {b}" for a, b in combinations(groups, 2) if _overlap(groups[a], groups[b])]
    found += [
        f"{name} lies in no group"
        for name, box in boxes.items()
        if not any(_holds(group, box) for group in groups.values())
    ]
    if not any(node["type"] == "MarkdownNote" for node in workflow["nodes"]):
        found.append("no note explains it")
    return found


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]


def _holds(outer: tuple[float, ...], inner: tuple[float, ...]) -> bool:
    return (
        outer[0] <= inner[0]
        and outer[1] <= inner[1]
        and outer[0] + outer[2] >= inner[0] + inner[2]
        and outer[1] + outer[3] >= inner[1] + inner[3]
    )


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


LETTER = 11
"""At least so wide is a letter of a group's title."""


def covered_links(workflow: dict[str, Any]) -> list[str]:
    """Links of which a part lies behind a node or across a group's title, as drawn from output to input."""
    boxes = {
        node["id"]: (
            node["pos"][0],
            node["pos"][1] - TITLE,
            node["pos"][0] + node["size"][0],
            node["pos"][1] + node["size"][1],
        )
        for node in workflow["nodes"]
    }
    titles = [
        (left, top, left + LETTER * len(group["title"]), top + 36)
        for group in workflow["groups"]
        for left, top, _, _ in [group["bounding"]]
    ]
    points = {item["id"]: item for item in workflow["extra"]["reroutes"]}
    last = {item["id"]: item["parentId"] for item in workflow["extra"]["linkExtensions"]}
    nodes = {node["id"]: node for node in workflow["nodes"]}
    found = []
    for number, origin, output, target, slot, _ in workflow["links"]:
        way, place = [], last.get(number)
        while place is not None:
            way.append(tuple(points[place]["pos"]))
            place = points[place].get("parentId")
        start = (boxes[origin][2], nodes[origin]["pos"][1] + 20 * (output + 0.7))
        end = (boxes[target][0], nodes[target]["pos"][1] + _slot_height(nodes[target], slot))
        line = [start, *reversed(way), end] if way else _curve(start, end)
        if any(_behind(a, b, box) for a, b in pairwise(line) for box in [*boxes.values(), *titles]):
            found.append(f"{nodes[origin]['type']} to {nodes[target]['type']}")
    return found


def _slot_height(node: dict[str, Any], slot: int) -> float:
    sockets = [item for item in node["inputs"] if "widget" not in item]
    if slot < len(sockets):
        return 20 * (slot + 0.7)
    return 20 * max(len(sockets), len(node["outputs"])) + 24 + 24 * (slot - len(sockets))


def _curve(start: tuple[float, float], end: tuple[float, float]) -> list[tuple[float, float]]:
    """The cubic that ComfyUI draws where no point leads a link."""
    handle = math.dist(start, end) / 4
    line = []
    for t in (step / 40 for step in range(41)):
        a, b, c, d = (1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t * t, t**3
        x = a * start[0] + b * (start[0] + handle) + c * (end[0] - handle) + d * end[0]
        line.append((x, (a + b) * start[1] + (c + d) * end[1]))
    return line


def _behind(a: tuple[float, ...], b: tuple[float, ...], box: tuple[float, ...]) -> bool:
    """Whether the line from a to b is inside the box, but for its rim."""
    count = max(2, int(math.dist(a, b) // 10))
    for step in range(count + 1):
        x, y = (a[axis] + (b[axis] - a[axis]) * step / count for axis in (0, 1))
        if box[0] + 3 < x < box[2] - 3 and box[1] + 3 < y < box[3] - 3:
            return True
    return False
