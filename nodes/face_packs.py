"""Which face packs a graph may name: the embedded one, and those in ComfyUI's models/insightface."""

from . import places
from .common import AUTO, PHANTOM

USUAL = "buffalo_l"


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
