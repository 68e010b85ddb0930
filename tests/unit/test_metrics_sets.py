"""The figures of whole sets: who entered, who did not, what was compared with what; all counted by hand."""

import itertools
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from diffusioncleft.diffusioncleft_core.dataset.folder import create_dataset_folder
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.files import write_json
from diffusioncleft.diffusioncleft_core.imageset.decode import read_image
from diffusioncleft.diffusioncleft_core.imageset.manifest import ImageRow, write_image_set
from diffusioncleft.diffusioncleft_core.metrics import image_pass, sets
from diffusioncleft.diffusioncleft_core.metrics.distributions import (
    FLOOR,
    SEEDED,
    TOO_FEW,
    noted,
)
from diffusioncleft.diffusioncleft_core.metrics.extractors import Extractors
from diffusioncleft.diffusioncleft_core.metrics.fid import frechet_distance, split_floor
from diffusioncleft.diffusioncleft_core.metrics.fir import (
    NO_REFERENCE,
)
from diffusioncleft.diffusioncleft_core.metrics.image_pass import FeatureCaches
from diffusioncleft.diffusioncleft_core.metrics.measure import (
    NOT_PAIRED,
    REFERENCE_SIZE,
    MeasureSettings,
    measure_sets,
)
from diffusioncleft.diffusioncleft_core.metrics.sets import (
    condition_of,
)
from diffusioncleft.diffusioncleft_core.weights.networks import NetworkInfo

PACK = {"name": "pack", "sha256": "0" * 64, "phantom": True, "licence": "none"}


class Colours:
    """The mean colour of an image."""

    dimensions = 3

    def __init__(self, sha256="c" * 64):
        self.info, self.batches = NetworkInfo("colours", sha256, False, "none"), []

    def prepare(self, pixels):
        return torch.from_numpy(pixels).float().mean(dim=(0, 1))

    def __call__(self, batch):
        self.batches.append(len(batch))
        return batch


class Pixels:
    """An image's own samples: the distance is that of the pictures."""

    def __init__(self, sha256="p" * 64):
        self.info, self.seen = NetworkInfo("pixels", sha256, False, "none"), 0

    def __call__(self, pixels):
        self.seen += 1
        return torch.from_numpy(pixels).float().flatten() / 255


def save(path, seed, size=(64, 64)):
    path.parent.mkdir(parents=True, exist_ok=True)
    low, high = sorted(np.random.default_rng(seed).integers(0, 256, 2))
    noise = np.random.default_rng(seed).integers(low, high + 1, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).save(path)


def image(path, size=(64, 64)):
    with Image.open(path) as picture:
        if picture.size != size:
            picture = picture.resize(size, Image.Resampling.BICUBIC)
        return np.asarray(picture)


def mean_distance(paths):
    phis = [image(path).astype(float).ravel() / 255 for path in paths]
    return np.mean([np.square(a - b).sum() for a, b in itertools.combinations(phis, 2)])


def colours(paths):
    return np.array([image(path, Image.open(path).size).mean(axis=(0, 1)) for path in paths])


def dataset(folder, condition, n, seed):
    create_dataset_folder(folder)
    write_json(folder / "dataset.json", {"settings": {"phantom": True}})
    rows = []
    for place in range(n + 1):
        save(folder / "images" / f"{place}.png", seed + place)
        role = "train" if place < n else "holdout"
        rows.append(ImageRow(f"images/{place}.png", condition=condition, role=role, caption="a face"))
    write_image_set(folder, rows)
    return folder


@pytest.fixture
def folders(tmp_path):
    """Two generated sets, one of them filtered, and a dataset of each condition."""
    pre, post = tmp_path / "pre", tmp_path / "post"
    verdicts = {0: True, 1: False, 2: True, 3: True, 4: True, 5: False}
    rows = []
    for place, accepted in verdicts.items():
        file = f"{'' if accepted else 'rejected/'}{place}.png"
        save(pre / file, place, {2: (64, 80), 4: (80, 64)}.get(place, (64, 64)))
        row = ImageRow(file, index=place, condition="pre_op", role="generated", prompt="", seed=0)
        attempt = int(place in (2, 5))
        rows.append(replace(row, attempt=attempt, verdicts={"accepted": accepted}))
    (pre / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    write_image_set(pre, rows)
    for place in (0, 1):
        save(post / f"{place}.png", 20 + place)
    return {
        "generated": {"pre_op": pre, "post_op": post},
        "references": [
            dataset(tmp_path / "photographs pre", "pre_op", 20, 100),
            dataset(tmp_path / "photographs post", "post_op", 6, 200),
        ],
    }


def measured(folders, settings=None, fid=None, lpips=None, told=None):
    extractors = Extractors({"fid": fid or Colours()}, lpips or Pixels())
    warn = (lambda message: None) if told is None else told.append
    return measure_sets(folders["generated"], folders["references"], None, extractors, settings, warn=warn)[
        "sets"
    ]


def test_first_attempts_are_raw_accepted_ones_filtered_and_damaged_ones_counted(folders):
    told = []
    sets = measured(folders, told=told)
    assert list(sets) == ["pre_op", "post_op", "all"]
    pre, post = folders["generated"].values()
    photographs, others = (
        [folder / "images" / f"{place}.png" for place in range(n)]
        for folder, n in zip(folders["references"], (20, 6), strict=True)
    )
    raw, kept = [pre / "0.png", pre / "rejected/1.png", pre / "4.png"], [pre / f"{n}.png" for n in (0, 2, 4)]
    bare = [post / "0.png", post / "1.png"]
    expected = {
        ("pre_op", "raw"): (raw, photographs, 1, 1),
        ("pre_op", "filtered"): (kept, photographs, 1, 2),
        ("post_op", "raw"): (bare, others, 0, 0),
        ("all", "raw"): (raw + bare, photographs + others, 1, 1),
    }
    for (group, variant), (images, references, unreadable, resized) in expected.items():
        fid = sets[group]["fid"]["paper"][variant]
        assert fid["value"] == pytest.approx(frechet_distance(colours(images), colours(references)), rel=1e-4)
        assert (fid["n"], fid["n_images"], fid["n_reference"]) == (len(images), len(images), len(references))
        assert (fid["n_unreadable"], fid["extractor"]["name"]) == (unreadable, "colours")
        lpips = sets[group]["lpips"]["paper"][variant]
        exact = sets[group]["lpips_all_pairs"]["robust"][variant]
        pairs = len(images) * (len(images) - 1) // 2
        for figure in (lpips, exact):
            assert figure["value"] == pytest.approx(mean_distance(images), rel=1e-4)
            assert (figure["n"], figure["n_images"], figure["n_unreadable"]) == (
                pairs,
                len(images),
                unreadable,
            )
            assert (figure["image_size"], figure["n_resized"]) == ([64, 64], resized)
            assert figure["n_reference"] is None and "note" not in figure
    assert all("filtered" not in sets[name]["fid"]["paper"] for name in ("post_op", "all"))
    assert len(told) == 1 and told[0].startswith(f"1 of 5 images in {pre} ") and told[0].endswith(": 3.png")
    told.clear()
    measure_sets(folders["generated"], [], None, Extractors({}, Pixels()), warn=told.append)
    assert len(told) == 1 and told[0].startswith(f"1 of 5 images in {pre} ") and told[0].endswith(": 3.png")


def test_the_photographs_own_figures_stand_beside(folders):
    sets = measured(folders, MeasureSettings(seed=3))
    paths = [folders["references"][0] / "images" / f"{place}.png" for place in range(20)]
    reference = sets["pre_op"]["lpips_reference"]["robust"]["real"]
    assert reference["value"] == pytest.approx(mean_distance(paths), rel=1e-4)
    assert (reference["n"], reference["n_reference"], reference["n_images"]) == (190, 20, 20)
    assert (reference["note"], reference["n_unreadable"]) == (REFERENCE_SIZE, 0)
    floor = sets["pre_op"]["fid_floor"]["robust"]["real"]
    size = floor["n"]
    values = split_floor(colours(paths).astype(np.float32), 10, 3, size)
    assert floor["value"] == pytest.approx(np.mean(values), rel=1e-4)
    assert floor["range"] == pytest.approx([min(values), max(values)], rel=1e-4)
    assert (floor["n"], floor["n_images"], floor["n_reference"], floor["note"]) == (3, 20, 20, FLOOR)
    assert floor["n_unreadable"] == 0
    assert "fid_floor" not in sets["post_op"] and sets["all"]["fid_floor"]["robust"]["real"]["n"] == 5
    assert sets["post_op"]["lpips_reference"]["robust"]["real"]["n"] == 6 * 5 // 2


@pytest.mark.parametrize("vectors", [{}, {"fid": Colours()}], ids=["LPIPS alone", "with vectors"])
def test_a_second_evaluation_decodes_no_image_not_even_the_damaged_ones(folders, monkeypatch, vectors):
    decoded = []

    def counted(path):
        decoded.append(path.name)
        return read_image(path)

    monkeypatch.setattr(sets, "read_image", counted)

    def evaluated():
        decoded.clear()
        told = []
        extractors = Extractors(vectors, Pixels())
        return measure_sets(**folders, analyzer=None, extractors=extractors, warn=told.append), told

    first = evaluated()
    assert len(decoded) == 5 + 2 + 20 + 6 + (2 if vectors else 0)
    assert len(first[1]) == 1 and first[1][0].endswith(": 3.png")
    assert evaluated() == first and decoded == []
    monkeypatch.setattr(image_pass, "decoder", lambda: "another, which may read it")
    assert evaluated() == first and "3.png" in decoded


def test_one_folder_for_several_sets_computes_what_they_share_once(folders, tmp_path):
    pre, post = folders["generated"].values()
    shutil.copy(pre / "0.png", post / "0.png")
    fid = Colours()
    settings = MeasureSettings(cache_dir=tmp_path / "kept")
    figures = measured(folders, settings, fid=fid)
    assert sum(fid.batches) == 5 + 26 + 2
    again = Colours()
    assert measured(folders, settings, fid=again) == figures and not again.batches
    assert len(list((tmp_path / "kept").rglob("*.parquet"))) == 1


def test_of_a_large_set_a_random_part_is_measured_and_nothing_else_is_read(folders, monkeypatch):
    decoded, told = [], []

    def counted(path):
        decoded.append(path)
        return read_image(path)

    monkeypatch.setattr(sets, "read_image", counted)
    every = measured(folders)
    pre, post = folders["generated"].values()
    shutil.rmtree(pre / ".measure")
    decoded.clear()
    extractors = Extractors({"fid": Colours()}, Pixels())
    settings = MeasureSettings(most_images=3, seed=1)
    some = measure_sets(**folders, analyzer=None, extractors=extractors, settings=settings, warn=told.append)[
        "sets"
    ]
    drawn = {path.name for path in decoded if path.is_relative_to(pre)}
    assert len(drawn) == 3
    assert [line for line in told if "--most-images" in line] == [
        "distances, neighbourhoods and LPIPS of pre_op are measured on 3 of its 5 images, drawn at random "
        "(`measure --most-images` takes another number)"
    ]
    fid = some["pre_op"]["fid"]["paper"]["raw"]
    made_again = {"2.png", "5.png"}
    assert fid["n_images"] + fid["n_unreadable"] == len(drawn - made_again)
    kept = some["pre_op"]["fid"]["paper"]["filtered"]
    assert kept["n_images"] + kept["n_unreadable"] == len(drawn - {"1.png", "5.png"})
    assert some["post_op"] == every["post_op"]
    assert some["all"]["fid"]["paper"]["raw"]["n_images"] == fid["n_images"] + len(list(post.glob("*.png")))
    assert measured(folders, MeasureSettings(most_images=5)) == every


def test_a_random_sample_of_pairs_is_the_seeds(folders):
    first, again, other = (
        measured(folders, MeasureSettings(pairs=2, seed=seed))["all"]["lpips"]["paper"]["raw"]
        for seed in (0, 0, 1)
    )
    assert first["n"] <= 2 and first == again
    assert first["value"] != other["value"]


def test_each_image_is_looked_at_once_and_again_only_when_it_or_the_network_changed(folders):
    fid, lpips = Colours(), Pixels()
    sets = measured(folders, fid=fid, lpips=lpips)
    assert (sum(fid.batches), max(fid.batches), lpips.seen) == (6 + 26 + 2, 16, 6 + 26)
    again = measured(folders, fid=(fid := Colours()), lpips=(lpips := Pixels()))
    assert (fid.batches, lpips.seen, again) == ([], 0, sets)
    save(folders["generated"]["post_op"] / "1.png", 77)
    changed = measured(folders, fid=(fid := Colours()), lpips=(lpips := Pixels()))
    assert (fid.batches, lpips.seen) == ([1], 5)  # its pairs with the other four raw images
    assert changed["pre_op"] == sets["pre_op"]
    assert changed["post_op"]["fid"] != sets["post_op"]["fid"]
    measured(folders, fid=(fid := Colours("d" * 64)), lpips=(lpips := Pixels("q" * 64)))
    assert (sum(fid.batches), lpips.seen) == (6 + 26 + 2, 6 + 26)


def test_a_distance_alone_is_the_same_and_one_set_has_no_group_beside_it(folders):
    both = measured(folders)["pre_op"]["fid"]
    folders["generated"].pop("post_op")
    for cached in (False, True):
        if not cached:
            shutil.rmtree(folders["generated"]["pre_op"] / ".measure")
        alone = measure_sets(**folders, analyzer=None, extractors=Extractors({"fid": Colours()}))["sets"]
        assert list(alone) == ["pre_op"] and alone["pre_op"]["fid"] == both
    pre = folders["generated"]["pre_op"]
    assert list(measure_sets({"all": pre}, [], None, Extractors({"fid": Colours()}))["sets"]) == ["all"]


def test_nothing_of_several_datasets_is_kept_in_one_place(folders, tmp_path):
    pre, photographs = folders["generated"]["pre_op"], folders["references"][0]
    own, other = FeatureCaches(), FeatureCaches(tmp_path / "elsewhere")
    assert own.shared([pre, photographs]) is own.shared([photographs, pre]) is own.shared([]) is None
    assert own.shared([pre, tmp_path]) == own.shared([pre]) == pre / ".measure"
    assert other.shared([pre]) == tmp_path / "elsewhere"
    assert own.shared([photographs]) == other.folder(photographs) == photographs / "cache" / "features"


def test_words_stand_where_two_images_are_missing(folders):
    (folders["generated"]["post_op"] / "1.png").unlink()
    one = measured(folders)["post_op"]["fid"]["paper"]["raw"]
    assert (one["value"], one["n"], one["n_reference"], one["note"]) == (None, 1, 6, TOO_FEW.format(2))
    folders["references"].pop()
    found = measured(folders)["post_op"]
    fid, lpips = found["fid"]["paper"]["raw"], found["lpips"]["paper"]["raw"]
    assert (fid["value"], fid["n"], fid["note"]) == (None, 1, NO_REFERENCE)
    assert (lpips["value"], lpips["n"], lpips["n_images"], lpips["note"]) == (None, 0, 1, NOT_PAIRED)
    assert "lpips_reference" not in found
    real, drawn = {"phantom": False}, {"phantom": True}
    assert (noted(real, ""), noted(drawn, ""), noted(drawn, FLOOR)) == ("", SEEDED, f"{SEEDED} {FLOOR}")


def test_an_empty_set_is_named_and_nothing_but_empty_sets_is_refused(folders, tmp_path):
    (tmp_path / "none").mkdir()
    folders["generated"]["other"] = tmp_path / "none"
    told = []
    sets = measured(folders, told=told)
    assert sets["other"]["fid"]["paper"]["raw"]["n"] == 0
    assert f"{tmp_path / 'none'} holds no image" in told
    with pytest.raises(UserError, match="nothing to measure"):
        measure_sets({"pre_op": tmp_path / "none"}, [], None, Extractors())
    assert condition_of(folders["generated"]["pre_op"]) == "pre_op"
    assert condition_of(folders["generated"]["post_op"]) is condition_of(tmp_path / "none") is None


@pytest.mark.parametrize("wrong", [{"pairs": 0}, {"threshold": 1.5}])
def test_a_measurement_of_no_pair_or_no_cosine_is_refused(wrong):
    with pytest.raises(UserError, match=r"the (number of pairs|threshold) is"):
        MeasureSettings(**wrong)


def test_networks_that_know_nothing_of_photographs_measure_phantoms_alone(folders):
    seeded = Colours()
    seeded.info = NetworkInfo("colours", "c" * 64, True, "none")
    assert measured(folders, fid=seeded)["pre_op"]["fid"]["paper"]["raw"]["note"].startswith(SEEDED)
    write_json(folders["references"][1] / "dataset.json", {"settings": {}})
    assert measured(folders)["pre_op"]
    with pytest.raises(UserError, match="post holds photographs"):
        measured(folders, fid=seeded)
