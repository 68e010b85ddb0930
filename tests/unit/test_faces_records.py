"""The one pass over faces, and the training faces that everything is compared with."""

import io
import json
import os
import shutil
import stat
import threading

import numpy as np
import pytest
from phantom_datasets import phantom_dataset
from PIL import Image

from diffusioncleft.diffusioncleft_core import phantom
from diffusioncleft.diffusioncleft_core.dataset.examine import Examination, examine
from diffusioncleft.diffusioncleft_core.dataset.folder import purge_dataset
from diffusioncleft.diffusioncleft_core.dataset.references import dataset_records, read_references
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.faces.analyzer import PHANTOM_FOLDER, load_face_analyzer
from diffusioncleft.diffusioncleft_core.faces.records import (
    PHANTOM_SCORE,
    RECORDS,
    FaceRecord,
    are_phantoms,
    embedding_matrix,
    face_records,
    record_of,
)
from diffusioncleft.diffusioncleft_core.imageset import ahead
from diffusioncleft.diffusioncleft_core.imageset.decode import read_image
from diffusioncleft.diffusioncleft_core.imageset.manifest import read_image_set
from diffusioncleft.diffusioncleft_core.phantom.face import random_face
from diffusioncleft.diffusioncleft_core.phantom.render import render
from diffusioncleft.tools.altered_copies import CHANGES


@pytest.fixture(scope="module")
def datasets(tmp_path_factory, analyzer):
    root = tmp_path_factory.mktemp("datasets")
    folders = {}
    for seed, name in enumerate(("pre_op", "post_op")):
        phantom_dataset(root / f"photos {name}", name, root / name, analyzer, n=6, seed=seed)
        folders[name] = root / name
    return folders


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(1)
    one, other = (phantom.render(phantom.random_face(rng), 128).image for _ in range(2))
    both = np.full((128, 224, 3), 190, np.uint8)
    both[:, :128] = one
    both[32:96, 144:208] = np.asarray(Image.fromarray(other).resize((64, 64)))
    Image.fromarray(one).save(folder / "one.png")
    Image.fromarray(both).save(folder / "both.png")
    Image.fromarray(np.full((64, 96, 3), 80, np.uint8)).save(folder / "empty.png")
    (folder / "torn.png").write_bytes((folder / "one.png").read_bytes()[:500])
    return folder


class Counting:
    """The real analyzer, counting what it is asked."""

    def __init__(self, analyzer):
        self._analyzer, self.asked = analyzer, 0

    def __getattr__(self, name):
        return getattr(self._analyzer, name)

    def analyze(self, image):
        self.asked += 1
        return self._analyzer.analyze(image)


def test_a_record_says_how_many_faces_and_describes_the_largest(images, analyzer):
    one, both, empty, torn, missing = face_records(
        images, ["one.png", "both.png", "empty.png", "torn.png", "missing.png"], analyzer
    )
    assert one.n_faces == 1 and one.second_share == 0 and one.landmarks.shape == (5, 2)
    assert np.linalg.norm(one.embedding) == pytest.approx(1, abs=1e-5)
    assert both.n_faces == 2 and 0.05 < both.second_share < 0.6 and (both.width, both.height) == (224, 128)
    assert not empty.has_face and empty.embedding is None and (empty.width, empty.height) == (96, 64)
    assert torn.unreadable and missing.unreadable and not torn.has_face
    matrix, places = embedding_matrix([one, empty, both])
    assert matrix.shape == (2, 512) and places.tolist() == [0, 2]


def test_a_face_is_looked_for_once_whatever_the_file_is_called(images, analyzer, tmp_path):
    counting, cache = Counting(analyzer), tmp_path / "private"
    first = face_records(images, ["one.png", "empty.png"], counting, cache)
    (images / "one.png").rename(images / "renamed.png")
    again = face_records(images, ["renamed.png", "empty.png"], counting, cache)
    assert counting.asked == 2
    assert [a.to_json() for a in first] == [b.to_json() for b in again]
    if os.name == "posix":
        assert stat.S_IMODE(cache.stat().st_mode) == 0o700


@pytest.mark.parametrize("cores", [1, 4])
def test_records_are_the_same_on_one_core_and_on_several(images, analyzer, monkeypatch, cores):
    """On several a thread runs the networks; torn and repeated files are between the others."""
    (images / "copy.png").write_bytes((images / "both.png").read_bytes())
    names = ["one.png", "torn.png", "both.png", "copy.png", "empty.png", "missing.png", "one.png"]
    monkeypatch.setattr(ahead, "usable_cores", lambda: cores)
    threads = set()

    class Watched(Counting):
        def analyze(self, image):
            threads.add(threading.current_thread())
            return super().analyze(image)

    watched = Watched(analyzer)
    found = face_records(images, names, watched)
    expected = []
    for name in names:
        expected.append(None)
        if name not in ("torn.png", "missing.png"):
            pixels = read_image(images / name)
            expected[-1] = record_of(pixels, analyzer.analyze(pixels)).to_json()
    assert [None if record.unreadable else record.to_json() for record in found] == expected
    assert watched.asked == 3 and (threads == {threading.current_thread()}) == (cores == 1)


def test_what_the_analysis_raises_ends_the_pass_and_leaves_no_thread(images, analyzer, monkeypatch, tmp_path):
    monkeypatch.setattr(ahead, "usable_cores", lambda: 2)

    class Breaking(Counting):
        def analyze(self, image):
            if image.shape[1] == 224:
                raise MemoryError("this picture is too much")
            return super().analyze(image)

    with pytest.raises(MemoryError, match="too much"):
        face_records(images, ["one.png", "both.png", "empty.png"], Breaking(analyzer), tmp_path / "private")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("look")]
    counting = Counting(analyzer)
    face_records(images, ["one.png"], counting, tmp_path / "private")
    assert counting.asked == 0  # what was found before is kept


def test_a_torn_cache_costs_only_its_last_row(images, analyzer, tmp_path):
    cache, names = tmp_path / "private", ["one.png", "both.png"]
    face_records(images, names, analyzer, cache)
    data = (cache / f"{RECORDS}.jsonl").read_bytes()
    (cache / f"{RECORDS}.jsonl").write_bytes(data[:-50])
    for expected in (1, 0):
        counting = Counting(analyzer)
        face_records(images, names, counting, cache)
        assert counting.asked == expected


def test_other_weights_or_sizes_are_another_pass(images, analyzer, tmp_path):
    face_records(images, ["one.png"], analyzer, tmp_path / "private")
    pack = shutil.copytree(PHANTOM_FOLDER, tmp_path / "pack")
    settings = json.loads((pack / "pack.json").read_text())
    (pack / "pack.json").write_text(json.dumps(settings | {"det_size": 192}))
    counting = Counting(load_face_analyzer(pack, threads=1))
    face_records(images, ["one.png"], counting, tmp_path / "private")
    assert counting.asked == 1


def test_a_path_that_leads_out_of_the_folder_is_refused(images, analyzer):
    with pytest.raises(UserError, match="leads out of"):
        face_records(images, ["../elsewhere.png"], analyzer)


def test_records_hold_no_name_and_no_hash(images, analyzer, tmp_path):
    record = face_records(images, ["one.png"], analyzer, tmp_path / "private")[0]
    assert "one" not in json.dumps(record.to_json(), default=str).replace("none", "")
    assert "0x" in repr(record)


def test_references_are_the_training_photographs_of_every_condition(datasets, analyzer):
    counting = Counting(analyzer)
    reference = read_references(list(datasets.values()), counting)
    assert counting.asked == 0  # the build had found them
    train = {name: sum(r.role == "train" for r in read_image_set(path)) for name, path in datasets.items()}
    assert dict(reference.n_photographs) == train and len(reference) == sum(train.values())
    assert dict(reference.n_no_face) == {"pre_op": 0, "post_op": 0}
    assert len(reference.of("pre_op")) == train["pre_op"]
    own = reference.similarities(reference.of("post_op"))
    assert own.shape == (train["post_op"], len(reference))
    assert np.allclose(own[np.arange(train["post_op"]), reference.index("post_op")], 1, atol=1e-4)


def test_another_pack_than_the_builds_looks_again_and_keeps_it_with_the_dataset(datasets, tmp_path):
    dataset = shutil.copytree(datasets["pre_op"], tmp_path / "pre_op")
    pack = shutil.copytree(PHANTOM_FOLDER, tmp_path / "pack")
    settings = json.loads((pack / "pack.json").read_text())
    (pack / "pack.json").write_text(json.dumps(settings | {"det_size": 192, "phantom_only": True}))
    counting = Counting(load_face_analyzer(pack, threads=1))
    for _ in range(2):
        rows, records = dataset_records(dataset, counting)
        assert len(rows) == counting.asked and all(record.has_face for record in records)
    assert (dataset / "cache" / "faces" / f"{RECORDS}.jsonl").is_file()
    purge_dataset(dataset)
    assert not dataset.exists()


def test_a_training_image_without_a_face_is_counted(datasets, analyzer, tmp_path):
    dataset = shutil.copytree(datasets["pre_op"], tmp_path / "pre_op")
    row = next(row for row in read_image_set(dataset) if row.role == "train")
    Image.new("RGB", (128, 128), (90, 120, 90)).save(dataset / row.file)
    (dataset / "examined.jsonl").unlink()
    reference = read_references([dataset], analyzer)
    assert dict(reference.n_no_face) == {"pre_op": 1}
    assert len(reference) == reference.n_photographs["pre_op"] - 1


def test_what_is_no_reference_is_said_in_one_sentence(datasets, analyzer, tmp_path):
    with pytest.raises(UserError, match="nothing to compare with"):
        read_references([], analyzer)
    with pytest.raises(UserError, match="no dataset folder"):
        read_references([tmp_path], analyzer)
    real = shutil.copytree(datasets["pre_op"], tmp_path / "real")
    described = json.loads((real / "dataset.json").read_text())
    described["settings"]["phantom"] = False
    (real / "dataset.json").write_text(json.dumps(described))
    with pytest.raises(UserError, match="know phantoms alone"):
        read_references([real], analyzer)


def test_the_ledger_of_an_earlier_version_is_read_and_several_faces_are_examined_anew(analyzer):
    """Its rows described the largest face alone, beside the photograph's size."""
    pixels = render(random_face(np.random.default_rng(5)), 128).image
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    found, _ = examine(data.getvalue(), "s", "key", analyzer, max_side=2048, first_frame=False)
    record = found.record.to_json()
    earlier = {name: value for name, value in found.to_json().items() if name != "record"}
    earlier |= {"width": 128, "height": 128, "faces": 1, "embedding": record["embedding"]}
    earlier["face"] = {name: record[name] for name in ("box", "landmarks", "score", "rung")}
    again = Examination.from_json(json.loads(json.dumps(earlier)))
    assert again.record.to_json() == record and again.settings == "key"
    assert Examination.from_json(found.to_json()).record.to_json() == record
    assert Examination.from_json({**earlier, "faces": 2}).settings != "key"


@pytest.mark.parametrize("size", [64, 128, 256])
@pytest.mark.parametrize("change", ["the same", "grey", "JPEG, quality 30", "turned by 10°"])
def test_pictures_of_phantoms_are_known_as_such(analyzer, size, change):
    rng = np.random.default_rng(7)
    faces = [random_face(rng, finding=finding) for finding in (None, "cleft", "scar") * 2]
    images = [CHANGES[change](render(face, size).image, rng, np.zeros(0)) for face in faces]
    assert are_phantoms(record_of(image, analyzer.analyze(image)) for image in images)


def test_one_in_four_of_which_the_detector_is_less_sure_does_not_make_phantoms_people():
    def scored(*scores):
        return [FaceRecord(128, 128, 1, score=score) for score in scores]

    sure, less = PHANTOM_SCORE + 0.02, PHANTOM_SCORE - 0.2
    assert are_phantoms(scored(*[sure] * 7, *[less] * 2))
    assert not are_phantoms(scored(*[sure] * 5, *[less] * 4))
    assert not are_phantoms([FaceRecord(128, 128)]) and not are_phantoms([])
