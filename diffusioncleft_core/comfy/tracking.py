"""The progress bar of one prompt: nodes done, the running node's title, its own steps and their time left."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ..progress import progress
from .convert import Graph


class ProgressBar:
    """Counts the nodes of a graph as the server reports them."""

    def __init__(self, graph: Graph) -> None:
        self._titles = {
            node_id: str((node.get("_meta") or {}).get("title") or node["class_type"])
            for node_id, node in graph.items()
        }
        self._done: set[str] = set()
        self._running: str | None = None
        self._since = 0.0
        self._shown = 0.0

    def __enter__(self) -> ProgressBar:
        self._bar = progress(len(self._titles), "nodes", unit="node")
        # Nodes take from milliseconds to hours: a rate, and a time left by it, would mislead.
        self._bar.bar_format = "{desc}: {n_fmt}/{total_fmt} |{bar}| {elapsed}{postfix}"
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def heed(self, kind: str, data: Mapping[str, Any]) -> None:
        """Take one message of the server about the prompt."""
        if kind == "execution_start":
            self._done.clear()
            self._bar.reset()
        elif kind == "execution_cached":
            self._finish(*map(str, data.get("nodes") or []))
        elif kind == "executing":
            if self._running is not None:
                self._finish(self._running)
            self._running = None if data.get("node") is None else str(data["node"])
            self._since = time.monotonic()
            if self._running is not None:
                self._show(self._title(self._running))
        elif kind == "progress":
            self._steps(data)
        elif kind == "execution_success":
            self._finish(*self._titles)

    def _steps(self, data: Mapping[str, Any]) -> None:
        value, total = data.get("value"), data.get("max")
        if not isinstance(value, (int, float)) or not isinstance(total, (int, float)) or total <= 1:
            return
        node = str(data.get("node") or self._running)
        text = f"{self._title(node)} {value:g}/{total:g}"
        if 0 < value < total and self._since:
            left = (time.monotonic() - self._since) * (total - value) / value
            text += f", {int(left // 60)}:{int(left % 60):02d} left"
        self._show(text)

    def _show(self, text: str) -> None:
        """Show what runs, no more often than the bar's own interval: steps come many times a second."""
        now = time.monotonic()
        due = now - self._shown >= getattr(self._bar, "mininterval", 0.1)
        self._bar.set_postfix_str(text, refresh=due)
        if due:
            self._shown = now

    def _title(self, node: str) -> str:
        # a node that expands into a subgraph runs as `id.0.0.1`
        return self._titles.get(node) or self._titles.get(node.split(".", maxsplit=1)[0]) or node

    def _finish(self, *nodes: str) -> None:
        new = {node for node in nodes if node in self._titles} - self._done
        self._done |= new
        self._bar.update(len(new))
