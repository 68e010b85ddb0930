"""The dataset's private folder: what lies in it, its images and embeddings, and how it is purged."""

import contextlib
import errno
import hashlib
import hmac
import os
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import UserError
from ..files import (
    LOCK,
    TEMPORARY_PREFIX,
    atomic_path,
    explained,
    folder_lock,
    keep_from_git,
    private_dir,
    read_json,
    write_bytes,
    write_json,
    write_text,
)
from ..imageset.decode import pixel_sha256
from ..imageset.manifest import ImageRow, listed_rows
from ..imageset.places import MANIFEST
from ..outputs import can_write

MARKER = ".diffusioncleft-dataset"
IMAGES = "images"
EMBEDDINGS = "embeddings"
CACHE = "cache"
SET_ASIDE = "set_aside.jsonl"
SETTINGS = "dataset.json"
EXAMINED = "examined.jsonl"
READMITTED = "readmitted.jsonl"
EDITS = "edits.json"
"""There only when the owner lets captions be changed."""
CAPTIONS = "captions.jsonl"
"""The captions as they were built, while others stand in the manifest."""
ROLES = "roles.json"
TRAINED = "trained.jsonl"
"""What was trained on the dataset."""
WITHDRAWN = "withdrawn.jsonl"
"""Trainings that learned from a photograph whose consent was withdrawn."""
TRAINED_LOCK = ".trained.lock"
"""Held by who changes one of these two."""
RATING_CONSENT = "rating_consent.json"
"""Photographs that the raters of a study may see."""
STUDIES = "studies.jsonl"
"""The studies that show some of them."""
WITHHELD = "withheld.json"
"""Keyed hashes of photographs with the pixels of one without consent."""
KEY = "key"
NOTICE = "PRIVATE.txt"
SCHEMA = 1
_OLD_CACHES = ("latents", "text", "measure")
"""Parts of a cache that earlier versions shared between datasets: what lies in them may be another's."""
_ERASE_ATTEMPTS = 10
"""Times that a folder is listed again because something new is in it."""
# What a purge erases. The marker goes last, so that an interrupted purge can go on.
OWN_NAMES: tuple[str, ...] = (
    IMAGES,
    EMBEDDINGS,
    CACHE,
    MANIFEST,
    SET_ASIDE,
    SETTINGS,
    EXAMINED,
    READMITTED,
    EDITS,
    CAPTIONS,
)
OWN_NAMES += (ROLES, TRAINED, WITHDRAWN, TRAINED_LOCK, RATING_CONSENT, STUDIES, WITHHELD)
OWN_NAMES += (KEY, NOTICE, ".gitignore", LOCK, MARKER)

_NOTICE = """\
Everything in this folder was derived from photographs of people. Keep it private: don't upload, share or
commit it, and don't put it where a server shows it. Erase it with: diffusioncleft dataset purge FOLDER
"""


def create_dataset_folder(folder: Path) -> Path:
    """Make `folder` (mode 0700) with its marker, or accept it if it has one.

    Raises:
        UserError: it holds something else: a purge must never meet other people's files.
    """
    folder = Path(folder)
    refuse_foreign(folder)
    private_dir(folder)
    if not is_dataset(folder):
        write_json(folder / MARKER, {"kind": "diffusioncleft dataset", "schema": SCHEMA})
    for name in (IMAGES, EMBEDDINGS, CACHE):
        private_dir(folder / name)
    if not (folder / KEY).is_file():
        write_bytes(folder / KEY, secrets.token_bytes(32))
    if not (folder / NOTICE).is_file():
        write_text(folder / NOTICE, _NOTICE)
        keep_from_git(folder)
    return folder


def refuse_foreign(folder: Path) -> None:
    """Raise UserError for a file, or a folder that holds something else than a dataset or its lock."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; choose another --out")
    if folder.is_dir() and not is_dataset(folder) and any(path.name != LOCK for path in folder.iterdir()):
        raise UserError(f"{folder} is neither empty nor a dataset; choose a new or empty folder as --out")


def dataset_lock(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Keep other builds and purges out of `folder`; UserError while one is at work in it.

    A folder that holds something else raises UserError too, and nothing is written into it.
    """
    folder = Path(folder)
    refuse_foreign(folder)
    private_dir(folder)
    return folder_lock(
        folder, lambda owner: f"process {owner} is at work in {folder} already; wait for it, or stop it"
    )


def is_dataset(folder: Path) -> bool:
    """Whether `folder` has the marker of a dataset of ours."""
    path = Path(folder) / MARKER
    if not path.is_file() or path.is_symlink():
        return False
    with contextlib.suppress(UserError):
        marker = read_json(path)
        return isinstance(marker, dict) and marker.get("kind") == "diffusioncleft dataset"
    return False


def require_dataset(folder: Path) -> Path:
    """Return `folder`, or raise UserError when it is not a dataset folder."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist; give the folder of a dataset")
    if not is_dataset(folder):
        raise UserError(
            f"{folder} is no dataset folder (it has no {MARKER}); nothing was touched, check the path"
        )
    return folder


def dataset_rows(folder: Path, *roles: str) -> list[ImageRow]:
    """The photographs of a dataset that have one of `roles`; all of them when none is named.

    Raises:
        UserError: the folder is no dataset, or was never built to the end.
    """
    if not (require_dataset(folder) / MANIFEST).is_file():
        raise UserError(f"{folder} has no {MANIFEST}; build it with 'diffusioncleft dataset build'")
    return [row for row in listed_rows(folder) if not roles or row.role in roles]


def holds_phantoms(folder: Path) -> bool:
    """Whether a dataset was built from phantoms; photographs are what is not told to be phantoms."""
    described = read_json(folder / SETTINGS) if (require_dataset(folder) / SETTINGS).is_file() else {}
    return isinstance(described, dict) and bool(described.get("settings", {}).get("phantom", False))


def dataset_cache(folder: Path, part: str) -> Path:
    """The folder in a dataset for what was computed from its own images, of the kind `part` (`training`, …).

    It goes with a purge and with every withdrawal. What an older version left there is erased. A dataset that
    can't be written is left as it is.
    """
    if not can_write(folder):
        return Path(folder) / CACHE / part
    cache = private_dir(Path(folder) / CACHE)
    for name in _OLD_CACHES:
        erase(cache / name)
    return private_dir(cache / part)


def owned_cache(folder: Path, part: str, elsewhere: Path | None) -> Path | None:
    """Where what is computed from the images in `folder` lies: a dataset's in itself, others' `elsewhere`."""
    return dataset_cache(folder, part) if is_dataset(folder) else elsewhere


def keyed_hash(folder: Path, text: str) -> str:
    """HMAC-SHA256 of `text` with the folder's secret key: means nothing to whoever has not the folder."""
    return hmac.new((Path(folder) / KEY).read_bytes(), text.encode("utf-8"), hashlib.sha256).hexdigest()


def refuse_overlap(photos: Path, out: Path) -> None:
    """Raise UserError when the originals and the derived folder lie in one another."""
    originals, derived = Path(photos).resolve(), Path(out).resolve()
    if derived.is_relative_to(originals) or originals.is_relative_to(derived):
        raise UserError(
            f"--out {out} and the photographs {photos} lie in one another; choose --out beside them"
        )


def erase(path: Path) -> None:
    """Erase a file or a folder, with what another process writes into it meanwhile.

    Links are removed, never followed. A missing path is fine.
    """
    path = Path(path)
    with explained(path):
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
            return
        for attempt in range(_ERASE_ATTEMPTS):
            for name in sorted(os.listdir(path)):
                erase(path / name)
            try:
                path.rmdir()
                return
            except OSError as error:
                if error.errno != errno.ENOTEMPTY or attempt == _ERASE_ATTEMPTS - 1:
                    raise


def erase_leftovers(folder: Path) -> None:
    """Erase what an interrupted write left in the dataset's own folders."""
    for place in (folder, folder / IMAGES, folder / EMBEDDINGS):
        for entry in place.glob(f"{TEMPORARY_PREFIX}*"):
            erase(entry)


def empty_folder(folder: Path) -> None:
    """Erase what is in `folder`, keep the folder."""
    if folder.is_dir():
        for entry in sorted(os.scandir(folder), key=lambda item: item.name):
            erase(Path(entry.path))


Array = np.ndarray[Any, np.dtype[Any]]
FACES = f"{EMBEDDINGS}/faces.npz"


def image_name(pixels: str) -> str:
    """Name of the normalised image in the dataset: the first 16 digits of its pixel hash."""
    return f"{IMAGES}/{pixels[:16]}.png"


def save_image(folder: Path, sha256: str, pixels: Array) -> None:
    """Write `pixels` [H, W, 3] uint8 as a PNG without metadata, under a temporary name first.

    Not synced: `settle` does that for all images at once, which takes a fraction of the time.
    """
    path = Path(folder) / image_name(sha256)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}.png")
    try:
        with explained(path):
            Image.fromarray(pixels).save(temporary, "PNG", compress_level=4)
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def is_sound(folder: Path, sha256: str) -> bool:
    """Whether the normalised image is there and its pixels are the ones of its hash."""
    path = Path(folder) / image_name(sha256)
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return image.mode == "RGB" and pixel_sha256(np.array(image, dtype=np.uint8)) == sha256
    except Exception:  # a torn file raises nearly anything
        return False


def settle(folder: Path, hashes: Collection[str]) -> None:
    """Sync these images to disk, before a manifest names them."""
    for sha256 in hashes:
        path = Path(folder) / image_name(sha256)
        with explained(path), open(path, "r+b") as handle:
            os.fsync(handle.fileno())


def save_embeddings(folder: Path, hashes: Sequence[str], embeddings: Sequence[Array | None]) -> None:
    """Write `embeddings/faces.npz`: `sha256` [n] and `embedding` [n, 512] float32, of images with a face."""
    known = [(sha256, item) for sha256, item in zip(hashes, embeddings, strict=True) if item is not None]
    matrix = np.stack([item for _, item in known]) if known else np.zeros((0, 512))
    with atomic_path(Path(folder) / FACES) as temporary:
        np.savez(
            temporary, sha256=np.array([sha256 for sha256, _ in known]), embedding=matrix.astype(np.float32)
        )


def read_embeddings(folder: Path) -> dict[str, Array]:
    """Embeddings [512] of the dataset's images, by pixel hash; none before the first build is done."""
    path = Path(folder) / FACES
    if not path.is_file():
        return {}
    with np.load(path, allow_pickle=False) as data:
        return dict(zip(data["sha256"].tolist(), data["embedding"], strict=True))


def erase_unlisted(folder: Path, hashes: Collection[str]) -> None:
    """Erase the images that are not among `hashes`; if there are such, the embeddings as well."""
    names = {Path(image_name(sha256)).name for sha256 in hashes}
    with explained(Path(folder) / IMAGES):
        for entry in sorted((Path(folder) / IMAGES).iterdir()):
            if entry.name not in names:
                erase(entry)
    if not set(read_embeddings(folder)) <= set(hashes):
        erase(Path(folder) / FACES)


@dataclass(frozen=True)
class PurgeResult:
    """`erased`: number of files; `left`: names in the folder that no stage of ours had made."""

    erased: int
    left: tuple[str, ...]


def count_derived(folder: Path) -> int:
    """How many files a purge of `folder` erases. Raises UserError for a folder without the marker."""
    folder, count = require_dataset(folder), 0
    for entry in _derived_entries(folder):
        if entry.is_dir() and not entry.is_symlink():
            for place, folders, files in os.walk(entry):
                count += len(files) + sum(Path(place, name).is_symlink() for name in folders)
        else:
            count += entry.exists() or entry.is_symlink()
    return count


def purge_dataset(folder: Path) -> PurgeResult:
    """Erase everything derived in `folder`, and the folder itself if nothing else is in it.

    Erases by name, follows no link, never touches the photographs; files that are not ours are left and
    named. Files are deleted, not overwritten. Interrupted, the same call goes on: the marker goes last.
    """
    folder = require_dataset(folder)
    count = count_derived(folder)
    with dataset_lock(folder):
        for entry in _derived_entries(folder):
            if entry.name not in (LOCK, MARKER):
                erase(entry)
    # Windows erases no open file, so the lock is let go first.
    for name in (LOCK, MARKER):
        erase(folder / name)
    left = tuple(sorted(entry.name for entry in folder.iterdir()))
    if not left:
        folder.rmdir()
    return PurgeResult(count, left)


def _derived_entries(folder: Path) -> list[Path]:
    leftovers = sorted(folder.glob(f"{TEMPORARY_PREFIX}*"))
    names = [name for name in OWN_NAMES if name != MARKER]
    return [*leftovers, *(folder / name for name in names), folder / MARKER]
