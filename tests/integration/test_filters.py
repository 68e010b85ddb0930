"""Filtering a generated set: planted artifacts set aside, interrupted, taken back, made again, drawn on."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from phantom_datasets import phantom_dataset
from PIL import Image

from diffusioncleft.diffusioncleft_core.conditions.loader import load_vocabulary
from diffusioncleft.diffusioncleft_core.conditions.plan import sampling_plan
from diffusioncleft.diffusioncleft_core.dataset.references import read_references
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.files import read_json, read_jsonl, sha256_file, write_json
from diffusioncleft.diffusioncleft_core.filters.apply import filter_set
from diffusioncleft.diffusioncleft_core.filters.artifacts import ArtifactFilter
from diffusioncleft.diffusioncleft_core.filters.decisions import readmit
from diffusioncleft.diffusioncleft_core.filters.identity import IdentityFilter
from diffusioncleft.diffusioncleft_core.filters.stage import filter_sets, photograph_verdicts, refill_set
from diffusioncleft.diffusioncleft_core.filters.verdicts import Filters
from diffusioncleft.diffusioncleft_core.flux.source import phantom_source
from diffusioncleft.diffusioncleft_core.generation.generate import generate as draw
from diffusioncleft.diffusioncleft_core.generation.settings import GenerationSettings, Sampling
from diffusioncleft.diffusioncleft_core.imageset import ahead
from diffusioncleft.diffusioncleft_core.imageset.decode import normalise
from diffusioncleft.diffusioncleft_core.imageset.manifest import filtered_rows, raw_rows, read_image_set
from diffusioncleft.tools.planted import plant

N = 8
PLANTED = {1: "eye_bar", 3: "text", 5: "several_faces"}
LEAK = 6
SIZE = {
    "width": 128,
    "height": 128,
    "batch": 8,
    "device": torch.device("cpu"),
    "dtype": torch.float32,
}


def generate(
    source, lora, plan, out, *, warn=lambda message: None, on_image=lambda done, total: None, **values
):
    """Draw with the sampling that `values` name."""
    settings = GenerationSettings(source, Sampling(**values), lora)
    return draw(settings, plan, out, warn=warn, on_image=on_image)


def the_plan(n=N):
    return sampling_plan(load_vocabulary().condition("pre_op"), n, 3)


@pytest.fixture(scope="module")
def datasets(tmp_path_factory, analyzer):
    """A dataset of each condition: five drawn people each."""
    root = tmp_path_factory.mktemp("datasets")
    for seed, name in enumerate(("pre_op", "post_op"), start=50):
        phantom_dataset(root / f"photos {name}", name, root / name, analyzer, n=5, seed=seed)
    return [root / "pre_op", root / "post_op"]


@pytest.fixture(scope="module")
def identity(datasets, analyzer):
    """At a threshold that only copies reach: the phantom base draws people like each other."""
    return IdentityFilter(read_references(datasets, analyzer), 0.97)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn") / "pre_op"
    generate(phantom_source(), None, the_plan(), folder, **SIZE)
    return folder


@pytest.fixture
def image_set(drawn, datasets, analyzer, tmp_path):
    """The drawn set with three planted artifacts and a training photograph of the OTHER condition in it."""
    folder = shutil.copytree(drawn, tmp_path / "pre_op")
    files = [row["file"] for row in read_jsonl(folder / "manifest.jsonl")]
    photograph = next(row for row in read_image_set(datasets[1]) if row.role == "train")
    for index, kind in [*PLANTED.items(), (LEAK, None)]:
        path = folder / files[index]
        if kind is None:
            shutil.copyfile(datasets[1] / photograph.file, path)
        else:
            pixels, other = (np.asarray(Image.open(folder / files[i])) for i in (index, 0))
            face = analyzer.analyze(pixels)[0]
            rng = np.random.default_rng(4)
            Image.fromarray(plant(pixels, face.landmarks, face.box, kind, rng, [other])).save(path)
        sidecar = read_json(path.with_suffix(".json"))
        write_json(path.with_suffix(".json"), sidecar | {"png_sha256": sha256_file(path)})
    return folder


def by_index(folder):
    return {row.index: row for row in read_image_set(folder)}


def state(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.relative_to(folder).as_posix().startswith((".faces", ".lock"))
    }


def test_artifacts_and_leaks_are_set_aside_with_their_reasons_and_nothing_is_deleted(
    image_set, artifacts, identity, analyzer, datasets
):
    before = {Path(name).name for name in state(image_set)}
    result = filter_set(image_set, Filters(artifacts, identity))
    assert (result.accepted, result.rejected, result.checked) == (4, 4, N)
    rows = by_index(image_set)
    for index, row in rows.items():
        kind = PLANTED.get(index, "identity_leak" if index == LEAK else None)
        assert row.verdicts["accepted"] is (kind is None)
        assert kind is None or kind in row.verdicts["reasons"]
        assert row.file.startswith("rejected/") is (kind is not None)
        image = image_set / row.file
        assert image.is_file() and read_json(image.with_suffix(".json"))["verdicts"] == row.verdicts
    assert rows[LEAK].verdicts["identity"]["max_similarity"] == 1.0
    assert len(raw_rows(rows.values())) == N and len(filtered_rows(rows.values())) == 4
    assert {Path(name).name for name in state(image_set)} == before
    if os.name == "posix":
        assert stat.S_IMODE((image_set / ".faces").stat().st_mode) == 0o700
    told = b"".join(data for name, data in state(image_set).items() if name.endswith((".json", ".jsonl")))
    for dataset in datasets:
        for row in read_image_set(dataset):
            for secret in (row.sha256[:12], Path(row.file).stem, row.subject, str(dataset)):
                assert secret.encode() not in told


def test_each_image_is_decoded_once_for_faces_and_verdicts(image_set, artifacts, identity, monkeypatch):
    decoded = []

    def counted(data, **options):
        decoded.append(data)
        return normalise(data, **options)

    monkeypatch.setattr(ahead, "normalise", counted)
    filter_set(image_set, Filters(artifacts, identity))
    assert len(decoded) == N == len(set(decoded))


def test_a_second_call_looks_at_nothing_and_other_settings_at_everything(
    image_set, artifacts, identity, analyzer
):
    filter_set(image_set, Filters(artifacts, identity))
    before = state(image_set)
    again = filter_set(image_set, Filters(artifacts, identity))
    assert again.checked == 0 and state(image_set) == before
    without = filter_set(image_set, Filters(artifacts))
    assert without.checked == N and without.accepted == 5
    assert not by_index(image_set)[LEAK].file.startswith("rejected/")
    assert "identity" not in by_index(image_set)[LEAK].verdicts


def test_an_interrupted_filter_goes_on_and_ends_as_if_it_had_not_been(
    image_set, artifacts, identity, analyzer, tmp_path
):
    whole = shutil.copytree(image_set, tmp_path / "whole")
    filter_set(whole, Filters(artifacts, identity))

    class Stops(ArtifactFilter):
        seen = 0

        def check(self, image, record=None):
            Stops.seen += 1
            if Stops.seen > 5:
                raise KeyboardInterrupt
            return super().check(image, record)

    with pytest.raises(KeyboardInterrupt):
        filter_set(image_set, Filters(Stops(analyzer, threads=1), identity))
    assert not (image_set / "rejected").exists()
    assert filter_set(image_set, Filters(artifacts, identity)).checked == N - 5
    assert state(image_set) == state(whole)


def test_a_crash_between_two_moves_is_put_right_by_filter_and_generation(
    image_set, artifacts, identity, analyzer
):
    filter_set(image_set, Filters(artifacts, identity))
    before = state(image_set)
    aside = by_index(image_set)[1].file
    os.replace(image_set / aside, image_set / Path(aside).name)  # the image is back, its sidecar is not
    filter_set(image_set, Filters(artifacts, identity))
    assert state(image_set) == before
    os.replace(image_set / aside, image_set / Path(aside).name)
    assert generate(phantom_source(), None, the_plan(), image_set, **SIZE).made == 0


def test_the_generation_does_not_draw_rejected_images_again_and_a_longer_plan_keeps_them(
    image_set, artifacts, identity, analyzer
):
    filter_set(image_set, Filters(artifacts, identity))
    before = state(image_set)
    assert generate(phantom_source(), None, the_plan(), image_set, **SIZE).made == 0
    assert state(image_set) == before
    result = generate(phantom_source(), None, the_plan(N + 2), image_set, **SIZE)
    assert result.made == 2
    rows = by_index(image_set)
    assert rows[1].file.startswith("rejected/") and not rows[1].verdicts["accepted"]
    assert rows[N].verdicts == {}
    assert filter_set(image_set, Filters(artifacts, identity)).checked == 2


def test_a_person_takes_an_image_back_and_the_filter_respects_it(image_set, artifacts, identity, analyzer):
    filter_set(image_set, Filters(artifacts, identity))
    aside = by_index(image_set)[1].file
    with pytest.raises(UserError, match="was not rejected"):
        readmit(image_set, [aside, by_index(image_set)[0].file])
    assert by_index(image_set)[1].file == aside
    with pytest.raises(UserError, match="has no image"):
        readmit(image_set, ["nothing.png"])
    readmit(image_set, [aside])
    for _ in range(2):
        row = by_index(image_set)[1]
        assert row.file == Path(aside).name and (image_set / row.file).is_file()
        assert row.verdicts["accepted"] and "eye_bar" in row.verdicts["reasons"]
        assert row.verdicts["readmitted"]["by"] == "a person"
        filter_set(image_set, Filters(ArtifactFilter(analyzer, threads=1)))
    assert generate(phantom_source(), None, the_plan(), image_set, **SIZE).made == 0


def test_gaps_are_filled_with_the_same_prompts_up_to_the_cap(image_set, artifacts, identity, analyzer):
    filter_set(image_set, Filters(artifacts, identity))
    asked = []

    def draw(plan):
        asked.append(plan)
        generate(phantom_source(), None, plan, image_set, **SIZE)

    def check():
        return filter_set(image_set, Filters(artifacts, identity))

    result = refill_set(image_set, draw, check, attempts=2)
    rows = read_image_set(image_set)
    again = [row for row in rows if row.attempt]
    first = by_index(image_set)
    assert result.made == len(again) and len(asked) <= 2
    assert {row.index % 1_000_000 for row in again} == {*PLANTED, LEAK}
    for row in again:
        origin = first[row.index % 1_000_000]
        assert (row.prompt, row.attributes) == (origin.prompt, origin.attributes)
        assert row.seed != origin.seed and row.attempt <= 2
    assert len(filtered_rows(rows)) == N - result.missing
    assert refill_set(image_set, draw, check, attempts=2).made == 0
    generate(phantom_source(), None, the_plan(), image_set, **SIZE)  # the plan alone, drawn on
    assert [row.index for row in read_image_set(image_set)] == [r.index for r in rows]


def test_a_bare_folder_and_damaged_files_get_verdicts_and_foreign_json_is_left_alone(
    tmp_path, drawn, artifacts, analyzer
):
    folder = tmp_path / "bare"
    folder.mkdir()
    for place, path in enumerate(sorted(drawn.glob("*.png"))[:2]):
        shutil.copyfile(path, folder / f"face {place}.PNG")
    Image.new("RGB", (90, 60), (10, 200, 30)).save(folder / "plain.jpg")
    (folder / "plain.json").write_text('{"theirs": 1}')
    result = filter_set(folder, Filters(artifacts))
    assert (result.accepted, result.rejected) == (2, 1)
    assert (folder / "rejected" / "plain.jpg").is_file()
    (folder / "face 1.PNG").write_bytes(b"no image")
    rows = {row["file"]: row for row in read_jsonl(folder / "manifest.jsonl")}
    rows["face 1.PNG"].pop("verdicts")
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows.values()))
    result = filter_set(folder, Filters(artifacts))
    reasons = {row.file: row.reasons for row in read_image_set(folder)}
    assert reasons["rejected/face 1.PNG"] == ["unreadable"] and reasons["rejected/plain.jpg"] == ["no_face"]
    assert any(path.read_text() == '{"theirs": 1}' for path in folder.rglob("plain.json"))


def test_training_photographs_pass_and_their_verdicts_stay_private(datasets, artifacts, analyzer):
    for dataset in datasets:
        verdicts = photograph_verdicts(dataset, artifacts)
        assert verdicts and all(item["accepted"] for item in verdicts)
        assert verdicts == photograph_verdicts(dataset, artifacts)


def test_the_stage_gives_the_reports_part_for_every_condition(image_set, datasets, identity, artifacts):
    folders = dict(zip(("pre_op", "post_op"), datasets, strict=True))
    found = filter_sets({"pre_op": image_set}, folders, Filters(artifacts, identity))
    assert found["pre_op"]["rejected"] == 4 and found["pre_op"]["by_kind"]["identity_leak"] == 1
    assert sum(cell["n"] for cell in found["pre_op"]["by_skin"].values()) == N
    photographs = found["pre_op"]["training_photographs"]
    assert photographs["n"] is None and set(photographs["by_kind"].values()) == {0}
    json.dumps(found)


def test_the_command_filters_takes_back_and_says_what_is_missing(command, image_set, datasets):
    references = [f"--reference={dataset}" for dataset in datasets]
    done = command("filter", image_set, *references, "--phantom", "--threshold", "0.97", "--photographs")
    assert done.returncode == 0, done.stderr
    assert "accepted 4, rejected 4" in done.stdout and "identity_leak" in done.stdout
    assert "below" not in done.stdout.split("training photographs")[1]
    aside = by_index(image_set)[LEAK].file
    done = command("filter", image_set, "--readmit", aside)
    assert done.returncode == 0 and "is like a training photograph" in done.stderr
    for arguments, words in (
        ([], "nothing to compare with"),
        ([references[0], "--artifacts-only"], "compares no faces"),
        ([references[0], "--faces", "no_such_pack"], "no_such_pack"),
        ([references[0], "--phantom", "--kinds", "hats"], "no artifact 'hats'"),
        ([references[0], "--phantom", "--threshold", "2"], "--threshold: '2' is not a number above 0"),
        ([references[0], "--faces", "phantom"], "know phantoms alone"),
        ([f"--reference={image_set}", "--phantom"], "no dataset"),
    ):
        done = command("filter", image_set, *arguments)
        assert done.returncode == 2 and words in done.stderr, (arguments, done.stderr)
        assert len(done.stderr.strip().splitlines()) == 1


def test_text_alone_needs_no_face_pack_and_faces_do(command, offline_env, drawn, tmp_path):
    folder = shutil.copytree(drawn, tmp_path / "set")
    bare = {"env": offline_env | {"HOME": str(tmp_path), "DIFFUSIONCLEFT_FACE_PACKS": ""}}
    done = command("filter", folder, "--artifacts-only", "--kinds", "text,eye_bar", **bare)
    assert done.returncode == 2 and "face pack 'buffalo_l' is in none of" in done.stderr
    done = command("filter", folder, "--artifacts-only", "--kinds", "text", **bare)
    assert done.returncode == 0, done.stderr
    assert f"of {N} images: accepted {N}" in done.stdout
    assert {tuple(row.verdicts["artifacts"]) for row in read_image_set(folder)} == {("text",)}


@pytest.mark.parametrize("kind", ["drawn by another model", "no face of a phantom"])
def test_the_embedded_face_models_refuse_what_are_no_phantoms(command, drawn, tmp_path, kind):
    """Nothing is judged, moved or written: a verdict of models that know no photographs is none."""
    folder = tmp_path / "set"
    if kind == "drawn by another model":
        shutil.copytree(drawn, folder)
        sidecar = sorted(folder.glob("0*.json"))[3]
        told = read_json(sidecar)
        write_json(sidecar, told | {"base": told["base"] | {"sha256": "0" * 64}})
    else:
        folder.mkdir()
        rng = np.random.default_rng(1)
        for name in ("a.png", "b.png"):
            Image.fromarray(rng.integers(0, 255, (90, 90, 3), np.uint8)).save(folder / name)
    before = state(folder)
    done = command("filter", folder, "--artifacts-only", "--phantom")
    assert done.returncode == 2 and "know phantoms alone" in done.stderr
    assert state(folder) == before


def test_a_limit_is_an_option_and_a_wrong_one_is_refused(command, image_set):
    before = state(image_set)
    for limit, words in (
        ("hat=1", "no limit 'hat'"),
        ("eye_detail=2", "eye_detail is 2.0; give a number from 0 to 1"),
        ("eye_detail", "is no NAME=NUMBER"),
    ):
        done = command("filter", image_set, "--artifacts-only", "--phantom", "--limit", limit)
        assert done.returncode == 2 and words in done.stderr, done.stderr
    assert state(image_set) == before
    judge = ("filter", image_set, "--artifacts-only", "--phantom", "--kinds", "eye_bar")
    assert "rejected 1" in command(*judge).stdout
    assert "rejected 0" in command(*judge, "--limit", "bar_evidence=99").stdout


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
def test_ctrl_c_leaves_a_set_that_the_same_command_finishes(image_set, datasets, offline_env):
    line = [sys.executable, "-m", "diffusioncleft", "filter", str(image_set), "--phantom"]
    line += [f"--reference={dataset}" for dataset in datasets]
    process = subprocess.Popen(line, env=offline_env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while process.poll() is None and not (image_set / ".faces").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode in (0, 130)
    done = subprocess.run(line, env=offline_env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(row.verdicts for row in by_index(image_set).values())
