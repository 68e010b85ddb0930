"""Face model packs: folders with a detector and a recogniser in ONNX. Found on disk, never downloaded."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import read_json, sha256_model
from ..ranges import number, whole

PHANTOM = "phantom"
"""Name of the embedded pack, which knows phantoms and nothing else."""
PHANTOM_FOLDER = Path(__file__).resolve().parent.parent / "phantom" / "models" / "phantom-faces"
ENVIRONMENT = "DIFFUSIONCLEFT_FACE_PACKS"
DEFAULT_DET_SIZE = 640
DET_SIZE = whole(32, 4096)
DET_THRESH = number(0, 1, above=True, below=True)


@dataclass(frozen=True)
class FacePack:
    """A pack on disk and how its detector is run."""

    name: str
    folder: Path
    det_size: int
    """Side of the square the detector sees, pixels, a multiple of 32."""
    det_thresh: float
    phantom_only: bool
    """True for models trained on phantoms: never to be used on photographs."""

    def weights(self) -> dict[str, str]:
        """sha256 of every ONNX file in the pack, by file name."""
        return {path.name: sha256_model(path) for path in sorted(self.folder.glob("*.onnx"))}


def search_folders(roots: Sequence[Path] = ()) -> list[Path]:
    """Folders searched for a pack's name, in order: the caller's, the environment's, insightface's."""
    folders = list(roots)
    folders += [Path(entry) for entry in os.environ.get(ENVIRONMENT, "").split(os.pathsep) if entry]
    folders.append(Path("~/.insightface"))
    return [
        candidate for folder in folders for candidate in (folder.expanduser() / "models", folder.expanduser())
    ]


def find_pack(pack: str | Path, roots: Sequence[Path] = ()) -> FacePack:
    """The pack called `pack`, or at that path; "phantom" is the embedded one.

    `roots` are model folders in insightface's layout (`<root>/models/<name>`) or folders of packs.
    Raises UserError when there is none: a missing face model stops the stage, nothing is downloaded.
    """
    if pack == PHANTOM:
        return read_pack(PHANTOM_FOLDER)
    if isinstance(pack, Path) or pack.startswith(("~", ".")) or os.sep in pack or "/" in pack:
        folder = Path(pack).expanduser()
        if not folder.is_dir():
            raise UserError(
                f"there is no face pack folder at {folder}; "
                "give a folder with a detector and a recogniser (.onnx)"
            )
        return read_pack(folder)
    places = search_folders(roots)
    for place in places:
        if (place / pack).is_dir() and pack:
            return read_pack(place / pack)
    looked = ", ".join(str(place) for place in places)
    raise UserError(
        f"the face pack {pack!r} is in none of {looked}; put its .onnx files into <one of these>/{pack}, "
        f"or pass the pack's folder, or set {ENVIRONMENT} (docs/faces.md lists packs and licences)"
    )


def read_pack(folder: Path) -> FacePack:
    """Read a pack's folder and its optional `pack.json` (name, det_size, det_thresh, phantom_only)."""
    if not any(folder.glob("*.onnx")):
        raise UserError(f"the face pack {folder} holds no .onnx file; put a detector and a recogniser there")
    settings: dict[str, Any] = {}
    description = folder / "pack.json"
    if description.is_file():
        loaded = read_json(description)
        if not isinstance(loaded, dict):
            raise UserError(f"{description} must hold one JSON object; repair or remove it")
        settings = loaded
    det_size, det_thresh = settings.get("det_size", DEFAULT_DET_SIZE), settings.get("det_thresh", 0.5)
    if not DET_SIZE.holds(det_size) or int(det_size) % 32:
        raise UserError(f"det_size in {description} is {det_size!r}; give a multiple of 32, e.g. 640")
    if not DET_THRESH.holds(det_thresh):
        raise UserError(f"det_thresh in {description} is {det_thresh!r}; give a number between 0 and 1")
    return FacePack(
        name=str(settings.get("name", folder.name)),
        folder=folder.resolve(),
        det_size=int(det_size),
        det_thresh=float(det_thresh),
        phantom_only=bool(settings.get("phantom_only", False)) or folder.resolve() == PHANTOM_FOLDER,
    )
