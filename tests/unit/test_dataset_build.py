"""Building, resuming, withdrawing, taking back, purging: on phantoms, with the embedded face models."""

import csv
import os
import shutil
import stat
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from diffusioncleft.diffusioncleft_core import phantom
from diffusioncleft.diffusioncleft_core.conditions.loader import load_vocabulary
from diffusioncleft.diffusioncleft_core.dataset.build import build_dataset
from diffusioncleft.diffusioncleft_core.dataset.copies import known_thumbnail, thumbnail_cache
from diffusioncleft.diffusioncleft_core.dataset.corrections import (
    allow_edits,
    edit_captions,
    read_set_aside,
    readmit,
    restore_captions,
)
from diffusioncleft.diffusioncleft_core.dataset.folder import (
    MARKER,
    keyed_hash,
    purge_dataset,
    read_embeddings,
)
from diffusioncleft.diffusioncleft_core.dataset.settings import BuildSettings, Photographs
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.faces.analyzer import load_face_analyzer
from diffusioncleft.diffusioncleft_core.imageset.decode import pixel_sha256
from diffusioncleft.diffusioncleft_core.imageset.manifest import read_image_set
from diffusioncleft.tools.altered_copies import CHANGES

N = 12
SETTINGS = BuildSettings(phantom=True)


@pytest.fixture(scope="module")
def faces():
    return load_face_analyzer("phantom", threads=1)


@pytest.fixture(scope="module")
def condition():
    return load_vocabulary().condition("pre_op")


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    phantom.write_photographs(folder, N, "cleft", 5, subjects=N - 2)
    return folder


@pytest.fixture(scope="module")
def built(originals, tmp_path_factory, faces, condition):
    out = tmp_path_factory.mktemp("private") / "pre_op"
    build_dataset(
        Photographs(originals, originals / "metadata.csv"), condition, out, faces, settings=SETTINGS
    )
    return out


@pytest.fixture
def photos(originals, tmp_path):
    return shutil.copytree(originals, tmp_path / "photos")


@pytest.fixture
def dataset(built, tmp_path):
    return shutil.copytree(built, tmp_path / "private" / "pre_op")


def table(photos):
    with open(photos / "metadata.csv", encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def write_table(photos, rows):
    with open(photos / "metadata.csv", "w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def build(photos, dataset, faces, condition):
    def run(out=dataset, **settings):
        settings = BuildSettings(phantom=True, **settings)
        return build_dataset(
            Photographs(photos, photos / "metadata.csv"), condition, out, faces, settings=settings
        )

    return run


def reasons(result):
    return {item.file: item.reason for item in result.set_aside}


def everything(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_every_photograph_enters_with_caption_attributes_and_its_own_pixels(built, originals):
    rows = read_image_set(built)
    assert len(rows) == N
    hashes = set()
    for row in rows:
        with Image.open(built / row.file) as image:
            assert not image.info and image.mode == "RGB"
            assert pixel_sha256(np.array(image)) == row.sha256
            assert image.size == (row.width, row.height)
        assert row.caption.startswith("[CLP] A ") and "unrepaired" in row.caption
        assert row.attributes["repair_status"] == "unrepaired" and row.condition == "pre_op"
        hashes.add(row.sha256)
    assert hashes == {pixel_sha256(np.array(Image.open(path))) for path in originals.glob("*.png")}
    assert read_embeddings(built).keys() == hashes
    assert read_image_set(built) == rows


def test_nothing_in_manifest_or_settings_names_a_photograph(built):
    text = (built / "manifest.jsonl").read_text() + (built / "dataset.json").read_text()
    assert "photo-" not in text and "S000" not in text


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_the_folder_is_its_owners_alone(built):
    assert stat.S_IMODE(built.stat().st_mode) == 0o700


def test_a_subject_is_never_on_both_sides(built):
    rows = read_image_set(built)
    train = {row.subject for row in rows if row.role == "train"}
    holdout = {row.subject for row in rows if row.role == "holdout"}
    assert len(holdout) == 1 and len(train) == N - 3 and not train & holdout


def test_without_ids_the_faces_decide_who_is_one_subject(build, photos, tmp_path):
    rows = table(photos)
    write_table(photos, [row | {"subject_id": ""} for row in rows])
    result = build(tmp_path / "clustered")
    by_pixels = {row.sha256: row for row in result.rows}

    def role(index):
        return by_pixels[pixel_sha256(np.array(Image.open(photos / f"photo-{index:04d}.png")))]

    assert len({row.subject for row in result.rows}) >= (N - 2) // 2
    for index in (0, 1):
        assert role(index).subject == role(N - 2 + index).subject
        assert role(index).role == role(N - 2 + index).role


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


def test_too_small_photographs_are_told_of_the_option_and_of_the_way_back(build, photos, dataset):
    with pytest.raises(UserError) as refused:
        build(min_side=2000)
    for word in ("too_small", "--min-side of less than 2000", "dataset readmit"):
        assert word in str(refused.value)
    assert "give a smaller one, or take it back" in read_set_aside(dataset)[0].detail


def test_duplicates_are_set_aside_and_can_be_taken_back(build, photos, dataset):
    rows = table(photos)
    with Image.open(photos / rows[0]["file"]) as image:
        image.save(photos / "same.tiff")
        image.resize((100, 100)).save(photos / "near.jpg", quality=85)
    write_table(photos, [*rows, rows[0] | {"file": "same.tiff"}, rows[0] | {"file": "near.jpg"}])
    first = build()
    assert reasons(first) == {"same.tiff": "duplicate", "near.jpg": "near_duplicate"}
    assert len(first.rows) == N
    with pytest.raises(UserError, match="can't be overruled"):
        readmit(dataset, "same.tiff")
    readmit(dataset, "near.jpg")
    second = build()
    assert len(second.rows) == N + 1 and reasons(second) == {"same.tiff": "duplicate"}
    assert second.examined == 0


def test_grey_turned_cut_and_mirrored_copies_are_set_aside_and_another_visit_is_not(build, photos):
    rows = table(photos)  # two people are there twice
    rng = np.random.default_rng(4)
    names = ("grey", "turned by 5°", "cropped to 80 %", "mirrored")
    for place, name in enumerate(names):
        with Image.open(photos / rows[place]["file"]) as image:
            pixels = np.asarray(image.convert("RGB"))
        Image.fromarray(CHANGES[name](pixels, rng, pixels)).save(photos / f"z-copy{place}.png")
    copies = [rows[place] | {"file": f"z-copy{place}.png"} for place in range(len(names))]
    write_table(photos, [*rows, *copies])
    result = build()
    assert reasons(result) == {f"z-copy{place}.png": "near_duplicate" for place in range(len(names))}
    assert build().examined == 0 and len(build().rows) == N


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


def test_second_face_no_face_small_and_animated_are_set_aside_and_can_be_taken_back(build, photos, dataset):
    rows = table(photos)
    rng = np.random.default_rng(2)
    scene = phantom.render(phantom.random_face(rng, finding="cleft"), 128)
    two = np.concatenate([scene.image, phantom.render(phantom.random_face(rng), 128).image], axis=1)
    Image.fromarray(two).save(photos / "two.png")
    Image.new("RGB", (128, 128), (90, 120, 90)).save(photos / "none.png")
    face = phantom.render(phantom.random_face(rng, finding="cleft"), 128).image
    Image.fromarray(face).resize((60, 60)).save(photos / "small.png")
    frames = [Image.fromarray(phantom.render(phantom.random_face(rng), 128).image) for _ in range(2)]
    frames[0].save(photos / "moving.gif", save_all=True, append_images=frames[1:])
    expected = {
        "two.png": "several_faces",
        "none.png": "no_face",
        "small.png": "too_small",
        "moving.gif": "animated",
    }
    write_table(photos, rows + [rows[0] | {"file": name, "subject_id": name} for name in expected])
    assert reasons(build()) == expected
    for name in expected:
        readmit(dataset, name)
    result = build()
    assert reasons(result) == {} and len(result.rows) == N + 4
    write_table(photos, rows + [rows[0] | {"file": name, "subject_id": ""} for name in expected])
    assert reasons(build()) == {"none.png": "no_face"}


def test_rows_decide_before_any_photograph_is_opened(build, photos, condition, faces):
    rows = table(photos)
    rows[0]["consent"] = "maybe"
    rows[1]["repair_status"] = "repaired"
    rows[2]["age_group"] = "teen"
    rows[3]["file"] = "gone.png"
    write_table(photos, [*rows, rows[4] | {"side": "", "cleft_type": "bilateral"}])
    names = [f"photo-{index:04d}.png" for index in range(5)]
    for name in names[:5]:
        (photos / name).write_bytes(b"would be undecodable")
    result = build()
    assert reasons(result) == {
        names[0]: "no_consent",
        names[1]: "other_condition",
        names[2]: "metadata",
        names[3]: "no_row",
        "gone.png": "row_without_photo",
        names[4]: "row_conflict",
    }
    detail = {item.file: item.detail for item in result.set_aside}
    assert detail[names[2]] == "line 4: age_group is 'teen'; allowed: baby, child, adult"


def test_the_same_file_under_a_name_without_consent_stays_out(build, photos):
    rows = table(photos)
    shutil.copy(photos / rows[0]["file"], photos / "copy.png")
    write_table(photos, [*rows, rows[0] | {"file": "copy.png", "consent": "no"}])
    assert reasons(build()) == {"copy.png": "no_consent", rows[0]["file"]: "no_consent"}


def test_sidecar_captions_win_and_begin_with_the_trigger(build, photos):
    rows = table(photos)
    captions = {
        "photo-0000": ("CLP, a child smiles", "[CLP] a child smiles"),
        "photo-0001": ("[CLP] as it is\n", "[CLP] as it is"),
        "photo-0002": ("\ufeffno trigger\n  two lines", "[CLP] no trigger two lines"),
        "photo-0003": ("  \n", None),
    }
    for stem, (text, _) in captions.items():
        (photos / f"{stem}.txt").write_text(text, encoding="utf-8")
    (photos / "photo-0004.txt").write_text("[CLPrep] of another condition")
    write_table(
        photos, [{key: row[key] for key in ("file", "consent", "subject_id", "age_group")} for row in rows]
    )
    with pytest.raises(UserError, match="no column gender, cleft_type"):
        build()
    write_table(photos, rows)
    result = build()
    assert reasons(result) == {"photo-0004.png": "caption"}
    by_pixels = {row.sha256: row.caption for row in result.rows}
    for stem, (_, wanted) in captions.items():
        found = by_pixels[pixel_sha256(np.array(Image.open(photos / f"{stem}.png")))]
        assert found == wanted if wanted else found.startswith("[CLP] A ")


def test_sidecars_make_up_for_missing_columns(build, photos):
    rows = table(photos)
    for row in rows:
        (photos / row["file"]).with_suffix(".txt").write_text("a face")
    write_table(photos, [{key: row[key] for key in ("file", "consent")} for row in rows])
    assert {row.caption for row in build(bracketed=False).rows} == {"CLP a face"}


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


def read_manifest_names(dataset):
    return sorted((dataset / "images").glob("*.png"))


def test_two_builds_never_work_in_one_folder(build, dataset, offline_env):
    code = (
        "import sys; from pathlib import Path\n"
        "from diffusioncleft.diffusioncleft_core.dataset.folder import dataset_lock\n"
        "with dataset_lock(Path(sys.argv[1])):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(dataset)],
        env=offline_env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout.readline() == "held\n"
        before = sorted(path.name for path in dataset.rglob("*"))
        with pytest.raises(UserError, match=f"process {other.pid} is at work in"):
            build()
        with pytest.raises(UserError, match="at work"):
            purge_dataset(dataset)
        assert sorted(path.name for path in dataset.rglob("*")) == before
        other.kill()
    build()


def test_the_embedded_face_models_need_phantoms(photos, tmp_path, condition, faces):
    with pytest.raises(UserError, match="phantoms alone"):
        build_dataset(Photographs(photos, photos / "metadata.csv"), condition, tmp_path / "out", faces)
    assert not (tmp_path / "out").exists()


def test_out_must_be_new_empty_or_a_dataset_beside_the_photographs(build, photos, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.txt").write_text("mine")
    for out, said in (
        (home, "neither empty"),
        (photos / "out", "in one another"),
        (tmp_path, "in one another"),
    ):
        with pytest.raises(UserError, match=said):
            build(out)
    assert (home / "thesis.txt").read_text() == "mine"


def test_a_folder_that_a_server_shows_is_warned_of(build, tmp_path):
    (tmp_path / "ComfyUI" / "custom_nodes").mkdir(parents=True)
    result = build(tmp_path / "ComfyUI" / "output" / "private")
    assert [w for w in result.notices if "ComfyUI's output folder" in w]


def test_purge_erases_what_was_derived_and_nothing_else(dataset, photos, tmp_path):
    originals = everything(photos)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept.txt").write_text("kept")
    (dataset / "cache" / "deep").mkdir()
    (dataset / "cache" / "deep" / "latents.safetensors").write_bytes(b"derived")
    (dataset / "cache" / "link").symlink_to(outside)
    (dataset / "notes.txt").write_text("the user's own")
    result = purge_dataset(dataset)
    assert result.left == ("notes.txt",)
    assert [path.name for path in dataset.iterdir()] == ["notes.txt"]
    assert (outside / "kept.txt").read_text() == "kept" and everything(photos) == originals


def test_purge_refuses_a_folder_without_the_marker(dataset, photos):
    (dataset / MARKER).unlink()
    before = everything(dataset)
    for folder in (dataset, photos):
        with pytest.raises(UserError, match="no dataset folder"):
            purge_dataset(folder)
    assert everything(dataset) == before


def test_the_command_line_tells_shows_takes_back_and_purges(command, photos, tmp_path):
    out = tmp_path / "private set"
    rows = table(photos)
    rows[0]["consent"] = "no"
    with Image.open(photos / rows[1]["file"]) as image:
        image.resize((100, 100)).save(photos / "near copy.jpg", quality=85)
    write_table(photos, [*rows, rows[1] | {"file": "near copy.jpg"}])
    originals = everything(photos)
    told = ["--metadata", photos / "metadata.csv", "--condition", "pre_op", "--out", out]

    refused = command("dataset", "build", photos, *told, "--faces", tmp_path / "no pack")
    assert refused.returncode == 2 and len(refused.stderr.splitlines()) == 1 and not out.exists()
    done = command("dataset", "build", photos, *told, "--phantom")
    assert done.returncode == 0, done.stderr
    assert f"{N - 1} photographs of {N - 2} subjects" in done.stdout
    assert "1  no_consent" in done.stdout and "1  near_duplicate" in done.stdout
    shown = command("dataset", "show", out, "--list")
    assert "photo-0000.png: no_consent: line 2: consent is 'no'" in shown.stdout
    refused = command("dataset", "readmit", out, "--file", "photo-0000.png")
    assert refused.returncode == 2 and "can't be overruled" in refused.stderr
    taken = command("dataset", "readmit", out, "--file", "near copy.jpg")
    assert (
        taken.returncode == 0 and f"{N} photographs" in taken.stdout and "near_dup" not in taken.stdout[40:]
    )
    asked = command("dataset", "purge", out, stdin=subprocess.DEVNULL)
    assert asked.returncode == 2 and "--yes" in asked.stderr and out.exists()
    purged = command("dataset", "purge", out, "--yes")
    assert purged.returncode == 0 and not out.exists()
    assert everything(photos) == originals


def test_names_with_windows_folders_match_and_unknown_columns_are_named(build, photos, dataset):
    rows = [row | {"file": rf"C:\photos\{row['file']}", "weight_kg": "3"} for row in table(photos)]
    write_table(photos, rows)
    result = build()
    assert (len(result.rows), result.set_aside) == (N, ())
    assert any(rf"({N}): C:\photos\photo-0000.png as photo-0000.png" in told for told in result.notices)
    assert any("were ignored (1): weight_kg; it has: " in told for told in result.notices)


def test_a_row_that_may_speak_of_a_photograph_withholds_it_when_it_gives_no_consent(build, photos):
    rows = table(photos)
    write_table(photos, [*rows, rows[0] | {"file": r"C:\photos\photo-0000", "consent": "no"}])
    assert reasons(build())["photo-0000.png"] == "no_consent"


def test_captions_that_cannot_be_told_set_one_photograph_aside_and_others_are_named(build, photos):
    (photos / "photo-0000.txt").write_bytes("лицо ребёнка".encode("cp1251"))
    (photos / "photo-0001.TXT").write_bytes("[CLP] a girl’s face".encode("cp1252"))
    (photos / "photo-0002.caption").write_text("[CLP] a face")
    result = build()
    assert reasons(result) == {"photo-0000.png": "caption"}
    assert "[CLP] a girl’s face" in {row.caption for row in result.rows}
    assert any("read as Windows-1252 (1): photo-0001.TXT" in told for told in result.notices)
    assert any("were not read (1): photo-0002.caption; rename" in told for told in result.notices)
    assert not any("photo-" in told for told in result.warnings)


def test_a_name_that_was_not_set_aside_is_answered_with_the_command_that_names_those(build, dataset):
    build()
    with pytest.raises(UserError, match=r"nobody\.jpg is not on the list .*dataset show \S+ --list$"):
        readmit(dataset, "nobody.jpg")
