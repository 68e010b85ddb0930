"""What a graph put out: files fetched into a folder, image sets with their sidecars."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from ...diffusioncleft_core.errors import UserError
from ...diffusioncleft_core.files import sha256_bytes, write_bytes, write_json
from ...diffusioncleft_core.filters.verdicts import DECISIONS, known_verdicts
from ...diffusioncleft_core.imageset.manifest import ImageRow, listed_rows, write_image_set
from ...diffusioncleft_core.imageset.places import REJECTED, current_place, place_for, sidecar_of
from ...diffusioncleft_core.imageset.synthetic import generated_row
from ...diffusioncleft_core.outputs import WINDOWS_DEVICE
from .inputs import Graph
from .server import ComfyServer, ConnectionLost

SAVER = "DiffusionCleft_SaveSyntheticSet"


def fetch_sidecar(server: ComfyServer, listed: Mapping[str, str], picture: bytes) -> dict[str, Any] | None:
    """The sidecar of a picture in the server's output folder; None when there is none that belongs to it."""
    name = Path(listed["filename"]).with_suffix(".json").name
    content = _download(server, {**listed, "filename": name})
    try:
        sidecar = json.loads(content) if content is not None else None
    except ValueError:
        return None
    if not isinstance(sidecar, dict) or sidecar.get("png_sha256") != sha256_bytes(picture):
        return None
    return sidecar


def keep_sidecar(picture: Path, sidecar: Mapping[str, Any]) -> ImageRow | None:
    """Write a sidecar under its picture's name; its row of the manifest, None when it is damaged."""
    kept = {**sidecar, "file": picture.name}
    try:
        row = generated_row(kept)
    except (KeyError, TypeError, ValueError):
        return None
    write_json(sidecar_of(picture), kept)
    return row


def is_rejected(listed: Mapping[str, str]) -> bool:
    """Whether the server's file lies in a set's folder for what the filters set aside."""
    return listed["subfolder"].replace("\\", "/").rstrip("/").rsplit("/", maxsplit=1)[-1] == REJECTED


def _verdicts_here(folder: Path, file: str, content: bytes, sent: Mapping[str, Any]) -> dict[str, Any]:
    """Verdicts that this picture has in the set `folder` and that count over those of the sidecar `sent`.

    Those are what a person decided, what set it aside, and any where the server has none; else empty.
    """
    held = current_place(folder, file)
    if not (folder / held).is_file() or (folder / held).read_bytes() != content:
        return {}
    known = known_verdicts(folder, ImageRow(held))
    counts = known.get("accepted") is False or known.keys() & {*DECISIONS} or not sent.get("verdicts")
    return known if counts else {}


def add_to_manifest(folder: Path, rows: Iterable[ImageRow]) -> None:
    """Add rows to a set's manifest, or replace those of the same file."""
    write_image_set(folder, {row.file: row for row in [*listed_rows(folder), *rows]}.values())


OUTPUTS_NAME = "outputs.json"
PREVIEWS = "previews"
_MOST_NAME = 150


@dataclass
class NodeOutput:
    """What one node showed. files: relative to the output folder; values: texts, numbers and tables."""

    title: str
    kind: str
    files: list[str] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)


def collect(
    server: ComfyServer, entry: Mapping[str, Any], graph: Graph, folder: Path
) -> dict[str, NodeOutput]:
    """Download every file that a prompt's nodes list, into `folder`, and gather the rest by node id.

    Outputs lie in the folders of the server's output folder, previews in `previews`. A server is not trusted
    with paths: each part of a name is made fit for every system, and none leads out of `folder`. What Save
    Synthetic Set wrote comes with its sidecars, and its folder is an image set here too: what was decided
    here on a picture outlasts another call.

    Raises:
        UserError: the server lists a file that it doesn't have.
    """
    found: dict[str, NodeOutput] = {}
    places: dict[tuple[str, str, str], str] = {}
    taken = {OUTPUTS_NAME}
    rows: dict[Path, list[ImageRow]] = {}
    for node_id, shown in (entry.get("outputs") or {}).items():
        node = graph.get(str(node_id), {})
        kind = str(node.get("class_type", "?"))
        output = NodeOutput(str((node.get("_meta") or {}).get("title") or kind), kind)
        for key, values in shown.items():
            if key == "animated":
                continue
            for listed in files_in(values):
                source = (listed["type"], listed["subfolder"], listed["filename"])
                if source not in places:
                    path = folder / _free_name(listed, str(node_id), taken)
                    content = fetch(server, listed)
                    sidecar = fetch_sidecar(server, listed, content) if kind == SAVER else None
                    aside = is_rejected(listed)
                    place = path.parent.parent if aside else path.parent
                    file = place_for(path.name, accepted=not aside)
                    if sidecar and (known := _verdicts_here(place, file, content, sidecar)):
                        file, sidecar = current_place(place, file), {**sidecar, "verdicts": known}
                        path = place / file
                    places[source] = path.relative_to(folder).as_posix()
                    write_bytes(path, content)
                    row = keep_sidecar(path, sidecar) if sidecar else None
                    if row:
                        rows.setdefault(place, []).append(replace(row, file=file))
                if places[source] not in output.files:
                    output.files.append(places[source])
            rest = [value for value in values if not _is_file(value)] if isinstance(values, list) else values
            if rest not in ([], None):
                output.values[key] = rest
        if output.files or output.values:
            found[str(node_id)] = output
    for place, added in rows.items():
        add_to_manifest(place, added)
    return found


def write_outputs(folder: Path, outputs: Mapping[str, NodeOutput]) -> None:
    """Write `outputs.json`: title, class, files and values of each node."""
    write_json(
        folder / OUTPUTS_NAME,
        {
            node_id: {"title": out.title, "class_type": out.kind, "files": out.files, "values": out.values}
            for node_id, out in outputs.items()
        },
    )


def files_in(values: Any) -> Iterator[dict[str, str]]:
    """The files in one value of a node's output, as filename, subfolder and type."""
    for value in values if isinstance(values, list) else []:
        if _is_file(value):
            yield {
                "filename": str(value["filename"]),
                "subfolder": str(value.get("subfolder") or ""),
                "type": str(value.get("type") or "output"),
            }


def safe_name(name: str) -> str:
    """The last part of a server's file name, with nothing in it that leads elsewhere on any system."""
    last = PurePosixPath(name.replace("\\", "/")).name
    cleaned = re.sub(r"[^\w.\- ()\[\]]", "_", last).strip(". ")[-_MOST_NAME:]
    if not cleaned or WINDOWS_DEVICE.match(cleaned):
        return f"file_{cleaned or 'unnamed'}"
    return cleaned


def _is_file(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("filename"), str)


def _free_name(listed: Mapping[str, str], node_id: str, taken: set[str]) -> str:
    """A path in the output folder, with forward slashes, that no other file has."""
    parts = PurePosixPath(listed["subfolder"].replace("\\", "/")).parts
    folders = [PREVIEWS] if listed["type"] == "temp" else [safe_name(part) for part in parts if part != "/"]
    wanted = safe_name(listed["filename"])
    name, number = wanted, 1
    while (path := "/".join([*folders, name])).lower() in taken:
        name = f"{safe_name(node_id)}_{wanted}" if number == 1 else f"{safe_name(node_id)}_{number}_{wanted}"
        number += 1
    taken.add(path.lower())
    return path


def fetch(server: ComfyServer, listed: Mapping[str, str]) -> bytes:
    """Content of a file that `files_in` gave. Raises UserError when the server does not have it."""
    content = _download(server, listed)
    if content is None:
        raise UserError(
            f"the server lists {listed['filename']!r} as an output and does not have it; run the "
            "command again"
        )
    return content


def _download(server: ComfyServer, listed: Mapping[str, str]) -> bytes | None:
    """Content of an output file, also from a server that was away; None when it does not have it.

    Raises:
        UserError: the server stays away.
    """
    for _ in range(2):
        try:
            return server.file(listed["filename"], listed["subfolder"], listed["type"])
        except ConnectionLost:
            if not server.wait_until_up(min(60, server.patience)):
                break
    raise UserError(f"the server went away before {listed['filename']!r} was fetched; run the command again")
