"""Keeps what Save Synthetic Set wrote on the server an image set here: sidecars and a manifest."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..files import read_jsonl, sha256_bytes, write_json, write_jsonl
from ..generation.files import manifest_row, sidecar_of
from .server import ComfyServer, ConnectionLost

MANIFEST = "manifest.jsonl"
REJECTED = "rejected"
SAVER = "DiffusionCleft_SaveSyntheticSet"


def fetch_sidecar(server: ComfyServer, listed: Mapping[str, str], picture: bytes) -> dict[str, Any] | None:
    """The sidecar of a picture in the server's output folder; None when there is none that belongs to it."""
    name = Path(listed["filename"]).with_suffix(".json").name
    try:
        content = server.file(name, listed["subfolder"], listed["type"])
        sidecar = json.loads(content) if content is not None else None
    except (ConnectionLost, ValueError):
        return None
    if not isinstance(sidecar, dict) or sidecar.get("png_sha256") != sha256_bytes(picture):
        return None
    return sidecar


def keep_sidecar(picture: Path, sidecar: Mapping[str, Any]) -> dict[str, Any] | None:
    """Write a sidecar under its picture's name; its row of the manifest, None when it is damaged."""
    kept = {**sidecar, "file": picture.name}
    try:
        row = {**manifest_row(kept, "generated"), "verdicts": dict(kept.get("verdicts") or {})}
    except (KeyError, TypeError, ValueError):
        return None
    write_json(sidecar_of(picture), kept)
    return row


def is_rejected(listed: Mapping[str, str]) -> bool:
    """Whether the server's file lies in a set's folder for what the filters set aside."""
    return listed["subfolder"].replace("\\", "/").rstrip("/").rsplit("/", maxsplit=1)[-1] == REJECTED


def add_to_manifest(folder: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add rows to a set's manifest, or replace those of the same file."""
    known = read_jsonl(folder / MANIFEST) if (folder / MANIFEST).is_file() else []
    by_file = {row["file"]: row for row in [*known, *map(dict, rows)]}
    write_jsonl(folder / MANIFEST, by_file.values())
