"""A graph before it runs: what its nodes say of themselves, followed along its links."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class QueuedNode:
    """A node of a queued graph. It has what an executing node's `hidden` has, so it can stand in for that."""

    prompt: Mapping[str, Any]
    unique_id: str

    @property
    def kind(self) -> str:
        return str(self.prompt[self.unique_id]["class_type"])

    @property
    def inputs(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.prompt[self.unique_id].get("inputs", {})
        return found

    def value(self, name: str) -> Any:
        """The widget's value; None where a link brings it, and where there is none."""
        found = self.inputs.get(name)
        return None if is_link(found) else found

    def values(self) -> dict[str, Any]:
        """All widgets' values, without the links."""
        return {name: value for name, value in self.inputs.items() if not is_link(value)}

    def source(self, name: str) -> "QueuedNode | None":
        """The node that is linked to an input."""
        found = self.inputs.get(name)
        if found is None or not is_link(found) or str(found[0]) not in self.prompt:
            return None
        return QueuedNode(self.prompt, str(found[0]))

    def with_sources(
        self, follow: Callable[["QueuedNode", str], bool] = lambda node, name: True
    ) -> Iterator["QueuedNode"]:
        """This node and all that lead to it, each once; `follow` says of a node's input whether it counts."""
        seen: set[str] = set()
        waiting = [self.unique_id]
        while waiting:
            number = waiting.pop()
            if number in seen or number not in self.prompt:
                continue
            seen.add(number)
            node = QueuedNode(self.prompt, number)
            yield node
            links = [(name, value) for name, value in node.inputs.items() if is_link(value)]
            waiting += [str(value[0]) for name, value in links if follow(node, name)]


def is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[1], int)
