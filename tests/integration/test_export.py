"""Sets as shards: read by `datasets`, webdataset and pyarrow, without a line of ours."""

import io
import json
import tarfile

import pytest
from drawn_sets import draw_set
from PIL import Image

from diffusioncleft.diffusioncleft_core.files import read_json, read_jsonl, write_json
from diffusioncleft.diffusioncleft_core.imageset.manifest import listed_rows, write_image_set

N = 7


@pytest.fixture
def drawn(tmp_path):
    """A set of seven pictures of which the filters rejected the third and have not moved it."""
    return draw_set(tmp_path / "pre_op", N)


def export(command, drawn, form, out, *options):
    done = command("export", drawn, "--format", form, "--out", out, "--per-shard", 4, *options)
    assert done.returncode == 0, done.stderr
    suffix = {"webdataset": ".tar", "parquet": ".parquet"}[form]
    files = {path.name for path in out.iterdir()}
    assert {name for name in files if not name.endswith(suffix)} == {"index.json", "images.jsonl"}
    return sorted(out.glob(f"*{suffix}"))


@pytest.mark.parametrize("form", ["webdataset", "parquet"])
def test_datasets_loads_the_shards_without_our_code(command, drawn, tmp_path, form):
    files = export(command, drawn, form, tmp_path / "shards")
    suffix = {"webdataset": "tar", "parquet": "parquet"}[form]
    assert [path.name for path in files] == [f"pre_op-{i:05d}-of-00002.{suffix}" for i in range(2)]
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(
        form, data_files=[str(path) for path in files], split="train", cache_dir=str(tmp_path / "cache")
    )
    rows = [row for row in listed_rows(drawn) if row.accepted]
    assert len(loaded) == len(rows) == N - 1
    for found, row in zip(loaded, rows, strict=True):
        picture = found["png" if form == "webdataset" else "image"]
        with Image.open(drawn / row.file) as original:
            assert picture.tobytes() == original.tobytes()
        fields = found["json"] if form == "webdataset" else json.loads(found["sidecar"])
        assert fields["prompt"] == row.prompt
        assert fields["seed"] == row.seed
        assert fields["synthetic"] is True


def test_the_tars_are_what_webdataset_reads(command, drawn, tmp_path):
    files = export(command, drawn, "webdataset", tmp_path / "shards", "--all")
    webdataset = pytest.importorskip("webdataset")
    found = list(webdataset.WebDataset([str(path) for path in files], shardshuffle=False))
    assert [json.loads(item["json"])["index"] for item in found] == list(range(N))
    assert all(item["png"] == (drawn / f"{item['__key__']}.png").read_bytes() for item in found)


def test_the_pictures_keep_their_mark_and_the_same_set_gives_the_same_bytes(command, drawn, tmp_path):
    one = export(command, drawn, "webdataset", tmp_path / "one")
    two = export(command, drawn, "webdataset", tmp_path / "two")
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    with tarfile.open(one[0]) as tar:
        name = next(name for name in tar.getnames() if name.endswith(".png"))
        with Image.open(io.BytesIO(tar.extractfile(name).read())) as image:
            assert image.info["synthetic"] == "true"


def test_a_smaller_set_leaves_no_shard_of_the_larger_one(command, drawn, tmp_path):
    assert len(export(command, drawn, "parquet", tmp_path / "shards", "--all")) == 2
    rows = read_jsonl(drawn / "manifest.jsonl")
    write_image_set(drawn, list(listed_rows(drawn))[:3])
    assert len(rows) == N
    assert [path.name for path in export(command, drawn, "parquet", tmp_path / "shards", "--all")] == [
        "pre_op-00000-of-00001.parquet"
    ]


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda folder: (folder / "manifest.jsonl").unlink(), "has no manifest.jsonl"),
        (lambda folder: next(folder.glob("000001_*.png")).unlink(), "can't be read"),
        (
            lambda folder: write_json(
                path := next(folder.glob("000001_*.json")), {**read_json(path), "synthetic": False}
            ),
            "only generated images are exported",
        ),
    ],
)
def test_what_can_not_be_exported_is_one_sentence_and_leaves_no_shard(
    refused, drawn, tmp_path, damage, sentence
):
    damage(drawn)
    out = tmp_path / "shards"
    assert sentence in refused("export", drawn, "--format", "webdataset", "--out", out)
    assert not list(out.glob("*.tar"))


def test_a_folder_with_other_files_is_left_alone(refused, drawn, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert "holds other files" in refused("export", drawn, "--format", "webdataset", "--out", tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
