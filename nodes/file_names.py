"""Names of files in ComfyUI's input, output and temp folders, kept from leading out of them.

`LoadImage` and its kin take a name, `[output]` or `[temp]` behind it. Before its fix ComfyUI followed `..`
and absolute names to any picture on the machine, and showed it to whoever queued the graph.
"""

import functools
import logging
import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import folder_paths

from .queued import QueuedNode, is_link

_DRIVE = re.compile(r"[A-Za-z]:")
_COMFYUI_OWN = ("nodes", "comfy_extras", "comfy_api_nodes")
_FOLDER_NODES = ("comfy_extras.nodes_train", "comfy_extras.nodes_dataset")
_FOLDER_INPUTS = ("folder", "folder_name")
"""Text that those nodes join to ComfyUI's folders as it is."""


def contain() -> None:
    """Do what ComfyUI's fix does, on a release that is older: a name stays in its folder, or is refused.

    This reaches names that only the run brings, through a link. Such a node fails with the message.
    """
    if is_contained():
        return
    logging.info("DiffusionCleft: this ComfyUI opens files outside its folders by name; that is refused now")
    path_of, exists = folder_paths.get_annotated_filepath, folder_paths.exists_annotated_filepath

    @functools.wraps(path_of)
    def get_annotated_filepath(name: str, default_dir: str | None = None) -> str:
        if not _stays(name, default_dir):
            raise ValueError(_sentence(name))
        return str(path_of(name, default_dir))

    @functools.wraps(exists)
    def exists_annotated_filepath(name: str) -> bool:
        return _stays(name) and bool(exists(name))

    folder_paths.get_annotated_filepath = get_annotated_filepath
    folder_paths.exists_annotated_filepath = exists_annotated_filepath


@functools.cache
def is_contained() -> bool:
    """Whether this ComfyUI has the fix, as it was before `contain`."""
    try:
        folder_paths.get_annotated_filepath("../outside")
    except ValueError:
        return True
    return False


def problems(nodes: list[QueuedNode]) -> list[tuple[str, str]]:
    """Node and sentence for every name of ComfyUI's own nodes that leads out of its folders."""
    return [
        (node.unique_id, sentence)
        for node in nodes
        if (own := _own(node))
        for sentence in _of_node(node, *own)
    ]


def _own(node: QueuedNode) -> tuple[str, dict[str, Any]] | None:
    """Module and declared inputs of a node of ComfyUI's own; other packs' nodes are met by `contain`."""
    import nodes

    found = nodes.NODE_CLASS_MAPPINGS.get(node.kind)
    module = str(getattr(found, "RELATIVE_PYTHON_MODULE", "nodes"))
    if found is None or module.partition(".")[0] not in _COMFYUI_OWN:
        return None
    declared = found.INPUT_TYPES()
    return module, {**declared.get("required", {}), **declared.get("optional", {})}


def _of_node(node: QueuedNode, module: str, declared: dict[str, Any]) -> Iterator[str]:
    for name, value in node.inputs.items():
        kind = declared[name][0] if declared.get(name) else "STRING"
        if module in _FOLDER_NODES and name in _FOLDER_INPUTS and not is_contained():
            if is_link(value):
                yield f"{name} can't be linked on this release of ComfyUI; choose the folder on the node"
                continue
        elif kind == "STRING" or is_link(value):
            continue
        yield from (_sentence(text) for text in texts_in(value) if leads_out(text))


def leads_out(name: str) -> bool:
    """Whether a name, read as on any system, leaves the folder it is looked for in."""
    plain, _ = folder_paths.annotated_filepath(name)
    path = plain.strip().replace("\\", "/")
    if path.startswith("/") or _DRIVE.match(path) or "\0" in path:
        return True
    return bool(posixpath.normpath(path).split("/")[0] == "..")


def _stays(name: str, default_dir: str | None = None) -> bool:
    """Whether the file that a name leads to, links followed, lies in its folder."""
    plain, base = folder_paths.annotated_filepath(name)
    root = base or default_dir or folder_paths.get_input_directory()
    try:
        # An absolute name replaces the folder here, as it does where ComfyUI joins them.
        return Path(os.path.realpath(os.path.join(root, plain))).is_relative_to(os.path.realpath(root))  # noqa: PTH118
    except ValueError:  # a null byte
        return False


def texts_in(value: Any) -> Iterator[str]:
    """The strings of a widget's value, at any depth of lists and dicts."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from texts_in(part)


def _sentence(name: str) -> str:
    return f"{name!r} leads out of ComfyUI's input, output and temp folders; choose a file that lies in them"
