"""What was computed from an image lies with the set that owns it, so that a purge leaves nothing of it."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from phantom_datasets import FINDING_OF, phantom_dataset
from pyarrow import parquet

from diffusioncleft.cli import main as cli
from diffusioncleft.diffusioncleft_core.dataset.consent import REQUIRED
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.files import read_json, read_jsonl, sha256_file, write_jsonl
from diffusioncleft.diffusioncleft_core.phantom.face import random_face
from diffusioncleft.diffusioncleft_core.phantom.render import render
from diffusioncleft.trainer.config import parse_recipe
from diffusioncleft.trainer.events import Events
from diffusioncleft.trainer.flux_train_network import train
from diffusioncleft.trainer.interruption import Interruption

CONDITIONS = ("pre_op", "post_op")
OLD_CACHES = ("latents", "text", "measure")


def generated_set(folder: Path, condition: str, seed: int) -> None:
    from PIL import Image

    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    rows = []
    for index in range(3):
        name = f"{index:06d}_{index}.png"
        Image.fromarray(render(random_face(random, finding=FINDING_OF[condition]), 96).image).save(
            folder / name
        )
        rows.append({"file": name, "condition": condition, "role": "generated", "verdicts": {}})
    write_jsonl(folder / "manifest.jsonl", rows)


def work_over(root: Path, names: tuple[str, ...], out: Path) -> list[dict]:
    """Filter, measure and train over the datasets `names` of `root`; the trainer's events."""
    datasets = [root / "private" / name for name in names]
    sets = [root / "generated" / name for name in names]
    common = ["--phantom", "--device", "cpu"]
    apart = [word for folder in datasets for word in ("--reference", str(folder))]
    for folder in sets:
        assert cli.main(["filter", str(folder), *common, *apart]) == 0
    assert (
        cli.main(
            [
                "measure",
                *map(str, sets),
                *common,
                "--reference",
                *map(str, datasets),
                "--out",
                str(out / "report.json"),
            ]
        )
        == 0
    )
    subsets = "".join(f"[[datasets.subsets]]\nimage_dir = '{folder.as_posix()}'\n" for folder in datasets)
    (out / "both.toml").write_text(f"[[datasets]]\nresolution = 64\n{subsets}")
    settings = [
        "--phantom",
        "--preset",
        "paper",
        "--device",
        "cpu",
        "--num_cpu_threads",
        "1",
        "--max_train_steps",
        "1",
    ]
    settings += ["--optimizer_type", "AdamW"]
    settings += ["--dataset_config", str(out / "both.toml"), "--output_dir", str(out / "lora")]
    events: list[dict] = []
    train(parse_recipe(settings), Events(events.append), Interruption())
    return events


@pytest.fixture(scope="module")
def worked(analyzer, tmp_path_factory):
    """Two datasets, each with a generated set, after everything that computes from both."""
    root = tmp_path_factory.mktemp("worked")
    for seed, name in enumerate(CONDITIONS):
        phantom_dataset(root / "photos" / name, name, root / "private" / name, analyzer, n=8, seed=seed)
        (root / "private" / name / "examined.jsonl").unlink()  # so that faces are looked for, and kept
        for old in OLD_CACHES:
            (root / "private" / name / "cache" / old).mkdir(parents=True)
            (root / "private" / name / "cache" / old / "another set's").write_text("left by an older version")
        generated_set(root / "generated" / name, name, seed + 20)
    work_over(root, CONDITIONS, root)
    return root


def telling(dataset: Path) -> set[bytes]:
    """What only this dataset can have given: hashes of its images, and the numbers in its caches."""
    found: set[bytes] = set()
    for row in read_jsonl(dataset / "manifest.jsonl"):
        for digest in (row["sha256"], sha256_file(dataset / row["file"])):
            found |= {digest[:32].encode(), digest[:32].encode("utf-32-le")}
    for path in (dataset / "cache").rglob("*"):
        if path.suffix == ".safetensors" and path.parent.name != "text":
            found |= {path.stem.encode(), path.read_bytes()[-1024:]}
        if path.suffix == ".parquet":
            for column in parquet.read_table(path).columns:
                found |= {value.as_py()[:1024] for value in column}
        if path.suffix == ".jsonl":
            found |= {line for line in path.read_bytes().splitlines() if line}
    return found


@pytest.mark.parametrize("purged", CONDITIONS)
def test_a_purge_leaves_nothing_of_the_dataset_in_the_other_which_still_has_its_cache(
    worked, tmp_path, purged
):
    root = tmp_path / "copy"
    shutil.copytree(worked, root)
    (kept,) = set(CONDITIONS) - {purged}
    remaining = root / "private" / kept
    words = telling(root / "private" / purged)
    kept_of_it = [path for path in (root / "private" / purged / "cache").rglob("*.*") if path.is_file()]
    assert {name for path in kept_of_it for name in path.parts} >= {
        "vectors", "moments", "faces", "latents", "text",
    }  # fmt: skip
    assert cli.main(["dataset", "purge", str(root / "private" / purged), "--yes"]) == 0
    for path in (path for path in root.rglob("*") if path.is_file()):
        if "photos" in path.relative_to(root).parts or "generated" in path.relative_to(root).parts:
            continue
        told = f"{path}".encode() + path.read_bytes()
        assert not [word for word in words if word in told], path
    before = times(remaining / "cache")
    assert {path.suffix for path in before} == {".safetensors", ".parquet"}
    (tmp_path / "again").mkdir()
    # What belongs to no image, such as the empty caption, lies in the output folder.
    shutil.copytree(root / "lora" / "private", tmp_path / "again" / "lora" / "private")
    events = work_over(root, (kept,), tmp_path / "again")
    assert not [event for event in events if event["event"] == "prepare"]
    assert times(remaining / "cache") == before


def times(cache: Path) -> dict[Path, int]:
    """When each file of tensors and vectors was written."""
    kept = [path for path in cache.rglob("*") if path.suffix in (".safetensors", ".parquet")]
    return {path: path.stat().st_mtime_ns for path in kept}


def test_what_older_versions_shared_between_datasets_is_erased(worked):
    for name in CONDITIONS:
        cache = worked / "private" / name / "cache"
        assert not [old for old in OLD_CACHES if (cache / old).exists()]


def test_an_image_in_two_datasets_is_kept_in_both(worked, tmp_path):
    """Whichever is purged, the other has its own."""
    root = tmp_path / "copy"
    shutil.copytree(worked / "private" / "pre_op", root / "private" / "pre_op")
    shutil.copytree(worked / "private" / "pre_op", root / "private" / "post_op")
    shutil.rmtree(root / "private" / "post_op" / "cache")
    for seed, name in enumerate(CONDITIONS):
        generated_set(root / "generated" / name, name, seed + 20)
    work_over(root, CONDITIONS, root)
    keys = [
        {
            value.as_py()
            for path in (root / "private" / name / "cache/features/vectors").rglob("*.parquet")
            for value in parquet.read_table(path)["key"]
        }
        for name in CONDITIONS
    ]
    assert keys[0] == keys[1] and keys[0]
    for part in ("training/latents", "training/text"):
        names = [
            {path.name for path in (root / "private" / name / "cache" / part).glob("*.safetensors")}
            for name in CONDITIONS
        ]
        assert names[0] == names[1], part


def test_the_filter_refuses_a_dataset(worked, capsys):
    folder = worked / "private" / "pre_op"
    before = (folder / "manifest.jsonl").read_bytes()
    assert cli.main(["filter", str(folder), "--phantom", "--reference", str(folder), "--device", "cpu"]) == 2
    assert "is a dataset of photographs" in capsys.readouterr().err
    assert (folder / "manifest.jsonl").read_bytes() == before


def test_read_only_datasets_and_sets_are_measured_and_trained_on_and_stay_as_they_are(
    tmp_path, analyzer, make_read_only, monkeypatch, capsys
):
    monkeypatch.delenv(REQUIRED, raising=False)
    share = tmp_path / "share"
    phantom_dataset(tmp_path / "photographs", "pre_op", share / "private", analyzer, n=6, seed=3)
    generated_set(share / "generated", "pre_op", 9)
    before = {path: path.read_bytes() for path in sorted(share.rglob("*")) if path.is_file()}
    make_read_only(share)
    out = tmp_path / "measured.json"
    words = ["measure", share / "generated", "--phantom", "--device", "cpu", "--reference", share / "private"]
    assert cli.main([*map(str, words), "--out", str(out)]) == 0
    assert read_json(out)["sets"]["pre_op"]["fid"]["paper"]["raw"]["value"] is not None
    told = capsys.readouterr().err
    assert told.count("can't be written") == 2
    assert "--cache DIR" in told

    words = ["--phantom", "--device", "cpu", "--num_cpu_threads", 1, "--max_train_steps", 1]
    words += ["--optimizer_type", "AdamW", "--resolution", 64, "--train_data_dir", share / "private"]
    for kept in ([], ["--cache_dir", tmp_path / "kept"]):
        events: list[dict] = []
        recipe = parse_recipe(
            [*map(str, words), *map(str, kept), "--output_dir", str(tmp_path / f"l{len(kept)}")]
        )
        train(recipe, Events(events.append), Interruption())
        warning = " ".join(e["message"] for e in events if e["event"] == "warning")
        assert events[-1]["event"] == "done"
        assert f"{share / 'private'} can't be written" in warning
        assert "does not mark this LoRA" in warning
        assert ("--cache_dir" in warning) is not bool(kept)
    latents = list(tmp_path.rglob("latents/*.safetensors"))
    assert latents
    assert all(path.is_relative_to(tmp_path / "kept") for path in latents)
    assert {path: path.read_bytes() for path in sorted(share.rglob("*")) if path.is_file()} == before

    monkeypatch.setenv(REQUIRED, "1")
    with pytest.raises(UserError, match="would not know of this training"):
        train(recipe, Events(events.append), Interruption())
