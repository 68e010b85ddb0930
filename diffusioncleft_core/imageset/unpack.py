"""An export back as the set that it came from: pictures, sidecars and manifest, byte for byte.

Every file is compared with the index before anything of it is used, since a store is another's to write. What
a shard may bring are the pictures that the export's rows name, and their sidecars, nothing else.
"""

from __future__ import annotations

import contextlib
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import (
    append_jsonl,
    atomic_path,
    encoded,
    inside,
    iterate_jsonl,
    parse_json,
    private_dir,
    read_jsonl,
    sha256_bytes,
    sha256_file,
    write_bytes,
    write_json,
)
from ..progress import progress
from .manifest import ImageRow
from .places import MANIFEST, SETTINGS, place_for, remove_set_leftovers, set_lock, sidecar_of
from .shards import (
    FORMATS,
    INDEX,
    KIND,
    ROWS,
    SCHEMA,
    SUFFIXES,
    WEBDATASET,
    Part,
    shown_on,
    synthetic_fields,
)
from .storage import Moved, Place, fetched, workspace

UNDER_WAY = ".import.jsonl"
"""In a set that is being brought back: the hash of the export's index, then a row for each shard in it."""
_OUR_OWN = (SETTINGS, "withdrawn.json")
"""Names of what is no sidecar in a set, so that no picture brings one."""
_NAME = re.compile(r"[^/\\\0:]{1,255}")


@dataclass(frozen=True)
class Export:
    """What the index of an export says. `sha256`: of the index itself; `loras`: what drew its pictures."""

    form: str
    images: int
    private: bool
    loras: tuple[str, ...]
    settings: Mapping[str, Any] | None
    rows: Part
    shards: tuple[Part, ...]
    sha256: str


def read_export(place: Place, work: Path) -> Export:
    """The index of an export. UserError where there is none, or one that no export wrote."""
    with fetched(place, INDEX, work) as file:
        if file is None:
            raise UserError(
                f"{place.name} holds no whole export: it has no {INDEX}, which is written last; check the "
                "place, or run the same 'diffusioncleft export' again to its end"
            )
        data = file.read_bytes()
    try:
        found = parse_json(data.decode("utf-8"))
        if found["kind"] != KIND or found["schema"] != SCHEMA or found["format"] not in FORMATS:
            raise ValueError("another kind")
        export = Export(
            found["format"],
            int(found["images"]),
            found["private"] is not False,
            tuple(map(str, found["loras"])),
            found["settings"],
            _part(found["rows"], ROWS),
            tuple(_part(item, SUFFIXES[found["format"]]) for item in found["shards"]),
            sha256_bytes(data),
        )
        if export.images != sum(part.images for part in export.shards):
            raise ValueError("its counts disagree")
        if export.settings is not None and not isinstance(export.settings, dict):
            raise ValueError("its settings are no object")
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{INDEX} of {place.name} is none that this version's export wrote; export the set again"
        ) from None
    return export


def import_set(place: Place, export: Export, out: Path) -> int:
    """Write the set that `export` in `place` holds into the folder `out`; how many shards were fetched.

    A call that was interrupted goes on there; a whole set is compared and left as it is.

    Raises:
        UserError: a file of the export is missing, changed or truncated, or holds what it should not; or
            `out` holds something else.
    """
    _refuse_other(out, export)
    if export.private:
        private_dir(out)
    out.mkdir(parents=True, exist_ok=True)
    with set_lock(out), workspace(Place(str(out), out)) as work:
        if _is_there(out, export):
            return 0
        remove_set_leftovers(out)
        done = _shards_done(out, export)
        read = 0
        with _checked(place, export.rows, work) as listing, progress(export.images, "images") as bar:
            rows = _rows(listing, f"{ROWS} of {place.name}")
            for number, part in enumerate(export.shards):
                expected = {row.name: row for row in islice(rows, part.images)}
                if part.sha256 not in done or not all(_lies(out, row) for row in expected.values()):
                    moved = shown_on(bar, number, len(export.shards))
                    with _checked(place, part, work, moved) as file:
                        _unpack(file, export.form, out, expected, f"{part.file} of {place.name}")
                    append_jsonl(out / UNDER_WAY, {"sha256": part.sha256})
                    read += 1
                bar.update(part.images)
            if next(rows, None) is not None:
                raise UserError(f"{ROWS} of {place.name} names more pictures than its shards hold")
            if export.settings is not None:
                write_json(out / SETTINGS, dict(export.settings))
            with atomic_path(out / MANIFEST) as manifest:
                manifest.write_bytes(listing.read_bytes())
        (out / UNDER_WAY).unlink()
    return read


def _part(found: Any, name: str) -> Part:
    """A file that the index names: a plain name, equal to `name` or ending in it."""
    part = Part(str(found["file"]), int(found["images"]), int(found["bytes"]), str(found["sha256"]))
    if not _NAME.fullmatch(part.file) or not part.file.endswith(name) or part.images < 0:
        raise ValueError("a name that leads elsewhere")
    return part


def _refuse_other(out: Path, export: Export) -> None:
    """Raise UserError where `out` holds what this import did not put there."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: give a folder for the set")
    if not out.is_dir() or _first(out) == export.sha256:
        return
    if (out / UNDER_WAY).is_file():
        raise UserError(
            f"{out} holds a part of another export, or of an earlier state of this one; give a new folder"
        )
    if not (out / MANIFEST).is_file() and any(path.name != ".lock" for path in out.iterdir()):
        raise UserError(f"{out} holds other files; give a new folder for the set")


def _first(out: Path) -> str | None:
    rows = read_jsonl(out / UNDER_WAY) if (out / UNDER_WAY).is_file() else []
    return str(rows[0].get("index")) if rows else None


def _is_there(out: Path, export: Export) -> bool:
    """Whether `out` is this set already; UserError for another set."""
    manifest = out / MANIFEST
    if (out / UNDER_WAY).is_file() or not manifest.is_file():
        return False
    same = sha256_file(manifest) == export.rows.sha256
    if not same or not all(_lies(out, row) for row in _rows(manifest, str(manifest))):
        raise UserError(f"{out} holds another set, or a changed one; give a new folder for the set")
    return True


def _shards_done(out: Path, export: Export) -> set[str]:
    """Hashes of the shards that an earlier call brought in; notes that this export is under way."""
    if not (out / UNDER_WAY).is_file():
        append_jsonl(out / UNDER_WAY, {"index": export.sha256})
    return {str(row.get("sha256")) for row in read_jsonl(out / UNDER_WAY)}


def _rows(path: Path, where: str) -> Iterator[ImageRow]:
    """The rows of an export; UserError for one that names what is no picture of a generated set."""
    for found in iterate_jsonl(path):
        row = ImageRow.from_json(found, where)
        places = [place_for(row.name, accepted=accepted) for accepted in (True, False)]
        plain = _NAME.fullmatch(row.name) and Path(row.name).suffix.lower() == ".png"
        beside = sidecar_of(Path(row.name)).name
        if row.file not in places or not plain or row.name.startswith(".") or beside in _OUR_OWN:
            raise UserError(f"a row of {where} names what is no picture of a set; export the set again")
        yield row


def _lies(out: Path, row: ImageRow) -> bool:
    """Whether a picture and its sidecar are in the set, each of which is written whole."""
    picture = inside(out, row.file)
    return picture.is_file() and sidecar_of(picture).is_file()


@contextlib.contextmanager
def _checked(place: Place, part: Part, work: Path, moved: Moved | None = None) -> Iterator[Path]:
    """The local copy of a file of an export, the very one that its index names."""
    with fetched(place, part.file, work, moved) as file:
        if file is None:
            raise UserError(f"{part.file} is missing in {place.name}; export the set again")
        if (size := file.stat().st_size) != part.bytes:
            raise UserError(
                f"{part.file} in {place.name} has {size} bytes and not the {part.bytes} of its index: it was "
                "truncated or changed; export the set again"
            )
        if sha256_file(file) != part.sha256:
            raise UserError(
                f"{part.file} in {place.name} has other content than its index says: it was changed; export "
                "the set again"
            )
        yield file


def _unpack(file: Path, form: str, out: Path, expected: Mapping[str, ImageRow], where: str) -> None:
    """Write the pictures of a shard and their sidecars into `out`, each where its row says."""
    left = dict(expected)
    for name, image, sidecar in (_in_tar if form == WEBDATASET else _in_parquet)(file, where):
        row = left.pop(name, None)
        if row is None:
            raise UserError(f"{where} holds a picture that its export does not name; export the set again")
        if synthetic_fields(sidecar.decode("utf-8", "replace")) is None:
            raise UserError(
                f"{where} holds a picture without a sidecar that says it is synthetic; only generated images "
                "are brought back"
            )
        target = inside(out, row.file)
        write_bytes(target, image)
        write_bytes(sidecar_of(target), sidecar)
    if left:
        raise UserError(f"{where} lacks {len(left)} of its pictures; export the set again")


def _in_tar(file: Path, where: str) -> Iterator[tuple[str, bytes, bytes]]:
    """(name, picture, sidecar) of each pair."""
    try:
        with tarfile.open(file, "r:") as tar:
            while (image := tar.next()) is not None:
                sidecar = tar.next()
                if sidecar is None or sidecar.name != str(sidecar_of(Path(image.name))):
                    raise UserError(f"{where} has no pairs of picture and sidecar; export the set again")
                first, second = tar.extractfile(image), tar.extractfile(sidecar)
                if first is None or second is None:
                    raise UserError(f"{where} holds what is no file; export the set again")
                yield image.name, first.read(), second.read()
    except tarfile.TarError as error:
        raise UserError(f"{where} is no tar file that can be read ({error}); export the set again") from error


def _in_parquet(file: Path, where: str) -> Iterator[tuple[str, bytes, bytes]]:
    """The same of a Parquet shard, one row group in memory at a time."""
    from pyarrow import ArrowException, parquet

    try:
        with parquet.ParquetFile(file) as shard:
            for batch in shard.iter_batches(batch_size=16, columns=["image", "sidecar"]):
                for row in batch.to_pylist():
                    yield row["image"]["path"], row["image"]["bytes"], encoded(row["sidecar"])
    except (ArrowException, KeyError, TypeError) as error:
        raise UserError(f"{where} is no Parquet file of an export; export the set again") from error
