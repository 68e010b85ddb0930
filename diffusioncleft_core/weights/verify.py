"""Whether the files of a model are the ones they should be."""

import re
from dataclasses import dataclass
from pathlib import Path

from ..files import sha256_file
from .find import Found

_BLOB = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Verdict:
    """`state`: `sound` (the pinned hash, or the hub's own name of the file), `wrong`, or `not pinned`."""

    name: str
    path: Path
    sha256: str
    state: str


def verify(found: Found) -> list[Verdict]:
    """Hash every file that was found. Reads all of them: 34 GB for FLUX.1 takes minutes."""
    pinned = {file.name: file for file in found.model.files}
    verdicts = []
    for name, path in found.files.items():
        sha256 = sha256_file(path)
        fits = pinned[name].fits(sha256) if name in pinned else None
        if fits is None:
            fits = _as_the_hub_names_it(path, sha256)
        state = "not pinned" if fits is None else "sound" if fits else "wrong"
        verdicts.append(Verdict(name, path, sha256, state))
    return verdicts


def _as_the_hub_names_it(path: Path, sha256: str) -> bool | None:
    """The Hugging Face cache names a large file by its sha256 and links to it; None for any other file."""
    name = path.resolve().name
    return name == sha256 if path.is_symlink() and _BLOB.fullmatch(name) else None
