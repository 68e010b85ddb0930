"""A generated set as shards that other programs load: WebDataset's tar files, or Parquet.

Shards hold what may be shared and nothing more: the picture as it is, with its mark, and its sidecar. They
are written one picture at a time in the manifest's order. Beside them lie the manifest's rows of these
pictures and, written last, the index: where it lies, everything it names is whole. `unpack` reads it.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import encoded, inside, parse_json, read_json, sha256_file, write_json, write_jsonl
from ..progress import progress
from ..text import read_text
from .manifest import ImageRow, Reread, filtered, listed_rows
from .places import MANIFEST, SETTINGS, current_place, sidecar_of
from .storage import Place, fetched, put, remove, sizes, temporary, workspace

WEBDATASET, PARQUET = "webdataset", "parquet"
FORMATS = (WEBDATASET, PARQUET)
SUFFIXES = {WEBDATASET: ".tar", PARQUET: ".parquet"}
PER_SHARD = 1000
"""Pictures in a shard: about 1 GB at 768 px."""
INDEX = "index.json"
"""What an export consists of; written last, and removed before anything that it names changes."""
ROWS = "images.jsonl"
"""The manifest's rows of the exported pictures, in the order in which they lie in the shards."""
KIND, SCHEMA = "diffusioncleft shards", 1


@dataclass(frozen=True)
class Part:
    """A file of an export, as its index names it. `images`: how many pictures or rows it holds."""

    file: str
    images: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Shards:
    """An export: its shards in order, how many pictures they hold, and how many of them were there before."""

    files: tuple[str, ...]
    pictures: int
    kept: int


@dataclass(frozen=True)
class Sample:
    """One picture of a shard: its name without suffix, its bytes, and its sidecar's text and fields."""

    key: str
    suffix: str
    image: bytes
    sidecar: str
    fields: Mapping[str, Any]


def write_shards(
    folder: Path,
    place: Place,
    form: str,
    *,
    accepted: bool = True,
    per_shard: int = PER_SHARD,
    private: bool = False,
    loras: Iterable[str] = (),
) -> Shards:
    """Write the images of the generated set `folder` as shards into `place`.

    A shard that is there with the same content stays. Before the first one that is not, the index of an
    earlier call is removed, so that a reader meets a whole export or none.

    Args:
        folder: a generated set.
        place: may hold shards of an earlier call, which these take the place of.
        form: one of FORMATS.
        accepted: only what the filters accepted; else every first attempt.
        per_shard: pictures in a shard.
        private: the user declared the place private; the index says so.
        loras: by what those are known that drew the set; the index says it, for a withdrawal.

    Raises:
        UserError: the set is none that was generated, holds no such image or one that is missing, `place`
            holds something else or can't be reached or written.
    """
    write, suffix = {WEBDATASET: _write_tar, PARQUET: _write_parquet}[form], SUFFIXES[form]
    if not (folder / MANIFEST).is_file():
        raise UserError(f"{folder} has no {MANIFEST}; give a set that `diffusioncleft generate` made")
    there = _own_files(place, suffix)
    chosen = {row.name for row in chosen_rows(folder, accepted)}
    if not chosen:
        what = "that the filters accepted (--all takes every one)" if accepted else "at all"
        raise UserError(f"{folder} holds no image {what}; run the filters, or generate it, first")
    count = -(-len(chosen) // per_shard)
    parts: list[Part] = []
    kept = 0
    with progress(len(chosen), "shards") as bar, workspace(place) as work:
        samples = _samples(folder, chosen, bar.update)
        for number in range(count):
            name = f"{folder.name}-{number:05d}-of-{count:05d}{suffix}"
            file = temporary(work, f"new{suffix}")
            write(file, islice(samples, per_shard))
            part = _part(name, file, min(per_shard, len(chosen) - number * per_shard))
            if _holds(place, part, there, work):
                kept += 1
                file.unlink()
            else:
                remove(place, INDEX)
                put(place, name, file, shown_on(bar, number, count))
            parts.append(part)
        rows = temporary(work, ROWS)
        write_jsonl(rows, (row.to_json() for row in listed_rows(folder) if row.name in chosen))
        listing = _part(ROWS, rows, len(chosen))
        if not _holds(place, listing, there, work):
            remove(place, INDEX)
            put(place, ROWS, rows)
        index = temporary(work, INDEX)
        write_json(
            index,
            {
                "schema": SCHEMA,
                "kind": KIND,
                "format": form,
                "images": len(chosen),
                "rejected_too": not accepted,
                "private": private,
                "loras": sorted(loras),
                "settings": read_json(folder / SETTINGS) if (folder / SETTINGS).is_file() else None,
                "rows": asdict(listing),
                "shards": [asdict(part) for part in parts],
            },
        )
        stale = there.keys() - {INDEX, ROWS, *(part.file for part in parts)}
        if stale or not _holds(place, _part(INDEX, index, 0), there, work):
            remove(place, INDEX)
            for name in sorted(stale):
                remove(place, name)
            put(place, INDEX, index)
    return Shards(tuple(part.file for part in parts), len(chosen), kept)


def part_names(index: Mapping[str, Any]) -> list[str]:
    """The plain names of the files that an index tells of; what else stands there is left out."""
    parts = [index.get("rows"), *(shards if isinstance(shards := index.get("shards"), list) else [])]
    names = [str(part.get("file")) for part in parts if isinstance(part, Mapping)]
    return [name for name in names if Path(name).name == name and name not in ("", ".", "..")]


def _own_files(place: Place, suffix: str) -> dict[str, int]:
    """Names and sizes in a place; UserError where it holds anything but an export of this form: none of it
    is to be lost."""
    there = sizes(place)
    others = [name for name in there if name not in (INDEX, ROWS) and Path(name).suffix != suffix]
    if others:
        raise UserError(
            f"{place.name} holds other files ({sorted(others)[0]}): give a folder of its own for the shards"
        )
    return there


def _part(name: str, file: Path, images: int) -> Part:
    return Part(name, images, file.stat().st_size, sha256_file(file))


def _holds(place: Place, part: Part, there: Mapping[str, int], work: Path) -> bool:
    """Whether a place holds this file with the same content, which is read."""
    if there.get(part.file) != part.bytes:
        return False
    with fetched(place, part.file, work) as file:
        return file is not None and sha256_file(file) == part.sha256


def shown_on(bar: Any, number: int, count: int) -> Callable[[int, int], None]:
    """Tell on the bar of pictures how much of the shard `number` is written or read."""

    def told(done: int, total: int) -> None:
        bar.set_postfix(shard=f"{number + 1} of {count}", moved=f"{done >> 20} of {total >> 20} MB")

    return told


def chosen_rows(folder: Path, accepted: bool) -> Iterable[ImageRow]:
    """The rows that an export takes: of what the filters accepted, or every first attempt."""
    rows = Reread(partial(listed_rows, folder))
    return filtered(rows) if accepted else (row for row in rows if row.is_raw)


def _samples(folder: Path, chosen: set[str], told: Callable[[int], Any]) -> Iterator[Sample]:
    """The chosen pictures in the manifest's order, one by one."""
    for row in listed_rows(folder):
        if row.name not in chosen:
            continue
        path = inside(folder, row.file)
        sidecar = inside(folder, current_place(folder, sidecar_of(Path(row.name)).name))
        try:
            image, text = path.read_bytes(), read_text(sidecar)
        except OSError as error:
            raise UserError(
                f"{row.file} of {folder} or its sidecar can't be read ({error.strerror}); generate the set "
                "again"
            ) from error
        fields = synthetic_fields(text)
        if fields is None:
            raise UserError(
                f"{row.file} of {folder} has no sidecar that says it is synthetic: only generated images are "
                "exported"
            )
        told(1)
        yield Sample(Path(row.name).stem, Path(row.name).suffix.lstrip(".").lower(), image, text, fields)


def synthetic_fields(sidecar: str) -> dict[str, Any] | None:
    """What a sidecar's text says of a generated image; None for another text."""
    try:
        fields = parse_json(sidecar)
    except ValueError:
        return None
    return fields if isinstance(fields, dict) and fields.get("synthetic") is True else None


def _write_tar(path: Path, samples: Iterable[Sample]) -> None:
    """Pairs of `KEY.png` and `KEY.json`, as WebDataset has them; the same bytes for the same pictures."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            pair = ((sample.suffix, sample.image), ("json", encoded(sample.sidecar)))
            for suffix, data in pair:
                member = tarfile.TarInfo(f"{sample.key}.{suffix}")
                member.size, member.mode = len(data), 0o644
                tar.addfile(member, io.BytesIO(data))


def _write_parquet(path: Path, samples: Iterable[Sample]) -> None:
    """Columns `image` ({bytes, path}, as `datasets` has it), FIELDS, as JSON `attributes` and `sidecar`."""
    import pyarrow
    from pyarrow import parquet

    schema = pyarrow.schema(
        [
            ("image", pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])),
            *((name, getattr(pyarrow, kind)()) for name, kind in FIELDS.items()),
            ("attributes", pyarrow.string()),
            ("sidecar", pyarrow.string()),
        ],
        metadata={"huggingface": json.dumps({"info": {"features": FEATURES}})},
    )
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        while part := list(islice(samples, GROUP)):
            rows = [_parquet_row(sample) for sample in part]
            writer.write_table(pyarrow.Table.from_pylist(rows, schema))


FIELDS = {
    "index": "int64",
    "condition": "string",
    "prompt": "string",
    "seed": "int64",
    "width": "int32",
    "height": "int32",
}
"""A sidecar's fields that have a column of their own, and pyarrow's name of its type."""
GROUP = 100
"""Pictures in a row group, which are in memory together."""


def _parquet_row(sample: Sample) -> dict[str, Any]:
    known = {name: sample.fields.get(name) for name in FIELDS}
    return {
        "image": {"bytes": sample.image, "path": f"{sample.key}.{sample.suffix}"},
        **known,
        "attributes": json.dumps(sample.fields.get("attributes") or {}, ensure_ascii=False, sort_keys=True),
        "sidecar": sample.sidecar,
    }


FEATURES = {
    "image": {"_type": "Image"},
    **{name: {"dtype": kind, "_type": "Value"} for name, kind in FIELDS.items()},
    "attributes": {"dtype": "string", "_type": "Value"},
    "sidecar": {"dtype": "string", "_type": "Value"},
}
"""What tells `datasets` that `image` is one, in the schema's metadata."""
