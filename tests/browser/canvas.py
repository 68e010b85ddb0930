"""What a test asks of ComfyUI's page, and the small pieces of script that answer it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SLOW = 300_000
"""Milliseconds that a page may take on a machine that does other work."""
READY = """() => window.app?.graph && window.app.extensionManager
    && Object.keys(window.LiteGraph?.registered_node_types ?? {}).includes('DiffusionCleft_PromptBuilder')"""
NODES = """() => app.graph.nodes.map(node => ({
    id: node.id, type: node.type, title: node.title,
    known: node.type in LiteGraph.registered_node_types,
    box: [node.pos[0], node.pos[1] - LiteGraph.NODE_TITLE_HEIGHT,
          node.size[0], node.size[1] + LiteGraph.NODE_TITLE_HEIGHT],
    least: [...node.computeSize()],
    size: [...node.size],
    images: (node.imgs ?? []).length,
    values: Object.fromEntries((node.widgets ?? []).map(widget => [widget.name, widget.value])),
}))"""
GROUPS = """() => app.graph.groups.map(group => ({
    title: group.title, box: [...group.boundingRect ?? group._bounding],
}))"""
FIT = """(titles) => {
    const inside = (node, box) => node.pos[0] >= box[0] && node.pos[1] >= box[1]
        && node.pos[0] < box[0] + box[2] && node.pos[1] < box[1] + box[3];
    const wanted = app.graph.groups.filter(group => !titles.length || titles.includes(group.title));
    const groups = wanted.map(group => [...group.boundingRect ?? group._bounding]);
    const boxes = !titles.length ? groups
        : app.graph.nodes.filter(node => groups.some(box => inside(node, box)))
            .map(node => [node.pos[0] - 30, node.pos[1] - 90, node.size[0] + 60, node.size[1] + 110]);
    const left = Math.min(...boxes.map(box => box[0])), top = Math.min(...boxes.map(box => box[1]));
    const right = Math.max(...boxes.map(box => box[0] + box[2]));
    const bottom = Math.max(...boxes.map(box => box[1] + box[3]));
    const view = app.canvas.canvas.getBoundingClientRect();
    const scale = Math.min((view.width - 90) / (right - left), (view.height - 130) / (bottom - top));
    app.canvas.low_quality_zoom_threshold = 0.1;  // text at every zoom
    app.canvas.ds.scale = scale;
    app.canvas.ds.offset = [75 / scale - left, 95 / scale - top];
    app.canvas.setDirty(true, true);
}"""
OPEN_TEMPLATE = (
    """([workflow, name]) => app.loadGraphData(workflow, true, true, name, {openSource: 'template'})"""
)
DRAWS_TEXT = "() => !app.canvas.low_quality && app.canvas.ds.scale > 0.572"  # 8 of 14 px
ON_SCREEN = """() => {
    const view = app.canvas.canvas.getBoundingClientRect(), {scale, offset} = app.canvas.ds;
    const boxes = app.graph.nodes.map(node => [...(node.boundingRect ?? node.getBounding())]);
    const across = x => view.left + (x + offset[0]) * scale, down = y => view.top + (y + offset[1]) * scale;
    return [across(Math.min(...boxes.map(box => box[0]))), down(Math.min(...boxes.map(box => box[1]))),
            across(Math.max(...boxes.map(box => box[0] + box[2]))),
            down(Math.max(...boxes.map(box => box[1] + box[3])))];
}"""
SET = """([title, name, value]) => {
    const node = app.graph.nodes.find(node => node.title === title);
    node.widgets.find(widget => widget.name === name).value = value;
}"""


class Canvas:
    """One open page."""

    def __init__(self, page: Any, url: str) -> None:
        self.page, self.url = page, url

    @classmethod
    def open(cls, page: Any, url: str) -> Canvas:
        page.set_default_timeout(SLOW)
        page.goto(url, timeout=SLOW)
        page.wait_for_function(READY)
        page.wait_for_timeout(1000)
        return cls(page, url)

    def load(self, workflow: dict[str, Any]) -> None:
        """Open a workflow as dropping its file does."""
        self.page.evaluate("workflow => app.loadGraphData(workflow)", workflow)
        self.page.wait_for_timeout(400)

    def export(self) -> dict[str, Any]:
        """The frontend's own API export."""
        return dict(self.page.evaluate("async () => (await app.graphToPrompt()).output"))

    def saved(self) -> dict[str, Any]:
        """The workflow as the frontend would save it."""
        return dict(self.page.evaluate("() => app.graph.serialize()"))

    def nodes(self) -> list[dict[str, Any]]:
        return list(self.page.evaluate(NODES))

    def node(self, title: str) -> dict[str, Any]:
        return next(node for node in self.nodes() if node["title"] == title)

    def groups(self) -> list[dict[str, Any]]:
        return list(self.page.evaluate(GROUPS))

    def set(self, title: str, name: str, value: Any) -> None:
        self.page.evaluate(SET, [title, name, value])

    def dialogs(self) -> str:
        """The text of every open dialog: missing nodes, missing models, errors."""
        return " ".join(self.page.locator("[role=dialog]").all_inner_texts())

    def open_template(self, workflow: dict[str, Any], name: str) -> None:
        """Open a workflow as the template browser does: each release shows it in its own way."""
        self.page.evaluate(OPEN_TEMPLATE, [workflow, name])
        self.page.wait_for_timeout(1200)

    def picture(self, path: Path, *groups: str) -> None:
        """A screenshot of the whole graph, or of the nodes of the named groups."""
        self.page.evaluate(FIT, list(groups))
        self.page.wait_for_timeout(800)
        self.page.screenshot(path=str(path))
