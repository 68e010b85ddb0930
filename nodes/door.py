"""What is asked of a graph before it is queued: one thing that would fail at its end refuses it whole.

ComfyUI itself checks widget by widget, and runs the rest of a graph of which a part is wrong: a training for
hours before the node that was wrong from the start. So `/prompt` passes through here.
"""

import asyncio
import copy
import logging
from collections.abc import Mapping
from typing import Any

from ..diffusioncleft_core.errors import UserError
from . import file_names, places
from .common import check_texts
from .queued import QueuedNode
from .words import for_browser

_OURS = "DiffusionCleft_"
Graph = Mapping[str, Any]


async def refusal(body: Any) -> dict[str, Any] | None:
    """The answer to a graph that must not be queued, in ComfyUI's own form; None lets it pass."""
    graph = body.get("prompt") if isinstance(body, dict) else None
    if graph is None or not _is_graph(graph):
        return None  # ComfyUI says what is wrong with it
    may_run, will_run = _reached(graph, body.get("partial_execution_targets"))
    problems = file_names.problems(may_run) or await asyncio.to_thread(_withdrawn, may_run)
    if not problems and any(node.kind.startswith(_OURS) for node in may_run):
        # Reads files and builds models: the server goes on meanwhile.
        problems = await asyncio.to_thread(_needs, will_run)
        if not problems:
            return await _wrong_in_part(graph, body.get("partial_execution_targets"))
    return _answer(graph, problems) if problems else None


def _withdrawn(nodes: list[QueuedNode]) -> list[tuple[str, str]]:
    """LoRAs that nothing may be drawn with any more, in whichever loader, row or wrapped value they stand."""
    from ..diffusioncleft_core.dataset.withdrawn import refuse_withdrawn

    files = set(places.model_files("loras"))
    chosen = {(node.unique_id, text) for node in nodes for text in file_names.texts_in(node.values())}
    found, known = [], None
    for number, name in sorted(chosen):
        if name not in files:
            continue
        known = places.withdrawals() if known is None else known
        try:
            refuse_withdrawn(places.model_file("loras", name), known)
        except UserError as error:
            found.append((number, for_browser(str(error))))
    return found


def _needs(nodes: list[QueuedNode]) -> list[tuple[str, str]]:
    """What the pack's nodes miss, each in its own words."""
    found = []
    for node in nodes:
        kind = _class_of(node)
        check = getattr(kind, "check_before_queue", None)
        try:
            if node.kind.startswith(_OURS):
                check_texts(kind.define_schema(), node.values())
            if check is not None:
                check(node)
        except UserError as error:
            found.append((node.unique_id, for_browser(str(error))))
        except Exception as error:  # what a check can't tell, the run will
            logging.debug("DiffusionCleft: %s was not checked: %r", node.kind, error)
    return found


async def _wrong_in_part(graph: Graph, targets: Any) -> dict[str, Any] | None:
    """ComfyUI's own findings on a graph of which it would run the part that is right."""
    import execution

    accepted, _, _, node_errors = await execution.validate_prompt("check", copy.deepcopy(graph), targets)
    if not accepted or not node_errors:
        return None  # refused as a whole by ComfyUI, or right as a whole
    lines = [
        f"{errors['class_type']}: {error['message']}: {error['details']}"
        for errors in node_errors.values()
        for error in errors["errors"]
    ]
    return _refused("\n".join(lines), node_errors)


def _answer(graph: Graph, problems: list[tuple[str, str]]) -> dict[str, Any]:
    errors: dict[str, Any] = {}
    lines = []
    for name, sentence in problems:
        kind = graph[name]["class_type"]
        entry = errors.setdefault(name, {"errors": [], "dependent_outputs": [], "class_type": kind})
        entry["errors"].append(
            {
                "type": "exception_during_validation",  # one whose details today's frontend shows
                "message": "Can't run:",
                "details": sentence,
                "extra_info": {},
            }
        )
        lines.append(f"{kind}: {sentence}")
    return _refused("\n".join(lines), errors)


def _refused(details: str, node_errors: Mapping[str, Any]) -> dict[str, Any]:
    logging.warning("DiffusionCleft: a graph was not queued: %s", details)
    error = {
        "type": "prompt_outputs_failed_validation",
        "message": "Nothing was queued",
        "details": details,
        "extra_info": {},
    }
    return {"error": error, "node_errors": node_errors}


def _is_graph(graph: Any) -> bool:
    return isinstance(graph, dict) and all(
        isinstance(node, dict)
        and isinstance(node.get("class_type"), str)
        and isinstance(node.get("inputs"), dict)
        for node in graph.values()
    )


def _reached(graph: Graph, targets: Any) -> tuple[list[QueuedNode], list[QueuedNode]]:
    """The nodes that may run, and of them those that will: they lead to an output node by no lazy input."""
    outputs = [
        QueuedNode(graph, name)
        for name in graph
        if getattr(_class_of(QueuedNode(graph, name)), "OUTPUT_NODE", False)
        and (targets is None or name in targets)
    ]
    may = {node.unique_id: node for output in outputs for node in output.with_sources()}
    will = {node.unique_id: node for output in outputs for node in output.with_sources(_is_asked_for)}
    return list(may.values()), list(will.values())


def _is_asked_for(node: QueuedNode, name: str) -> bool:
    """Whether the node needs this input for sure; of a lazy one only our own nodes can say so beforehand."""
    found = _class_of(node)
    if found is None:
        return True
    declared = found.INPUT_TYPES()
    spec = {**declared.get("required", {}), **declared.get("optional", {})}.get(name, ())
    if len(spec) < 2 or not spec[1].get("lazy"):
        return True
    return node.kind.startswith(_OURS) and name in found.check_lazy_status(**node.values())


def _class_of(node: QueuedNode) -> Any:
    import nodes

    return nodes.NODE_CLASS_MAPPINGS.get(node.kind)
