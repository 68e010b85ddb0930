"""A generated set as shards that other programs load: WebDataset's tar files, or Parquet.

Shards hold what may be shared and nothing more: the picture as it is, with its mark, and its sidecar. They
are written one picture at a time in the manifest's order, each shard whole or not at all.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import atomic_path, encoded, inside, read_json, remove_leftovers
from ..progress import progress
from .manifest import ImageRow, filtered_rows, listed_rows
from .places import MANIFEST, current_place, sidecar_of

WEBDATASET, PARQUET = "webdataset", "parquet"
FORMATS = (WEBDATASET, PARQUET)
PER_SHARD = 1000
"""Pictures in a shard: about 1 GB at 768 px."""
NO_PARQUET = "Parquet needs the package pyarrow; run: pip install 'diffusioncleft[scale]'"


@dataclass(frozen=True)
class Shards:
    """What was written: the files, in order, and how many pictures they hold."""

    files: tuple[Path, ...]
    pictures: int


@dataclass(frozen=True)
class Sample:
    """One picture of a shard: its name without suffix, its bytes, and the fields of its sidecar."""

    key: str
    suffix: str
    image: bytes
    fields: Mapping[str, Any]


def write_shards(
    folder: Path, out: Path, form: str, *, accepted: bool = True, per_shard: int = PER_SHARD
) -> Shards:
    """Write the images of the generated set `folder` as shards into `out`.

    Args:
        folder: a generated set.
        out: the shards' folder; it may hold shards of an earlier call, which these take the place of.
        form: one of FORMATS.
        accepted: only what the filters accepted; else every first attempt.
        per_shard: pictures in a shard.

    Raises:
        UserError: the set is none that was generated, holds no such image or one that is missing, `out` holds
            something else, or pyarrow is not installed.
    """
    write = {WEBDATASET: _write_tar, PARQUET: _write_parquet}[form]
    suffix = {WEBDATASET: ".tar", PARQUET: ".parquet"}[form]
    if not (folder / MANIFEST).is_file():
        raise UserError(f"{folder} has no {MANIFEST}; give a set that `diffusioncleft generate` made")
    refuse_others(out, suffix)
    chosen = {row.name for row in _chosen(folder, accepted)}
    if not chosen:
        what = "that the filters accepted (--all takes every one)" if accepted else "at all"
        raise UserError(f"{folder} holds no image {what}; run the filters, or generate it, first")
    count = -(-len(chosen) // per_shard)
    out.mkdir(parents=True, exist_ok=True)
    remove_leftovers(out)
    files = []
    with progress(len(chosen), "shards") as bar:
        samples = _samples(folder, chosen, bar.update)
        for number in range(count):
            file = out / f"{folder.name}-{number:05d}-of-{count:05d}{suffix}"
            with atomic_path(file) as temporary:
                write(temporary, islice(samples, per_shard))
            files.append(file)
    for old in out.glob(f"*{suffix}"):
        if old not in files:
            old.unlink()
    return Shards(tuple(files), len(chosen))


def refuse_others(out: Path, suffix: str) -> None:
    """Raise UserError where `out` holds anything but shards of this form: none of it is to be lost."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: give a folder for the shards")
    others = [path.name for path in out.iterdir() if path.suffix != suffix] if out.is_dir() else []
    if others:
        raise UserError(f"{out} holds other files ({others[0]}): give a folder of its own for the shards")


def _chosen(folder: Path, accepted: bool) -> Iterable[ImageRow]:
    rows = listed_rows(folder)
    return filtered_rows(rows) if accepted else (row for row in rows if row.is_raw)


def _samples(folder: Path, chosen: set[str], told: Callable[[int], Any]) -> Iterator[Sample]:
    """The chosen pictures in the manifest's order, one by one."""
    for row in listed_rows(folder):
        if row.name not in chosen:
            continue
        path = inside(folder, row.file)
        sidecar = inside(folder, current_place(folder, sidecar_of(Path(row.name)).name))
        try:
            image, fields = path.read_bytes(), read_json(sidecar)
        except OSError as error:
            raise UserError(
                f"{row.file} of {folder} or its sidecar can't be read ({error.strerror}); generate the set "
                "again"
            ) from error
        if not isinstance(fields, dict) or fields.get("synthetic") is not True:
            raise UserError(
                f"{row.file} of {folder} has no sidecar that says it is synthetic: only generated images are "
                "exported"
            )
        told(1)
        yield Sample(Path(row.name).stem, Path(row.name).suffix.lstrip(".").lower(), image, fields)


def _write_tar(path: Path, samples: Iterable[Sample]) -> None:
    """Pairs of `KEY.png` and `KEY.json`, as WebDataset has them; the same bytes for the same pictures."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            text = encoded(json.dumps(sample.fields, ensure_ascii=False, sort_keys=True))
            for suffix, data in ((sample.suffix, sample.image), ("json", text)):
                member = tarfile.TarInfo(f"{sample.key}.{suffix}")
                member.size, member.mode = len(data), 0o644
                tar.addfile(member, io.BytesIO(data))


def _write_parquet(path: Path, samples: Iterable[Sample]) -> None:
    """Columns `image` ({bytes, path}, as `datasets` has it), FIELDS, as JSON `attributes` and `sidecar`."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UserError(NO_PARQUET) from None
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
        "sidecar": json.dumps(sample.fields, ensure_ascii=False, sort_keys=True),
    }


FEATURES = {
    "image": {"_type": "Image"},
    **{name: {"dtype": kind, "_type": "Value"} for name, kind in FIELDS.items()},
    "attributes": {"dtype": "string", "_type": "Value"},
    "sidecar": {"dtype": "string", "_type": "Value"},
}
"""What tells `datasets` that `image` is one, in the schema's metadata."""
