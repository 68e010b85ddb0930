"""Face models for the nodes: which packs a graph may name, which to take, opened once; the training faces."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..diffusioncleft_core.errors import UserError
from . import places
from .common import AUTO, PHANTOM, core_progress
from .counts import faces_told
from .opened import DatasetHandle
from .provenance import from_phantom

USUAL = "buffalo_l"
"""The face pack for people."""


def pack_names() -> list[str]:
    """Names of the packs on this machine; buffalo_l stands in the list even where it is absent."""
    found = {USUAL}
    for root in places.face_pack_roots():
        for place in (root / "models", root):
            if place.is_dir():
                found |= {path.name for path in place.iterdir() if path.is_dir() and any(path.glob("*.onnx"))}
    return [PHANTOM, *sorted(found - {PHANTOM})]


def known_pack(name: str | None) -> bool | str:
    """Whether the name is listed. The core opens packs by path as well; a graph's path is refused here."""
    if name is None or name == AUTO or name in pack_names():
        return True
    return f"there is no face pack {name!r} in ComfyUI's models/insightface/models; choose one that is listed"


@dataclass(frozen=True, repr=False)
class ReferenceHandle:
    """What the REFERENCE socket carries: embeddings without names, and what made them."""

    reference: Any
    analyzer: Any
    datasets: tuple[DatasetHandle, ...]


def pack_for(choice: str, hidden: Any) -> str:
    """The face pack for pictures of a graph.

    auto is the phantom's where the pictures come from it. The phantom's pack is refused where they come from
    a real base model: it would find no face, or a wrong one, and call that a verdict.
    """
    phantom = from_phantom(hidden)
    if choice == AUTO:
        return PHANTOM if phantom else USUAL
    if choice == PHANTOM and phantom is False:
        raise UserError("the phantom's face models know phantoms alone; choose a face pack such as buffalo_l")
    return choice


def pack_of_datasets(choice: str, datasets: Sequence[DatasetHandle]) -> str:
    """The face pack for photographs; auto is the phantom's where all of them are phantoms."""
    if choice == AUTO:
        return PHANTOM if all(item.phantom for item in datasets) else USUAL
    return choice


def analyzer_of(pack: str) -> Any:
    """The face pack, opened once: a batch of 2,000 graphs opens it once too. Opened again when its files are
    others.
    """
    from ..diffusioncleft_core.faces.analyzer import find_pack

    found = find_pack(pack, places.face_pack_roots())
    files = sorted(path for path in found.folder.iterdir() if path.suffix in (".onnx", ".json"))
    states = [(path.name, path.stat().st_size, path.stat().st_mtime_ns, path.stat().st_ino) for path in files]
    return _opened(pack, tuple(states))


@functools.lru_cache(maxsize=2)
def _opened(pack: str, states: tuple[Any, ...]) -> Any:
    import torch

    from ..diffusioncleft_core.faces.analyzer import load_face_analyzer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return load_face_analyzer(pack, roots=places.face_pack_roots(), device=device)


def reference_of(datasets: Sequence[DatasetHandle], choice: str) -> tuple[ReferenceHandle, str]:
    """The training faces of these datasets and what to say of them."""
    from ..diffusioncleft_core.dataset.references import read_references

    analyzer = analyzer_of(pack_of_datasets(choice, datasets))
    with core_progress():
        reference = read_references([item.folder for item in datasets], analyzer)
    phantom = all(item.phantom for item in datasets)
    lines = [
        f"{name}: {faces_told(n, len(reference.index(name)), reference.n_no_face[name], phantom=phantom)}"
        for name, n in reference.n_photographs.items()
    ]
    text = "\n".join([*lines, f"face pack {analyzer.pack.name}"])
    return ReferenceHandle(reference, analyzer, tuple(datasets)), text


def private_cache(name: str) -> Path:
    """Where faces found in generated sets are kept: not in the sets, which ComfyUI's server shows."""
    from ..diffusioncleft_core.files import private_dir, sha256_bytes

    root = places.run_folder("measured")
    return private_dir(root / sha256_bytes(name.encode())[:16])
