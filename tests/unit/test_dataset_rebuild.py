"""Building again: what joins, what is withdrawn, what was damaged, and who keeps a side."""

import numpy as np
import pytest
from dataset_building import N, everything, reasons, table, write_table
from PIL import Image

from diffusioncleft.diffusioncleft_core import phantom
from diffusioncleft.diffusioncleft_core.conditions.loader import load_vocabulary
from diffusioncleft.diffusioncleft_core.dataset.build import build_dataset
from diffusioncleft.diffusioncleft_core.dataset.copies import known_thumbnail, thumbnail_cache
from diffusioncleft.diffusioncleft_core.dataset.corrections import (
    allow_edits,
    edit_captions,
    restore_captions,
)
from diffusioncleft.diffusioncleft_core.dataset.folder import (
    keyed_hash,
    read_embeddings,
)
from diffusioncleft.diffusioncleft_core.dataset.settings import BuildSettings, Photographs
from diffusioncleft.diffusioncleft_core.files import sha256_file
from diffusioncleft.diffusioncleft_core.imageset.cache import entry_key
from diffusioncleft.diffusioncleft_core.imageset.decode import INGEST_VERSION, pixel_sha256
from diffusioncleft.diffusioncleft_core.imageset.manifest import read_image_set
from diffusioncleft.diffusioncleft_core.imageset.vectors import VectorStore
from diffusioncleft.diffusioncleft_core.metrics.image_pass import VECTORS, FeatureCaches


def read_manifest_names(dataset):
    return sorted((dataset / "images").glob("*.png"))


SETTINGS = BuildSettings(phantom=True)


def test_building_again_changes_nothing_and_opens_nothing(build, dataset, photos):
    before, originals = everything(dataset), everything(photos)
    result = build()
    assert (result.examined, result.reused, result.erased) == (0, N, 0)
    after = everything(dataset)
    for changing in ("embeddings/faces.npz",):
        before.pop(changing), after.pop(changing)
    assert after == before
    assert everything(photos) == originals


def test_withdrawn_consent_erases_what_was_derived(build, dataset, photos):
    (dataset / "cache" / "latents.safetensors").write_bytes(b"derived")
    rows = table(photos)
    gone = pixel_sha256(np.array(Image.open(photos / rows[3]["file"])))
    write_table(photos, [row | {"consent": "no"} if row is rows[3] else row for row in rows])
    result = build()
    assert result.erased == 1 and reasons(result) == {rows[3]["file"]: "no_consent"}
    assert gone not in {row.sha256 for row in read_image_set(dataset)}
    left = b"".join(everything(dataset).values())
    assert gone.encode() not in left and not (dataset / f"images/{gone[:16]}.png").exists()
    assert gone not in read_embeddings(dataset)
    assert {path.name for path in (dataset / "cache").iterdir()} == {"copies"}
    assert known_thumbnail(thumbnail_cache(dataset), gone) is None
    assert (photos / rows[3]["file"]).exists()


@pytest.fixture
def with_vectors(dataset):
    """A dataset with vectors of its images in its cache; by pixel hash, what each left on the disk."""
    folder, left = FeatureCaches().folder(dataset), {}
    store = VectorStore(folder, VECTORS, "network", (4,))
    for place, row in enumerate(read_image_set(dataset)):
        key = entry_key(sha256_file(dataset / row.file), INGEST_VERSION, "network")
        vector = np.random.default_rng(place).standard_normal(4).astype(np.float32)
        store.keep(key, vector)
        store.flush() if place % 2 else None
        left[row.sha256] = (bytes.fromhex(key), key.encode(), vector.tobytes())
    store.close()
    data = b"".join(everything(dataset).values())
    assert all(key in data and vector in data for key, _, vector in left.values())
    return left


def withdrawn(photos):
    """Take one photograph's consent back; its pixel hash."""
    rows = table(photos)
    write_table(photos, [row | {"consent": "no"} if row is rows[3] else row for row in rows])
    return pixel_sha256(np.array(Image.open(photos / rows[3]["file"])))


@pytest.mark.parametrize("stops", [False, True], ids=["at once", "by the next build"])
def test_no_vector_of_a_withdrawn_photograph_is_left(
    build, dataset, photos, with_vectors, stops, monkeypatch
):
    gone = withdrawn(photos)
    if stops:
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr("diffusioncleft.diffusioncleft_core.dataset.build.write_image_set", interrupted)
            build()
    else:
        build()
    data = b"".join(everything(dataset).values())
    assert not any(trace in data for trace in with_vectors[gone])
    build()
    data = b"".join(everything(dataset).values())
    assert not any(trace in data for trace in with_vectors[gone])


def interrupted(*_):
    raise KeyboardInterrupt


def test_a_measurement_beside_a_withdrawal_brings_no_vector_back(build, dataset, photos, with_vectors):
    store = VectorStore(FeatureCaches().folder(dataset), VECTORS, "network", (4,))
    rows = np.zeros((1, 4), np.float32)
    gone = withdrawn(photos)
    key, name, _ = with_vectors[gone]
    assert store.fill(rows, [0], [name.decode()]).all()
    build()
    store.keep(name.decode(), rows[0])
    store.close()
    data = b"".join(everything(dataset).values())
    assert key not in data and rows[0].tobytes() not in data


def test_what_is_withdrawn_is_gone_even_when_the_build_stops_right_after(build, dataset, photos, faces):
    rows = table(photos)
    gone = pixel_sha256(np.array(Image.open(photos / rows[3]["file"])))
    write_table(photos, [row | {"consent": "no"} if row is rows[3] else row for row in rows])
    new = phantom.render(phantom.random_face(np.random.default_rng(77), finding="cleft"), 128).image
    Image.fromarray(new).save(photos / rows[4]["file"])

    class Stopped:
        phantom_only, describe = True, faces.describe

        def analyze(self, image):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_dataset(
            Photographs(photos, photos / "metadata.csv"),
            load_vocabulary().condition("pre_op"),
            dataset,
            Stopped(),
            settings=SETTINGS,
        )
    assert gone not in {row.sha256 for row in read_image_set(dataset)}
    assert not (dataset / f"images/{gone[:16]}.png").exists()


def test_new_photographs_join_and_nobody_changes_sides(build, photos, dataset):
    before = {row.sha256: row.role for row in read_image_set(dataset)}
    rows = table(photos)
    for index in range(30, 38):
        face = phantom.random_face(np.random.default_rng(index), finding="cleft")
        name = f"new {index}.png"
        Image.fromarray(phantom.render(face, 128).image).save(photos / name)
        rows.append(rows[0] | {"file": name, "subject_id": f"N{index}"})
    write_table(photos, rows)
    result = build()
    assert result.examined == 8 and result.reused == N
    after = {row.sha256: row.role for row in result.rows}
    assert {sha256: after[sha256] for sha256 in before} == before
    assert result.count("holdout") > list(before.values()).count("holdout")


def test_another_seed_draws_anew_and_says_so(build):
    assert not build().warnings
    assert any("drawn anew" in warning for warning in build(seed=3).warnings)


def test_subjects_keep_their_side_in_the_other_conditions_dataset(built, tmp_path, faces):
    held = {row.sha256 for row in read_image_set(built) if row.role == "holdout"}
    photos = tmp_path / "after"
    phantom.write_photographs(photos, N, "scar", 6, subjects=N - 2)
    post = load_vocabulary().condition("post_op")
    for seed in (1, 2):
        result = build_dataset(
            Photographs(photos, photos / "metadata.csv", apart_from=[built]),
            post,
            tmp_path / f"post {seed}",
            faces,
            settings=BuildSettings(phantom=True, seed=seed),
        )
        assert result.count("holdout") == len(held)


def test_a_side_that_keeps_all_in_training_is_named_where_nobody_is_held_out(built, tmp_path, faces):
    photos = tmp_path / "after"
    phantom.write_photographs(photos, N, "scar", 6, subjects=N)
    post = load_vocabulary().condition("post_op")
    given = Photographs(photos, photos / "metadata.csv", apart_from=[built])
    roles = {row.subject: row.role for row in read_image_set(built)}
    label = {
        row["file"]: keyed_hash(built, f"id {row['subject_id'].casefold()}")[:12] for row in table(photos)
    }
    write_table(photos, [row for row in table(photos) if roles.get(label[row["file"]]) == "train"])
    told = build_dataset(given, post, tmp_path / "trained", faces, settings=BuildSettings(phantom=True))
    assert any("--apart-from" in warning for warning in told.warnings)


def test_a_withdrawn_copy_leaves_no_thumbnail(build, photos, dataset):
    rows = table(photos)
    with Image.open(photos / rows[0]["file"]) as image:
        image.convert("L").convert("RGB").save(photos / "z-grey.png")
    write_table(photos, [*rows, rows[0] | {"file": "z-grey.png"}])
    assert reasons(build()) == {"z-grey.png": "near_duplicate"}
    gone = pixel_sha256(np.array(Image.open(photos / "z-grey.png")))
    assert known_thumbnail(thumbnail_cache(dataset), gone) is not None
    write_table(photos, [*rows, rows[0] | {"file": "z-grey.png", "consent": "no"}])
    build()
    assert known_thumbnail(thumbnail_cache(dataset), gone) is None


def test_a_build_forgets_edited_captions_and_a_withdrawal_what_they_were(build, dataset, photos, faces):
    allow_edits(dataset)
    first = {row.file: row.caption for row in read_image_set(dataset)}
    edit_captions(dataset, {1: "another", 2: "another"})
    rows = table(photos)
    gone = rows[0]
    write_table(photos, [{**row, "consent": "no" if row is gone else row["consent"]} for row in rows])
    build()
    left = {row.file: row.caption for row in read_image_set(dataset)}
    assert len(left) == N - 1
    assert left.items() <= first.items()
    assert not (dataset / "captions.jsonl").exists()
    assert restore_captions(dataset) == 0
    assert edit_captions(dataset, {1: "still allowed"}) == 1


def test_damage_in_the_folder_is_repaired_from_the_photographs(build, dataset):
    row = read_image_set(dataset)[0]
    good = (dataset / row.file).read_bytes()
    (dataset / row.file).unlink()
    (dataset / "manifest.jsonl").unlink()
    other = read_manifest_names(dataset)[-1]
    other.write_bytes(other.read_bytes()[:200])
    with open(dataset / "examined.jsonl", "ab") as handle:
        handle.write(b'{"torn')
    (dataset / "images" / ".writing-left.png").write_bytes(b"left by a crash")
    result = build()
    assert result.examined == 0 and len(result.rows) == N
    assert (dataset / row.file).read_bytes() == good
    for entry in read_image_set(dataset):
        assert pixel_sha256(np.array(Image.open(dataset / entry.file))) == entry.sha256
    assert len(list((dataset / "images").iterdir())) == N
