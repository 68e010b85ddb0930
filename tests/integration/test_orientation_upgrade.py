"""A dataset that was built by the earlier decoder is examined again, and its mirrored images are replaced."""

import io
from dataclasses import replace

import numpy as np
from PIL import Image

from diffusioncleft.diffusioncleft_core.conditions.loader import load_vocabulary
from diffusioncleft.diffusioncleft_core.dataset import build as build_module
from diffusioncleft.diffusioncleft_core.dataset import examine
from diffusioncleft.diffusioncleft_core.dataset.build import build_dataset
from diffusioncleft.diffusioncleft_core.dataset.folder import read_embeddings
from diffusioncleft.diffusioncleft_core.dataset.settings import BuildSettings, Photographs
from diffusioncleft.diffusioncleft_core.faces import records
from diffusioncleft.diffusioncleft_core.filters import verdicts
from diffusioncleft.diffusioncleft_core.imageset import decode as ingest
from diffusioncleft.diffusioncleft_core.imageset.decode import pixel_sha256
from diffusioncleft.diffusioncleft_core.imageset.manifest import read_image_set
from diffusioncleft.diffusioncleft_core.phantom.photographs import write_photographs
from diffusioncleft.trainer.data import outdated

ORIENTATION = 0x0112


def mirrored_tiffs(folder, n):
    """Photographs as TIFF, every other one stored mirrored with the orientation that undoes it."""
    table = write_photographs(folder, n, "cleft", 3, subjects=n)
    text, upright = table.read_text(encoding="utf-8"), set()
    for place, path in enumerate(sorted(folder.glob("*.png"))):
        with Image.open(path) as image:
            picture = image.convert("RGB")
        upright.add(pixel_sha256(np.asarray(picture)))
        exif = Image.Exif()
        exif[ORIENTATION] = 1 + place % 2
        stored = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if place % 2 else picture
        stored.save(path.with_suffix(".tif"), exif=exif)
        path.unlink()
        text = text.replace(path.name, path.with_suffix(".tif").name)
    table.write_text(text, encoding="utf-8")
    return table, upright


def read_twice(data, **settings):
    """What the earlier decoder made of a TIFF with orientation 2: the picture as it is stored."""
    found = ingest.normalise(data, **settings)
    with Image.open(io.BytesIO(data)) as image:
        mirrored = image.getexif().get(ORIENTATION) == 2
    return replace(found, pixels=found.pixels[:, ::-1].copy()) if mirrored else found


def test_a_dataset_of_the_earlier_decoder_is_examined_again(tmp_path, analyzer, monkeypatch):
    photographs, out = tmp_path / "photographs", tmp_path / "built"
    table, upright = mirrored_tiffs(photographs, 4)

    def built():
        condition, settings = load_vocabulary().condition("pre_op"), BuildSettings(phantom=True)
        return build_dataset(Photographs(photographs, table), condition, out, analyzer, settings=settings)

    with monkeypatch.context() as earlier:
        for module in (examine, build_module):
            earlier.setattr(module, "INGEST_VERSION", 1)
        earlier.setattr(examine, "normalise", read_twice)
        built()
    wrong = {row.sha256 for row in read_image_set(out)}
    assert len(wrong - upright) == 2
    assert outdated(out)
    result = built()
    assert (result.examined, result.erased) == (4, 0)
    rows = read_image_set(out)
    assert {row.sha256 for row in rows} == upright == set(read_embeddings(out))
    assert {path.name for path in (out / "images").iterdir()} == {row.file.rpartition("/")[2] for row in rows}
    assert not outdated(out) and built().examined == 0


def test_face_records_and_verdicts_of_the_earlier_decoder_are_not_taken(analyzer, artifacts, monkeypatch):
    now = (records.records_key(analyzer), verdicts.Filters(artifacts).key)
    monkeypatch.setattr(records, "INGEST_VERSION", 1)
    monkeypatch.setattr(verdicts, "INGEST_VERSION", 1)
    before = (records.records_key(analyzer), verdicts.Filters(artifacts).key)
    assert all(one != other for one, other in zip(now, before, strict=True))
