"""A plan of prompts driven through one graph, row by row, resumable: what is done and unchanged is skipped.

The folder holds the images, named by the row (`000123_4711.png`), a `manifest.jsonl` as every image set has
it, and `batch.jsonl`, the journal: one line a finished row, with the hash of the graph that ran. A row is
done when its last line says so, its graph is the same, and its files are there, be it in `rejected/`. The
manifest is written from the journal, which first takes over the verdicts that the manifest says.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...diffusioncleft_core.errors import UserError
from ...diffusioncleft_core.files import (
    append_jsonl,
    folder_lock,
    read_jsonl,
    remove_leftovers,
    sha256_bytes,
    write_bytes,
    write_jsonl,
)
from ...diffusioncleft_core.filters.verdicts import known_verdicts
from ...diffusioncleft_core.imageset.manifest import ImageRow, add_row, listed_rows, write_image_set
from ...diffusioncleft_core.imageset.places import (
    MANIFEST,
    REJECTED,
    current_place,
    image_name,
    name_of,
    place_for,
    sidecar_of,
)
from ...diffusioncleft_core.progress import progress
from .inputs import PREFIX, Graph
from .outputs import fetch, fetch_sidecar, files_in, is_rejected, keep_sidecar, safe_name
from .server import ComfyServer
from .watch import failure
from .window import finished_rows

if TYPE_CHECKING:
    from ...diffusioncleft_core.conditions.plan_rows import PlanRow
    from .inputs import Input

JOURNAL_NAME = "batch.jsonl"
_ROW_MAKERS = ("DiffusionCleft_PromptBuilder", "DiffusionCleft_PromptPlan")
_PICTURES = (".png", ".webp", ".jpg", ".jpeg")

Target = tuple[str, "Input"]


@dataclass(frozen=True)
class RowGraph:
    """The graph that every row of a plan runs, and the inputs that its prompt and its seed go to."""

    graph: Graph
    prompt_input: Target
    seed_input: Target | None = None

    def filled(self, row: PlanRow) -> Graph:
        """The graph of one row. Raises UserError when the row's seed is more than the seed input takes."""
        changed = {name: {**node, "inputs": dict(node["inputs"])} for name, node in self.graph.items()}
        node_id, declared = self.prompt_input
        changed[node_id]["inputs"][declared.name] = row.prompt
        if self.seed_input is not None:
            node_id, declared = self.seed_input
            highest = declared.settings.get("max")
            if highest is not None and row.seed > highest:
                raise UserError(
                    f"row {row.index} has seed {row.seed}; {declared.name} takes at most {highest}"
                )
            changed[node_id]["inputs"][declared.name] = row.seed
        return changed

    def detached(self) -> RowGraph:
        """Without the links that carry its own prompt node's rows, where a plan gives the prompt.

        Otherwise the saved pictures would be described by a prompt that they were not drawn from.
        """
        if self.graph[self.prompt_input[0]]["class_type"] in _ROW_MAKERS:
            return self
        graph = {
            name: {
                **node,
                "inputs": {
                    key: value
                    for key, value in node["inputs"].items()
                    if not (key == "rows" and node["class_type"].startswith(PREFIX))
                },
            }
            for name, node in self.graph.items()
        }
        return replace(self, graph=graph)


@dataclass(frozen=True)
class BatchLimits:
    """How far a batch goes.

    Attributes:
        ahead: prompts in each server's queue at once, so that it need not wait for the download of the last
            one.
        most_failures: after so many failed rows in a row the batch ends: then it is not the rows.
    """

    ahead: int = 2
    most_failures: int = 10


@dataclass(frozen=True)
class BatchResult:
    """total rows; made: in this run; skipped: were done before; failed: indices of the rows that failed."""

    folder: Path
    total: int
    made: int
    skipped: int
    failed: tuple[int, ...]


def graph_key(graph: Graph) -> str:
    """SHA-256 of what a graph computes: classes and inputs, without titles."""
    bare = {name: [node["class_type"], node["inputs"]] for name, node in graph.items()}
    return sha256_bytes(json.dumps(bare, sort_keys=True).encode())


def run_batch(
    servers: Sequence[ComfyServer],
    row_graph: RowGraph,
    rows: Sequence[PlanRow],
    folder: Path,
    *,
    limits: BatchLimits,
    say: Callable[[str], None] = print,
) -> BatchResult:
    """Run every row that is not done. A row that fails is recorded with its message, and the next follows.

    KeyboardInterrupt takes this batch's prompts off the server and is raised again; finished rows stay done.

    Args:
        servers: run the graphs; a row goes to whichever is free, and those of one that is gone to others.
        row_graph: what runs for each row.
        rows: of a plan.
        folder: for the images; locked meanwhile.
        limits: how far the batch goes.
        say: prints one line.

    Raises:
        UserError: another process fills the folder, a seed is too large for its input, every server stays
            away longer than its patience, or too many rows in a row failed.
    """
    with _filling(folder):
        take_verdicts(folder)
        journal = read_journal(folder)
        described = row_graph.detached()
        graphs = [described.filled(row) for row in rows]
        open_rows = [
            place
            for place, row in enumerate(rows)
            if not is_done(folder, journal.get(row.index), graphs[place])
        ]
        # Whoever reads the folder meanwhile, or after a crash, finds every finished row in the manifest.
        waiting = {rows[place].index for place in open_rows}
        write_manifest(folder, [row for row in rows if row.index not in waiting], journal)
        skipped, made, failed = len(rows) - len(open_rows), 0, []
        in_a_row = 0
        try:
            with progress(len(rows), "rows", unit="row") as bar:
                bar.initial = skipped
                bar.update(skipped)

                def finish(server: ComfyServer, place: int, entry: Mapping[str, Any] | str) -> dict[str, Any]:
                    return _record(server, entry, graphs[place], rows[place], folder)

                ahead = max(1, limits.ahead)
                for place, record in finished_rows(servers, open_rows, graphs, ahead, finish, say):
                    append_jsonl(folder / JOURNAL_NAME, record)
                    journal[rows[place].index] = record
                    if record["status"] == "done":
                        for image in _image_rows(folder, rows[place], record):
                            add_row(folder, image)
                        made, in_a_row = made + 1, 0
                    else:
                        failed.append(rows[place].index)
                        in_a_row += 1
                        bar.set_postfix_str(f"{len(failed)} failed")
                    bar.update(1)
                    if in_a_row >= limits.most_failures:
                        raise UserError(f"{in_a_row} rows in a row failed; the last: {record['message']}")
        finally:
            write_manifest(folder, rows, journal)
        return BatchResult(folder, len(rows), made, skipped, tuple(failed))


@contextlib.contextmanager
def _filling(folder: Path) -> Iterator[None]:
    """Lock the folder of a batch, and clear what a crash left there half-written."""
    with folder_lock(folder, lambda process: f"process {process} works in {folder}; wait until it is done"):
        for place in (folder, folder / REJECTED):
            remove_leftovers(place)
        yield


def read_journal(folder: Path) -> dict[int, dict[str, Any]]:
    """The last record of each row, by the row's index."""
    path = folder / JOURNAL_NAME
    return {int(record["index"]): record for record in read_jsonl(path)} if path.exists() else {}


def take_verdicts(folder: Path) -> None:
    """Write into the journal the verdicts that the set's pictures got since, from filters or a person."""
    found = {row.name: known_verdicts(folder, row) or row.verdicts for row in listed_rows(folder)}

    def judged(picture: dict[str, Any]) -> dict[str, Any]:
        before = picture.get("verdicts") or {}
        verdicts = found.get(name_of(picture["file"]), before)
        return picture if verdicts == before else {**picture, "verdicts": verdicts}

    changed = []
    for record in read_journal(folder).values():
        pictures = [judged(picture) for picture in record.get("pictures", [])]
        if pictures != record.get("pictures", []):
            changed.append({**record, "pictures": pictures})
    if changed:
        write_jsonl(folder / JOURNAL_NAME, [*read_jsonl(folder / JOURNAL_NAME), *changed])


def is_done(folder: Path, record: Mapping[str, Any] | None, graph: Graph) -> bool:
    """True when the row ran with this graph and its files are still there, accepted or set aside."""
    return (
        record is not None
        and record.get("status") == "done"
        and record.get("graph_sha256") == graph_key(graph)
        and all(
            (folder / current_place(folder, picture["file"])).is_file()
            for picture in record.get("pictures", [])
        )
    )


def write_manifest(folder: Path, rows: Sequence[PlanRow], journal: Mapping[int, Mapping[str, Any]]) -> None:
    """Write the image set's manifest: one row an image of the finished rows of the plan."""
    listed = [image for row in rows for image in _image_rows(folder, row, journal.get(row.index, {}))]
    if listed or (folder / MANIFEST).is_file():
        write_image_set(folder, listed)


def _image_rows(folder: Path, row: PlanRow, record: Mapping[str, Any]) -> list[ImageRow]:
    """The manifest's rows of a finished row of the plan."""
    if record.get("status") != "done":
        return []
    return [
        ImageRow.from_json(
            {**picture, **_described(row), "file": current_place(folder, picture["file"])}, JOURNAL_NAME
        )
        for picture in record.get("pictures", [])
    ]


def _record(
    server: ComfyServer, entry: Mapping[str, Any] | str, graph: Graph, row: PlanRow, folder: Path
) -> dict[str, Any]:
    """The journal's line for one row; its files are written before."""
    record: dict[str, Any] = {"index": row.index, "seed": row.seed, "graph_sha256": graph_key(graph)}
    message = entry if isinstance(entry, str) else failure(entry, graph)
    if message is None and not isinstance(entry, str):
        try:
            pictures = _download(server, entry, row, folder)
        except UserError as error:
            message = str(error)
        else:
            if pictures:
                return record | {"status": "done", "pictures": pictures}
            message = "the workflow made no picture for this row; add a node that saves or previews images"
    return record | {"status": "failed", "pictures": [], "message": message}


def _download(
    server: ComfyServer, entry: Mapping[str, Any], row: PlanRow, folder: Path
) -> list[dict[str, Any]]:
    """Write the row's pictures, saved ones if there are any, else previews; their rows of the manifest."""
    listed: dict[tuple[str, ...], dict[str, str]] = {}
    for shown in (entry.get("outputs") or {}).values():
        for values in shown.values():
            for found in files_in(values):
                if safe_name(found["filename"]).lower().endswith(_PICTURES):
                    listed[tuple(found.values())] = found
    saved = [found for found in listed.values() if found["type"] == "output"] or list(listed.values())
    stem = Path(image_name(row.index, row.seed)).stem
    pictures: list[dict[str, Any]] = []
    for number, found in enumerate(saved):
        content = fetch(server, found)
        width, height = _size(content, found["filename"])
        suffix = Path(safe_name(found["filename"])).suffix.lower()
        name = f"{stem}{suffix}" if number == 0 else f"{stem}_{number}{suffix}"
        place = place_for(name, accepted=not is_rejected(found))
        write_bytes(folder / place, content)
        sidecar_of(folder / place).unlink(missing_ok=True)
        sidecar = fetch_sidecar(server, found, content) if found["type"] == "output" else None
        kept = (
            keep_sidecar(folder / place, {**sidecar, **_described(row), "index": row.index})
            if sidecar
            else None
        )
        plain = ImageRow(place, width=width, height=height, role="generated")
        pictures.append(replace(kept or plain, file=place).to_json())
    _drop_earlier(folder, stem, [Path(picture["file"]) for picture in pictures])
    return pictures


def _drop_earlier(folder: Path, stem: str, files: Sequence[Path]) -> None:
    """Remove files that an earlier try of a row left and this one did not make."""
    kept = {str(name) for file in files for name in (file, file.with_suffix(".json"))}
    for prefix in ("", f"{REJECTED}/"):
        for path in (folder / prefix).glob(f"{stem}*"):
            own = re.fullmatch(rf"{stem}(_\d+)?\.(png|webp|jpe?g|json)", path.name)
            if own and str(Path(prefix) / path.name) not in kept:
                path.unlink()


def _described(row: PlanRow) -> dict[str, Any]:
    """What a manifest says of a row of the plan."""
    return {
        "condition": row.condition,
        "attributes": dict(row.attributes),
        "prompt": row.prompt,
        "seed": row.seed,
    }


def _size(content: bytes, name: str) -> tuple[int, int]:
    from ...diffusioncleft_core.imageset.decode import header_size

    size = header_size(content)
    if size is None:
        raise UserError(f"the server's {name!r} is no picture that can be read")
    return size
